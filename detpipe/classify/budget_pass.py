"""Detections for several numbers of proposals (budgets) from one scoring pass.

The scores of a region do not depend on the other regions of its image, except with head.attention. So the detections
of the first b proposals follow from the first b rows of the scores, and every region is scored once. R: regions of an
image.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from detpipe.classify.detect import NO_DETECTIONS, Scorer, of_readable, scored_regions, select_detections
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Detections, Float32Array, Image


@dataclass(eq=False)
class BudgetPass:
    """The detections of a pass, and its duration.

    detections: budget -> detections of each image, in order. score: seconds of all scoring, with image decoding.
    select: budget -> seconds of selecting its detections. regions: R of each image.
    """

    detections: dict[int, list[Detections]]
    select: dict[int, float]
    score: float = 0.0
    regions: list[int] = field(default_factory=list)


def budget_pass(
    scorer: Scorer,
    chunks: Iterable[Iterable[tuple[Image, Float32Array] | None]],
    budgets: Sequence[int],
    config: DetectConfig,
) -> BudgetPass:
    """Score every region once, and select the detections of the first b regions of each image for every budget b.

    chunks: images with their (R, 4) regions, best first; None for an image that cannot be read, which has no
    detections. The images of a chunk share batches, and all their scores are in memory. Scoring and selection
    alternate, so that both are timed. No chunks give no detections.
    """
    found = BudgetPass({budget: [] for budget in budgets}, dict.fromkeys(budgets, 0.0))
    for chunk in chunks:
        begun = time.perf_counter()
        scored = list(of_readable(lambda images: scored_regions(scorer, images), chunk))
        found.score += time.perf_counter() - begun
        found.regions += [0 if one is None else len(one[0]) for one in scored]
        for budget in budgets:
            begun = time.perf_counter()
            found.detections[budget] += [
                NO_DETECTIONS
                if one is None
                else select_detections(one[0][:budget], one[1].first(budget), one[2], config)
                for one in scored
            ]
            found.select[budget] += time.perf_counter() - begun
    return found
