"""The settings of region features: what of a region a head on a frozen network sees."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class FeatureConfig:
    """What of a region a head gets to see."""

    crops: bool = True
    """The pooled features of each region's crop: nearly all of the time."""
    image_sides: list[int] = field(default_factory=lambda: [320, 640])
    """The whole image at these shorter sides: of its last two maps what lies under the region, and their mean."""
    grid: int = 2
    """Rows and columns of cells that a region is divided into on a map."""
    mirrored: bool = False
    """The same of the mirrored image, too: twice the examples, and in detection the mean of both. Twice the time."""

    def __post_init__(self) -> None:
        if self.grid < 1 or not all(32 <= side <= 4096 for side in self.image_sides):
            raise ValueError(
                f"features: expected grid from 1 and image_sides of 32 to 4096, got {self.grid}, "
                f"{list(self.image_sides)}"
            )
        if not self.crops and not self.image_sides:
            raise ValueError("features: expected crops=true, or image_sides, or both, got neither")

    @property
    def views(self) -> tuple[bool, ...]:
        """V views in the order of their columns: whether each is mirrored."""
        return (False, True) if self.mirrored else (False,)
