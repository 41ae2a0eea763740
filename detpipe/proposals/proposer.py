"""The interface of all proposers: an image in, its boxes out, best first."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from detpipe.arguments import checked_fields
from detpipe.boxes import clip, rank
from detpipe.datasets.image_file import AnyImage
from detpipe.proposals.methods import described_name
from detpipe.storage.manifest import plain
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord, Int64Array, Proposals

SourceArray = npt.NDArray[np.uint8]
"""(N,) uint8: indices into a list of names, which the manifest holds."""
MOST_SOURCES = 256
"""The number of values of a uint8."""


class ImportedBoxesError(ValueError):
    """The imported boxes of an image are missing, or can't be boxes of this image."""


@dataclass(frozen=True, eq=False)
class SourcedProposals:
    """N proposals of an image and the index of each one's source; sources is None if there is only one source."""

    proposals: Proposals
    sources: SourceArray | None

    def __post_init__(self) -> None:
        if self.sources is None:
            return
        if self.sources.shape != (len(self.proposals),) or self.sources.dtype != np.uint8:
            raise ValueError(
                f"SourcedProposals.sources: expected ({len(self.proposals)},) uint8, "
                f"got {self.sources.shape} {self.sources.dtype}"
            )

    def top(self, k: int) -> SourcedProposals:
        """The best k, or all if there are fewer."""
        return SourcedProposals(self.proposals.top(k), None if self.sources is None else self.sources[:k])


@dataclass(kw_only=True)
class Proposer(abc.ABC):
    """Base class of all proposers. A subclass implements `__call__` (from pixels alone) or overrides `propose`.

    A proposer holds settings only, so that it can be pickled for worker processes. Its result depends on its settings
    and its arguments, never on earlier calls.
    """

    COMPARABLE_SCORES: ClassVar[bool] = False
    """Whether scores of different images can be compared. Otherwise they express only the order."""

    max_proposals: int | None = 2000
    """Keep this many of the best boxes of each image; null keeps all."""
    seed: int = 0
    """Seed of all random choices. The result for an image depends on this seed and on the image only."""

    def __post_init__(self) -> None:
        checked_fields(self)
        if self.seed < 0:
            raise ValueError(f"proposals.seed: expected at least 0, got {self.seed}")
        if self.max_proposals is not None and self.max_proposals < 1:
            raise ValueError(f"max_proposals: expected a number from 1 or null for all, got {self.max_proposals}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: B027 (most need nothing)
        """Raise once, in the parent process, if a library, a model or a file is missing.

        datasets: all data sets for whose images proposals will be made.
        """

    @abc.abstractmethod
    def __call__(self, image: AnyImage) -> Proposals:
        """The proposals of an image: clipped, not empty, without duplicates, best first.

        image: (H, W, 3) uint8 RGB, or what else `image_file.as_image` converts. Raises its errors, and ValueError if
        the method needs more than pixels.
        """

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The proposals of an image of a data set. ground_truth: its objects; None without annotations."""
        return self(image)

    def propose_sourced(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> SourcedProposals:
        """As `propose`, with the source of each box if the method joins several lists. This is what gets stored."""
        return SourcedProposals(self.propose(image, record, ground_truth), None)

    @property
    def from_pixels(self) -> bool:
        """Whether the method needs only pixels, so that it works on any new image."""
        return True

    @property
    def uses_objects(self) -> bool:
        """Whether the proposals depend on the annotated objects, so that changed annotations make them outdated."""
        return False

    @property
    def max_threads(self) -> int:
        """The number of threads of one process that the method can use. More workers than this run as processes."""
        return 1

    def describe(self) -> dict[str, Any]:
        """The method and its settings, for the manifest. `methods.proposer_of` is the inverse."""
        return {"method": described_name(type(self)), **plain(self)}

    def keep(self, folder: Path) -> None:  # noqa: B027 (most need nothing)
        """Copy the files that the method reads, other than images, into a folder. `kept_in` then uses the copies."""

    def kept_in(self, folder: Path) -> Proposer:  # noqa: ARG002
        """The same proposer, reading the files that `keep` copied into the folder, if there are any."""
        return self

    def inputs(self) -> Mapping[str, str]:
        """Digests, by name, of the files that the method reads, other than images, for the manifest."""
        return {}


def ranked(
    boxes: Float32Array, scores: Float32Array, image_size: tuple[int, int], max_proposals: int | None
) -> Proposals:
    """Proposals from raw boxes in any order: clipped, without empty boxes and duplicates, the best max_proposals.

    boxes: (N, 4) float32. scores: (N,) float32. image_size: (height, width). No boxes: no proposals.
    """
    # Adding 0 turns -0.0 into 0.0: equal boxes then have equal bytes.
    boxes = clip(boxes, image_size) + np.float32(0)
    kept = best_of_equal(boxes, scores)[:max_proposals]
    return Proposals(boxes[kept], scores[kept])


def best_of_equal(boxes: Float32Array, scores: Float32Array) -> Int64Array:
    """Indices of the boxes that are neither empty nor equal to a better one, from high to low score, ties by the box.

    (N, 4), (N,) -> (kept,) int64. Equal boxes must have equal bytes: no -0.0. N = 0 gives (0,).
    """
    has_area = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    order = has_area[rank(boxes[has_area], scores[has_area])]
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    return order[np.sort(first)]


def scores_of_order(n: int) -> Float32Array:
    """Decreasing scores for boxes that have an order but no scores: 1, (n - 1) / n, ... 1 / n. -> (n,) float32."""
    return np.arange(n, 0, -1, dtype=np.float32) / np.float32(max(n, 1))


def require_count(proposer: Proposer) -> int:
    """`max_proposals` of a proposer that could make any number of boxes. Raises ValueError if it is None."""
    if proposer.max_proposals is None:
        raise ValueError(f"{type(proposer).__name__}: expected a number of max_proposals to make, got null")
    return proposer.max_proposals
