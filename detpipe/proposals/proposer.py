"""The protocol of all proposers: an image in, its boxes out, best first."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.boxes import clip, rank
from detpipe.proposals.sourced import SourcedProposals
from detpipe.storage.manifest import plain
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageId, ImageRecord, Int64Array, Proposals


class ImportedBoxesError(ValueError):
    """An image whose imported boxes are missing, or can't be boxes of this image."""


@dataclass(kw_only=True)
class Proposer(abc.ABC):
    """Where might things be? A subclass answers in `__call__` from pixels alone, or in `propose` from what it needs.

    A proposer holds settings only, so that it pickles into worker processes; and its answer depends on its settings
    and its arguments, never on what it was asked before.
    """

    max_proposals: int | None = 2000
    """The best that are kept of an image, so that memory doesn't grow with the data set; null for all."""
    seed: int = 0
    """Of every random choice, together with the image."""

    def __post_init__(self) -> None:
        if self.max_proposals is not None and self.max_proposals < 1:
            raise ValueError(f"max_proposals: expected a number from 1 or null for all, got {self.max_proposals}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: B027 (most need nothing)
        """Fail now, in the parent process, where a library, a model or a file is missing: not once per image later.

        datasets: all whose images will be asked for.
        """

    @abc.abstractmethod
    def __call__(self, image: Image) -> Proposals:
        """The proposals of an RGB image (H, W, 3) uint8: clipped to it, with an area, no box twice, best first.

        Raises ValueError for another shape or dtype, and where the method needs more than pixels.
        """

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The proposals of an image of a data set, whose id, file and, where there are any, objects are known."""
        return self(image)

    def propose_sourced(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> SourcedProposals:
        """`propose`, and which of the lists that it joins, if any, each box came from: what is stored."""
        return SourcedProposals(self.propose(image, record, ground_truth), None)

    @property
    def from_pixels(self) -> bool:
        """Whether it needs nothing but the image, so that it can look at any new one."""
        return True

    @property
    def max_threads(self) -> int:
        """How many threads of one process it keeps busy; with more workers than that, each is a process of its own."""
        return 1

    def describe(self) -> dict[str, Any]:
        """The method and its settings, for the manifest; `methods.proposer_of` makes a proposer of it."""
        return {"method": type(self).__name__, **plain(self)}

    def keep(self, folder: Path) -> None:  # noqa: B027 (most need nothing)
        """Copy what it reads beside the images into a folder, so that `kept_in` finds it there on another machine."""

    def kept_in(self, folder: Path) -> Proposer:  # noqa: ARG002
        """The same proposer, with what `keep` copied into the folder, where it did."""
        return self

    def inputs(self) -> Mapping[str, str]:
        """Digests, by name, of what it reads beside the images, for the manifest."""
        return {}


def generator_for(seed: int, image_id: ImageId) -> np.random.Generator:
    """The random numbers of one image: the same in every process, whatever was drawn before."""
    # Python's hash() of a string changes from process to process. An id may be a file name that is no UTF-8.
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def generator_for_pixels(seed: int, image: Image) -> np.random.Generator:
    """The random numbers of an image without an id: from its shape and pixels."""
    return generator_for(seed, hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).hexdigest())


def check_image(image: Image) -> None:
    """Raise ValueError unless the image is (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected an RGB image as a numpy array (H, W, 3) uint8, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected an RGB image (H, W, 3) uint8 with H, W > 0, got {image.shape} {image.dtype}")


def ranked(
    boxes: Float32Array, scores: Float32Array, image_size: tuple[int, int], max_proposals: int | None
) -> Proposals:
    """Proposals from raw boxes in any order: clipped, the empty dropped, of equal boxes the best kept, the best k.

    boxes: (N, 4) float32. scores: (N,) float32. image_size: (height, width). No boxes: no proposals.
    """
    # Adding 0 turns -0.0 into 0.0: equal boxes then have equal bytes.
    boxes = clip(boxes, image_size) + np.float32(0)
    kept = best_of_equal(boxes, scores)[:max_proposals]
    return Proposals(boxes[kept], scores[kept])


def best_of_equal(boxes: Float32Array, scores: Float32Array) -> Int64Array:
    """Which boxes have an area and no better equal: indices from high to low score, ties by the box.

    (N, 4), (N,) -> (kept,) int64. Equal boxes must have equal bytes: no -0.0. N = 0 gives (0,).
    """
    has_area = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    order = has_area[rank(boxes[has_area], scores[has_area])]
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    return order[np.sort(first)]


def scores_of_order(n: int) -> Float32Array:
    """Falling scores for boxes that come in an order but without scores: 1, (n - 1) / n, ... 1 / n. -> (n,) float32."""
    return np.arange(n, 0, -1, dtype=np.float32) / np.float32(max(n, 1))


def require_count(proposer: Proposer) -> int:
    """`max_proposals`, which a proposer that could go on for ever must have. Raises ValueError where it is None."""
    if proposer.max_proposals is None:
        raise ValueError(f"{type(proposer).__name__}: expected a number of max_proposals to make, got null")
    return proposer.max_proposals
