"""Settings of the page of `detpipe labels audit` and `detpipe labels next`: how much it holds, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SIDE = 4096
"""Limit on the side of a picture: a page of larger ones could not be opened."""


@dataclass(kw_only=True)
class LabelsPageConfig:
    """The size of the page. A picture of the default size takes about 60 kB, so 300 images take about 18 MB."""

    most: int = 1000
    """Maximum suspects, or images to label, on the page: the first ones. The JSON file beside it has all of them."""
    side: int = 720
    """Longest side of a picture, in pixels. Smaller images keep their size. Boxes are in pixels of the image itself."""
    quality: int = 80
    """JPEG quality of the pictures, 1 to 100."""

    def __post_init__(self) -> None:
        if self.most < 0:
            raise ValueError(f"page.most: expected 0 or more, got {self.most}")
        if not 16 <= self.side <= MAX_SIDE:
            raise ValueError(f"page.side: expected 16 to {MAX_SIDE} pixels, got {self.side}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"page.quality: expected 1 to 100, got {self.quality}")
