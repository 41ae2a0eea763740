"""One scoring pass, cut at each budget: by hand, and against a pass of its own for each budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from torch import nn

from detpipe.classify.budget_pass import budget_pass
from detpipe.classify.detect import ScoredRegions, scored_regions, select_detections
from detpipe.classify.settings import DetectConfig
from detpipe.structures import Float32Array, Image
from tests.classify import tiny
from tests.classify.crops.test_scorer import scorer
from tests.classify.test_detect import boxes_of

IMAGE = np.zeros((20, 40, 3), dtype=np.uint8)


class Given:
    """A scorer whose probability for a region of the one class is its left edge, in hundredths; counts the regions."""

    network = nn.Identity()

    def __init__(self) -> None:
        self.regions = 0

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        for _, boxes in images:
            self.regions += len(boxes)
            yield ScoredRegions(np.stack([1 - boxes[:, 0] / 100, boxes[:, 0] / 100], axis=1), None)


def test_by_hand() -> None:
    """The second region lies on the first and has the better score; the third stands alone, below the floor."""
    boxes = boxes_of((10, 0, 20, 10), (11, 0, 21, 10), (1, 12, 5, 18))
    given = Given()
    chunks = [[(IMAGE, boxes), (IMAGE, boxes[:0])], [(IMAGE, boxes[2:])]]
    found = budget_pass(given, chunks, [1, 2, 5], DetectConfig(score_floor=0.05))
    lists = {budget: [one.boxes.tolist() for one in each] for budget, each in found.detections.items()}
    assert lists == {1: [[[10, 0, 20, 10]], [], []], 2: [[[11, 0, 21, 10]], [], []], 5: [[[11, 0, 21, 10]], [], []]}
    assert found.regions == [3, 0, 1]
    assert given.regions == 4  # once, whatever the number of budgets
    assert found.score >= 0
    assert list(found.select) == [1, 2, 5]


@pytest.mark.parametrize("box_regression", [True, False])
def test_equals_a_pass_of_its_own_at_each_budget(box_regression: bool) -> None:
    generator = np.random.default_rng(0)
    config = DetectConfig(score_floor=0)
    images = []
    for count in (7, 0, 12, 3):
        corners = generator.uniform(0, 10, (count, 2))
        boxes = np.hstack([corners, corners + generator.uniform(3, 6, (count, 2))]).astype(np.float32)
        images.append((tiny.crops(1, count)[0], boxes))
    one = scorer(5, box_regression=box_regression)
    found = budget_pass(one, [images[:2], images[2:]], [1, 3, 10, 50], config)
    for budget, each in found.detections.items():
        alone = scored_regions(one, [(image, boxes[:budget]) for image, boxes in images])
        for ours, theirs in zip(each, (select_detections(*args, config) for args in alone), strict=True):
            assert ours.labels.tolist() == theirs.labels.tolist()
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)


def test_no_images() -> None:
    found = budget_pass(Given(), [], [3], DetectConfig())
    assert found.detections == {3: []}
    assert (found.regions, found.select[3]) == ([], 0)
