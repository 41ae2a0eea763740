"""Fusion of several lists of proposals into one, with the source of each box.

Scores of different methods can't be compared, but ranks can: the r-th boxes of all lists count as equally good. With S
lists, the r-th box (from 0) of list s (from 0) gets position r S + s. So the lists take turns, in the order in which
they are named. A list without more boxes is skipped.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.boxes import nms
from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.from_database import StoredInDatabase
from detpipe.proposals.methods import METHODS, method
from detpipe.proposals.proposer import (
    MOST_SOURCES,
    Proposer,
    SourcedProposals,
    best_of_equal,
    scores_of_order,
)
from detpipe.storage.manifest import digest_of, plain
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord, Int64Array, Proposals

_NAME = "fuse"
"""The name of this method. It can't be a source of itself."""


@dataclass(kw_only=True)
class Fused(Proposer):
    """The boxes of several sources in turn, without near-duplicates. The scores express the order only."""

    sources: list[str] = field(default_factory=list)
    """Sources to fuse. Each is the name of a method (with its default settings and this `seed`), or the path of a
    proposals.lmdb or of a run folder that contains one. At equal ranks, earlier sources come first."""
    budgets: list[int] | None = None
    """Number of boxes to take from each source, one number per source; null: each source's own max_proposals."""
    weights: str = ""
    """Folder of the trained network, needed for the source `multibox`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of sources that are methods, by name: {onnx: {path: model.onnx, preset: yolo}}."""
    duplicate_iou: float = 0.9
    """Drop a box whose IoU with a better-ranked kept box is above this. 1 drops only equal boxes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sources, self.budgets = list(self.sources), None if self.budgets is None else list(self.budgets)
        if len(set(self.sources)) != len(self.sources) or len(self.sources) > MOST_SOURCES or _NAME in self.sources:
            raise ValueError(
                f"fuse: expected at most {MOST_SOURCES} sources, each once and none of them {_NAME!r}, got "
                f"{self.sources}"
            )
        self.settings = plain(self.settings)
        for name in self.settings:
            if name not in self.sources or name not in METHODS:
                raise ValueError(f"proposals.settings: expected settings of sources {self.sources}, got {name!r}")
        if self.budgets is not None and self.budgets and min(self.budgets) < 1:
            raise ValueError(f"fuse: expected budgets from 1, got {self.budgets}")
        if not 0 < self.duplicate_iou <= 1:
            raise ValueError(f"fuse: expected a duplicate_iou above 0 and at most 1, got {self.duplicate_iou}")

    @property
    def from_pixels(self) -> bool:
        """Whether all sources need only pixels."""
        return all(one.from_pixels for one in self._joined)

    @property
    def uses_objects(self) -> bool:
        """Whether a source depends on the objects."""
        return any(one.uses_objects for one in self._joined)

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Raise ValueError without sources or if the number of budgets differs, and what the sources' checks raise."""
        if not self.sources:
            raise ValueError("fuse: expected sources, got none; give for example sources=[selective_search,gaussian]")
        for one in self._joined:
            one.check(datasets)

    def inputs(self) -> Mapping[str, str]:
        """The digest of each method's settings, files or database manifest."""
        found: dict[str, str] = {}
        for name, one in zip(self.sources, self._joined, strict=True):
            found |= dict(one.inputs()) or {name: digest_of(one.describe())}
        return {f"source {name}": digest for name, digest in found.items()}

    @property
    def max_threads(self) -> int:
        """The smallest number of its sources."""
        return min((one.max_threads for one in self._joined), default=1)

    def keep(self, folder: Path) -> None:
        """Copy the files of all sources."""
        for one in self._joined:
            one.keep(folder)

    def kept_in(self, folder: Path) -> Proposer:
        """The same fusion with the copied files of its sources, if there are any."""
        settings = dict(self.settings)
        for name, one in zip(self.sources, self._joined, strict=True):
            own, kept = one.describe(), one.kept_in(folder).describe()
            changed = {key: value for key, value in kept.items() if value != own[key]}
            if changed:
                settings[name] = {**settings.get(name, {}), **changed}
        return replace(self, settings=settings)

    def __call__(self, image: AnyImage) -> Proposals:
        """The fused proposals of an RGB image. Raises ValueError if a source needs more than pixels."""
        image = as_image(image)
        return self._join(image, [one(image) for one in self._joined]).proposals

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:
        """The fused proposals. Raises what a source raises: ImportedBoxesError if it lacks the image."""
        return self.propose_sourced(image, record, ground_truth).proposals

    def propose_sourced(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> SourcedProposals:
        """The fused proposals and the index of each one's source."""
        return self._join(image, [one.propose(image, record, ground_truth) for one in self._joined])

    def _join(self, image: Image, lists: Sequence[Proposals]) -> SourcedProposals:
        image_size = (image.shape[0], image.shape[1])
        # Rounded as in a database, so that a method and the database that it wrote give the same boxes.
        whole = [snapped(SourcedProposals(one, None), image_size).proposals for one in lists]
        return join(whole, duplicate_iou=self.duplicate_iou, max_proposals=self.max_proposals)

    @functools.cached_property
    def _joined(self) -> list[Proposer]:
        """The sources as proposers. Raises ValueError for a name that is neither a method nor a database."""
        budgets = [None] * len(self.sources) if self.budgets is None else self.budgets
        if len(budgets) != len(self.sources):
            raise ValueError(f"fuse: expected a budget for each of {self.sources}, got {self.budgets}")
        return [
            source_of(name, self.seed, budget, self.weights, self.settings.get(name, {}))
            for name, budget in zip(self.sources, budgets, strict=True)
        ]


def source_of(
    name: str, seed: int, budget: int | None, weights: str = "", own: Mapping[str, Any] | None = None
) -> Proposer:
    """The proposer for the name of a method, with its default settings, or for the path of a database.

    budget: its max_proposals; None keeps a method's default, and all boxes of a database. weights: for multibox. own:
    settings of the method that win over the others. Raises ValueError for other names and settings.
    """
    if name in METHODS:
        settings: dict[str, Any] = {"seed": seed}
        if budget is not None:
            settings["max_proposals"] = budget
        if name == "multibox":
            settings["weights"] = weights
        try:
            return method(name)(**{**settings, **(own or {})})
        except TypeError as error:
            raise ValueError(f"proposals.settings of {name}: expected its settings, got {own}: {error}") from error
    if Path(name).is_dir():
        return StoredInDatabase(path=name, max_proposals=budget)
    methods = ", ".join(sorted(METHODS.keys() - {_NAME}))
    raise ValueError(f"fuse: expected a method ({methods}) or the folder of a run or proposals.lmdb, got {name!r}")


def join(lists: Sequence[Proposals], *, duplicate_iou: float, max_proposals: int | None) -> SourcedProposals:
    """The lists in turn (see above), without near-duplicates of better-ranked boxes, the first max_proposals.

    No lists, or only empty ones, give no proposals.
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
    """Indices of the boxes, given best first, that do not duplicate a better kept box, in order."""
    unlike = best_of_equal(boxes, scores_of_order(len(boxes)))
    return unlike[nms(boxes[unlike], scores_of_order(len(unlike)), duplicate_iou)]
