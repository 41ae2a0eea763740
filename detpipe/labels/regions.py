"""The regions of an image that an audit of its labels looks at.

They are the labels' boxes and copies near them, proposals, and the boxes of faults that are made up: shifted labels,
and labels where nothing is. From the made-up faults the audit learns what a fault looks like (see `calibration`).

L: labels of an image. P: proposals. R: regions.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from detpipe import boxes as geometry
from detpipe.structures import BoolArray, Float32Array, GroundTruth, Int64Array

Floats = npt.NDArray[np.floating]


class Role(enum.IntEnum):
    """Why a region is in the audit."""

    proposal = 0
    label = 1
    """The box of a label."""
    near_label = 2
    """A slightly moved copy of a label's box."""
    shifted = 3
    """A label's box, moved or scaled so far that it is wrong."""
    near_shifted = 4
    """A slightly moved copy of a shifted box."""
    invented = 5
    """A box on the background."""
    near_invented = 6
    """A slightly moved copy of an invented box."""


@dataclass(kw_only=True)
class RegionConfig:
    """Which regions of an image an audit looks at."""

    proposals: int = 200
    """Number of proposals of an image: the best, without near duplicates."""
    thin_iou: float = 0.8
    """A proposal is left out if a better one overlaps it by more than this IoU."""
    copies: int = 4
    """Number of slightly moved copies of each label's box. Their scores show how stable the label's score is."""
    max_faults: int = 24
    """Largest number of labels of an image of which shifted boxes are made."""
    invented: int = 3
    """Number of made-up boxes on the background of an image."""

    def __post_init__(self) -> None:
        if min(self.proposals, self.max_faults) < 1 or self.copies < 0 or self.invented < 1:
            raise ValueError(
                "regions: expected proposals, max_faults and invented from 1 and copies from 0, got "
                f"{self.proposals}, {self.max_faults}, {self.invented}, {self.copies}"
            )
        if not 0 < self.thin_iou <= 1:
            raise ValueError(f"regions.thin_iou: expected an IoU in (0, 1], got {self.thin_iou}")


@dataclass(frozen=True, eq=False)
class AuditRegions:
    """The regions of one image.

    boxes: (R, 4) float32, all with an area. roles: (R,) int64, of Role. owners: (R,) int64, the label (its index in
    the image's truth) or the invented box that a region belongs to; -1 for proposals. ranks: (R,) int64, the rank of
    the region among the proposals, or of the proposal that is most similar. invented: (I,) int64, the class 1..K that
    each invented box has as a label.
    """

    boxes: Float32Array
    roles: Int64Array
    owners: Int64Array
    ranks: Int64Array
    invented: Int64Array

    def __len__(self) -> int:
        return len(self.boxes)

    def of(self, role: Role, owner: int | None = None) -> Int64Array:
        """The rows of a role, of one owner if it is given."""
        found = self.roles == role
        return np.flatnonzero(found if owner is None else found & (self.owners == owner))


BANK = 256
"""Number of labels whose sizes invented boxes take."""


@dataclass(frozen=True, eq=False)
class LabelSizes:
    """Size and class of some labels, from which invented boxes take theirs.

    shares: (N, 2), width and height relative to the image. labels: (N,), 1..K. keys: (N,) uint64, a digest of each.
    N is at most BANK.
    """

    shares: Float32Array
    labels: Int64Array
    keys: npt.NDArray[np.uint64]

    @classmethod
    def sample(cls, shares: Float32Array, labels: Int64Array) -> LabelSizes:
        """Those of all labels (M, 2), (M,) with the least digests: a change of few labels changes few of them."""
        pairs = zip(shares.astype("<f4"), labels.tolist(), strict=True)
        digests = [blake2b(share.tobytes() + str(label).encode(), digest_size=8).digest() for share, label in pairs]
        keys = np.array([int.from_bytes(one, "little") for one in digests], dtype=np.uint64)
        least = np.argsort(keys, kind="stable")[:BANK]
        return cls(shares[least], labels[least], keys[least])

    def draw(
        self, count: int, image_size: tuple[int, int], generator: np.random.Generator
    ) -> tuple[Float32Array, Int64Array]:
        """(count, 2) widths and heights in pixels, at least 4, and their classes (count,); no rows without labels.

        Each draw takes the label with the least hash of key and draw (rendezvous hashing, Thaler & Ravishankar 1996).
        So a changed label changes only the draws that took it, or take it now, and the features of other images can be
        reused.
        """
        salts = generator.integers(0, 2**63, count, dtype=np.uint64)
        if not len(self.labels):
            return np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64)
        rows = mixed(salts[:, None] ^ self.keys[None]).argmin(axis=1)
        height, width = image_size
        sizes = np.maximum(self.shares[rows] * np.array([width, height], dtype=np.float32), 4)
        return sizes.astype(np.float32), self.labels[rows]


def mixed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hashes of 64-bit numbers: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    found = keys.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(found ^ (found >> np.uint64(31)), dtype=np.uint64)


def usable_labels(truth: GroundTruth, image_size: tuple[int, int]) -> tuple[Float32Array, BoolArray]:
    """The boxes of labels clipped to the image (L, 4), and which of them have an area of at least a pixel (L,)."""
    boxes = geometry.clip(truth.boxes, image_size)
    return boxes, at_least_a_pixel(boxes)


