"""Several lists of proposals joined into one, each box with the list that it came from.

Scores of different methods can't be compared, ranks can: the r-th box of each list is worth the same. With S lists,
the r-th box (from 0) of list number s (from 0) stands at place r S + s, so the lists take turns, and of equal ranks the
list that was named first comes first. A list that has ended is passed over.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.boxes import nms
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.from_database import StoredInDatabase
from detpipe.proposals.methods import METHODS, method
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposer import (
    MOST_SOURCES,
    Proposer,
    SourcedProposals,
    best_of_equal,
    check_image,
    scores_of_order,
)
from detpipe.storage.manifest import digest_of
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord, Int64Array, Proposals

_NAME = "fuse"
"""Its own name among the methods: it doesn't join itself."""


@dataclass(kw_only=True)
class Fused(Proposer):
    """The boxes of several sources by turns, near-duplicates dropped. Scores only tell the order."""

    sources: list[str] = field(default_factory=list)
    """Each the name of a method, with its default settings and this `seed`, or the path of a proposals.lmdb or of a
    run folder with one. Of equal ranks the first named comes first."""
    budgets: list[int] | None = None
    """Boxes taken of each source, one number a source; null: each source's own max_proposals."""
    weights: str = ""
    """Of the source multibox: the folder of its network."""
    duplicate_iou: float = 0.9
    """A box whose IoU with a better-ranked one that stays is above this is dropped. 1 drops only equal boxes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sources, self.budgets = list(self.sources), None if self.budgets is None else list(self.budgets)
        if len(set(self.sources)) != len(self.sources) or len(self.sources) > MOST_SOURCES or _NAME in self.sources:
            raise ValueError(
                f"fuse: expected at most {MOST_SOURCES} sources, each once and none of them {_NAME!r}, got "
                f"{self.sources}"
            )
        if self.budgets is not None and self.budgets and min(self.budgets) < 1:
            raise ValueError(f"fuse: expected budgets from 1, got {self.budgets}")
        if not 0 < self.duplicate_iou <= 1:
            raise ValueError(f"fuse: expected a duplicate_iou above 0 and at most 1, got {self.duplicate_iou}")

    @property
    def from_pixels(self) -> bool:
        """Whether each source is a method that needs nothing but the image."""
        return all(one.from_pixels for one in self._joined)

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Raise ValueError without sources or with other than one budget each, and whatever a source's check raises."""
        if not self.sources:
            raise ValueError("fuse: expected sources, got none; give sources=[selective_search,gaussian], say")
        for one in self._joined:
            one.check(datasets)

    def describe(self) -> dict[str, Any]:
        """`weights`, which came later, only where they are set: older run folders stay valid."""
        described = super().describe()
        return {name: value for name, value in described.items() if name != "weights" or value}

    def inputs(self) -> Mapping[str, str]:
        """Of each method the digest of its settings, of each database that of its manifest."""
        found: dict[str, str] = {}
        for name, one in zip(self.sources, self._joined, strict=True):
            found |= dict(one.inputs()) or {name: digest_of(one.describe())}
        return {f"source {name}": digest for name, digest in found.items()}

    @property
    def max_threads(self) -> int:
        """As many as each of its sources keeps busy."""
        return min((one.max_threads for one in self._joined), default=1)

    def keep(self, folder: Path) -> None:
        """Each source's own."""
        for one in self._joined:
            one.keep(folder)

    def kept_in(self, folder: Path) -> Proposer:
        """With the network of a source, where it was kept."""
        networks = [
            one for one in (each.kept_in(folder) for each in self._joined) if isinstance(one, MultiBoxProposals)
        ]
        return replace(self, weights=networks[0].weights) if networks else self

    def __call__(self, image: Image) -> Proposals:
        """The joined proposals of an RGB image. Raises ValueError where a source needs more than pixels."""
        check_image(image)
        return self._join(image, [one(image) for one in self._joined]).proposals

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:
        """The joined proposals. Raises what a source raises, ImportedBoxesError where one lacks the image."""
        return self.propose_sourced(image, record, ground_truth).proposals

    def propose_sourced(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> SourcedProposals:
        """The joined proposals and the number of each one's source."""
        return self._join(image, [one.propose(image, record, ground_truth) for one in self._joined])

    def _join(self, image: Image, lists: Sequence[Proposals]) -> SourcedProposals:
        image_size = (image.shape[0], image.shape[1])
        # As they are stored: then a method and the database that it wrote give the same.
        whole = [snapped(SourcedProposals(one, None), image_size).proposals for one in lists]
        return join(whole, duplicate_iou=self.duplicate_iou, max_proposals=self.max_proposals)

    @functools.cached_property
    def _joined(self) -> list[Proposer]:
        """The sources as proposers. Raises ValueError for a name that is neither a method nor a database."""
        budgets = [None] * len(self.sources) if self.budgets is None else self.budgets
        if len(budgets) != len(self.sources):
            raise ValueError(f"fuse: expected a budget for each of {self.sources}, got {self.budgets}")
        return [
            source_of(name, self.seed, budget, self.weights) for name, budget in zip(self.sources, budgets, strict=True)
        ]


def source_of(name: str, seed: int, budget: int | None, weights: str = "") -> Proposer:
    """A method by its name, with its default settings, or a database by its path.

    budget: its max_proposals; None leaves the method's own, and all of a database. weights: multibox's. Raises
    ValueError for other names.
    """
    if name in METHODS:
        settings: dict[str, Any] = {"seed": seed}
        if budget is not None:
            settings["max_proposals"] = budget
        if name == "multibox":
            settings["weights"] = weights
        return method(name)(**settings)
    if Path(name).is_dir():
        return StoredInDatabase(path=name, max_proposals=budget)
    methods = ", ".join(sorted(METHODS.keys() - {_NAME}))
    raise ValueError(f"fuse: expected a method ({methods}) or the folder of a run or proposals.lmdb, got {name!r}")


def join(lists: Sequence[Proposals], *, duplicate_iou: float, max_proposals: int | None) -> SourcedProposals:
    """The lists by turns (see above), of near-duplicates the better-ranked, the first max_proposals.

    No lists, or empty ones: no proposals.
    """
    lengths = [len(one) for one in lists]
    boxes = np.concatenate([np.zeros((0, 4), dtype=np.float32), *(one.boxes for one in lists)])
    sources = np.repeat(np.arange(len(lists), dtype=np.uint8), lengths)
    ranks = np.arange(len(boxes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order = np.lexsort((sources, ranks))
    boxes, sources = boxes[order], sources[order]
    kept = _distinct(boxes, duplicate_iou)[:max_proposals]
    return SourcedProposals(Proposals(boxes[kept], scores_of_order(len(kept))), sources[kept])


def _distinct(boxes: Float32Array, duplicate_iou: float) -> Int64Array:
    """Which of boxes that come best first stay: those that are no duplicates of a better one that stays, in order."""
    unlike = best_of_equal(boxes, scores_of_order(len(boxes)))
    return unlike[nms(boxes[unlike], scores_of_order(len(unlike)), duplicate_iou)]
