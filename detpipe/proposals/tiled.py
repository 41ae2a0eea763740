"""Any proposer on the tiles of large images: more boxes of small objects."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.boxes import nms
from detpipe.datasets.image_file import AnyImage, as_image
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.proposer import Proposer, ranked, scores_of_order
from detpipe.structures import Dataset, Float32Array, Image, Proposals
from detpipe.tiles import TilesConfig, Windows, in_turn


@dataclass(kw_only=True)
class TiledProposals(Proposer):
    """The boxes that another method finds in each tile. Each tile keeps the boxes centred in its part of the image."""

    source: dict[str, Any] = field(default_factory=lambda: {"method": "selective_search"})
    """The method, and its settings if they are not the defaults: {method: selective_search, preset: ijcv_fast}. It must
    need only pixels. Its max_proposals counts for each tile."""
    size: int = 640
    """Side of the square tiles in pixels of the image."""
    overlap: int | None = None
    """Overlap of neighbouring tiles in pixels, at most half the size. null: a quarter of the size."""
    whole: bool = True
    """Also propose on the whole image, for objects that are larger than a tile."""
    duplicate_iou: float = 0.9
    """Drop a box whose IoU with a better-ranked box is above this. 1 drops only equal boxes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tiles.used:
            raise ValueError("proposals.size: expected the side of the tiles in pixels, got 0")
        if not 0 < self.duplicate_iou <= 1:
            raise ValueError(f"proposals.duplicate_iou: expected an IoU above 0, at most 1, got {self.duplicate_iou}")
        if not isinstance(self.source, dict) or "method" not in self.source:
            raise ValueError(
                f"proposals.source: expected a method, as {{method: selective_search}}, got {self.source!r}"
            )

    @classmethod
    def around(cls, proposer: Proposer, tiles: TilesConfig) -> TiledProposals:
        """A proposer with its settings, on tiles."""
        assert tiles.size
        return cls(
            source=proposer.describe(),
            size=tiles.size,
            overlap=tiles.overlap,
            whole=tiles.whole,
            max_proposals=proposer.max_proposals,
            seed=proposer.seed,
        )

    @property
    def tiles(self) -> TilesConfig:
        """The tiles."""
        return TilesConfig(size=self.size, overlap=self.overlap, whole=self.whole)

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Raise ValueError for a source that needs more than pixels, and what the source's check raises."""
        if not self._inner.from_pixels:
            raise ValueError(
                f"proposals.source: expected a method that needs only pixels, as selective_search, got "
                f"{self.source['method']}, whose boxes belong to whole images; leave the tiles out"
            )
        self._inner.check(datasets)

    @property
    def max_threads(self) -> int:
        """That of the source."""
        return self._inner.max_threads

    def inputs(self) -> Mapping[str, str]:
        """The digests of the source's files."""
        return self._inner.inputs()

    def keep(self, folder: Path) -> None:
        """Copy the files of the source."""
        self._inner.keep(folder)

    def kept_in(self, folder: Path) -> Proposer:
        """The same, with a source that reads the copied files."""
        return replace(self, source=self._inner.kept_in(folder).describe())

    def __call__(self, image: AnyImage) -> Proposals:
        """The boxes of all windows: by score if the source's scores are comparable, else by rank in their window."""
        image = as_image(image)
        image_size = (image.shape[0], image.shape[1])
        windows = Windows.of(image_size, self.tiles)
        if len(windows) == 1:
            found = self._inner(image)
            return found if self.max_proposals is None else found.top(self.max_proposals)
        parts = [self._of_window(image, windows, index) for index in range(len(windows))]
        boxes, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not self._inner.COMPARABLE_SCORES:
            order = in_turn([len(own) for own, _ in parts])
            boxes, scores = boxes[order], scores_of_order(len(order))
        kept = nms(boxes, scores, self.duplicate_iou)
        return ranked(boxes[kept], scores[kept], image_size, self.max_proposals)

    def _of_window(self, image: Image, windows: Windows, index: int) -> tuple[Float32Array, Float32Array]:
        """The boxes of a window in pixels of the image, and their scores."""
        x1, y1, x2, y2 = windows.window(index)
        found = self._inner(np.ascontiguousarray(image[y1:y2, x1:x2]))
        boxes = found.boxes + np.array([x1, y1, x1, y1], dtype=np.float32)
        own = windows.owns(index, boxes)
        return boxes[own], found.scores[own]

    @functools.cached_property
    def _inner(self) -> Proposer:
        """The source. Raises ValueError for an unknown method or wrong settings."""
        try:
            proposer = proposer_of({"seed": self.seed, **self.source})
        except TypeError as error:
            raise ValueError(f"proposals.source: {error}") from error
        if proposer is None:
            raise ValueError(
                f"proposals.source: expected a method of the table, as selective_search, got {self.source['method']}"
            )
        return proposer