def at_least_a_pixel(boxes: Float32Array) -> BoolArray:
    """Whether each box (N, 4) is at least one pixel wide and high, (N,)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1), dtype=np.bool_)


def audit_regions(
    proposals: Float32Array,
    truth: GroundTruth,
    image_size: tuple[int, int],
    sizes: LabelSizes,
    config: RegionConfig,
    generator: np.random.Generator,
) -> AuditRegions:
    """The regions of one image.

    proposals: (P, 4), best first. truth: the labels in the order of their file; labels without area and crowds have no
    regions. P = 0 and L = 0 leave invented boxes alone; without any label in `sizes` there is no region at all.
    """
    boxes, usable = usable_labels(truth, image_size)
    labels = np.flatnonzero(usable & ~truth.crowd)
    parts: list[tuple[Float32Array, Role, Int64Array]] = []

    def add(found: Float32Array, owners: Int64Array, own: Role, near: Role) -> None:
        parts.append((found, own, owners))
        copies = slightly_moved(np.repeat(found, config.copies, axis=0), image_size, generator)
        parts.append((copies, near, np.repeat(owners, config.copies)))

    add(boxes[labels], labels, Role.label, Role.near_label)
    faulty = labels
    if len(labels) > config.max_faults:
        faulty = np.sort(generator.choice(labels, config.max_faults, replace=False))
    shifted, kept = shifted_boxes(boxes[faulty], image_size, generator)
    add(shifted[kept], faulty[kept], Role.shifted, Role.near_shifted)
    invented, classes = invented_boxes(boxes[usable], image_size, sizes, config.invented, generator)
    add(invented, np.arange(len(invented)), Role.invented, Role.near_invented)
    ranked = thinned(proposals, config.thin_iou, config.proposals)
    parts.insert(0, (proposals[ranked], Role.proposal, np.full(len(ranked), -1, dtype=np.int64)))
    all_boxes = np.concatenate([found for found, _, _ in parts])
    ranks = nearest_ranks(all_boxes, proposals)
    ranks[: len(ranked)] = ranked
    return AuditRegions(
        all_boxes,
        np.concatenate([np.full(len(found), role, dtype=np.int64) for found, role, _ in parts]),
        np.concatenate([owners for _, _, owners in parts]),
        ranks,
        classes,
    )


def thinned(proposals: Float32Array, iou: float, most: int) -> Int64Array:
    """The indices of at most `most` proposals (P, 4), best first, that do not overlap a better one by more than iou.

    Proposals that are narrower than a pixel are left out.
    """
    with_area = np.flatnonzero(at_least_a_pixel(proposals))
    order = np.arange(len(with_area), 0, -1).astype(np.float32)  # ranks as scores: NMS keeps the order
    return with_area[geometry.nms(proposals[with_area], order, iou)][:most]


def nearest_ranks(boxes: Float32Array, proposals: Float32Array) -> Int64Array:
    """The index of the proposal with the highest IoU with each box, (R,); 0 without proposals."""
    if not len(proposals):
        return np.zeros(len(boxes), dtype=np.int64)
    return np.asarray(geometry.iou(boxes, proposals).argmax(axis=1), dtype=np.int64)


def slightly_moved(boxes: Float32Array, image_size: tuple[int, int], generator: np.random.Generator) -> Float32Array:
    """Boxes (N, 4) moved by about 8 % and scaled by about 10 % of their sides, clipped; as accurate as labels are."""
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    centre = centre + size * generator.normal(0, 0.08, size.shape)
    size = size * np.exp(generator.normal(0, 0.1, size.shape))
    return with_area(centre, size, boxes, image_size)


def shifted_boxes(
    boxes: Float32Array, image_size: tuple[int, int], generator: np.random.Generator
) -> tuple[Float32Array, BoolArray]:
    """A wrong box for each label (N, 4), and whether it is wrong: its IoU with the label is in [0.1, 0.75].

    Two of three are shifted by 25 to 60 % of their size in any direction, the others are scaled by a factor of 1.4
    to 2.2, up or down in each direction. At the border of an image clipping may undo the change.
    """
    count = len(boxes)
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    angle, length = generator.uniform(0, 2 * np.pi, count), generator.uniform(0.25, 0.6, count)
    step = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    factor = generator.uniform(np.log(1.4), np.log(2.2), (count, 2)) * generator.choice([-1.0, 1.0], (count, 2))
    is_scaled = generator.random(count) < 1 / 3
    moved = with_area(
        centre + np.where(is_scaled[:, None], 0, step * size),
        size * np.exp(np.where(is_scaled[:, None], factor, 0)),
        boxes,
        image_size,
    )
    overlap = geometry.iou(moved, boxes)[np.arange(count), np.arange(count)] if count else np.zeros(0)
    return moved, np.asarray((overlap >= 0.1) & (overlap <= 0.75), dtype=np.bool_)


def invented_boxes(
    labels: Float32Array,
    image_size: tuple[int, int],
    sizes: LabelSizes,
    count: int,
    generator: np.random.Generator,
    *,
    tries: int = 20,
) -> tuple[Float32Array, Int64Array]:
    """At most `count` boxes with the sizes of labels and an IoU below 0.1 with every label, and their classes.

    They are fewer in a full image.
    """
    height, width = image_size
    wanted, classes = sizes.draw(count * tries, image_size, generator)
    wanted = np.minimum(wanted, np.array([width, height], dtype=np.float32))
    corner = generator.random((len(wanted), 2)) * (np.array([width, height]) - wanted)
    boxes = np.concatenate([corner, corner + wanted], axis=1).astype(np.float32)
    free = geometry.iou(boxes, labels).max(axis=1, initial=0) < 0.1
    kept = np.flatnonzero(free & (geometry.area(geometry.clip(boxes, image_size)) > 0))[:count]
    return boxes[kept], classes[kept]


def with_area(centre: Floats, size: Floats, instead: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """Boxes (N, 4) clipped to the image; one that is then narrower than a pixel is replaced by its row of `instead`."""
    found = geometry.clip(np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32), image_size)
    return np.where(at_least_a_pixel(found)[:, None], found, instead).astype(np.float32)
