"""The settings of region features for heads on a frozen network."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class FeatureConfig:
    """Which features of a region are computed."""

    crops: bool = True
    """Compute the pooled features of each region's crop. They take nearly all of the time."""
    image_sides: list[int] = field(default_factory=lambda: [320, 640])
    """Run the network on the whole image with these lengths of the shorter side, in pixels, and take the features under
    each region from its last two maps, and the mean of the last map."""
    grid: int = 2
    """Features under a region are pooled to grid x grid cells."""
    mirrored: bool = False
    """Also compute the features of the mirrored image. Training has twice the examples, and detection averages the
    scores of both. It takes twice the time."""

    def __post_init__(self) -> None:
        if self.grid < 1 or not all(32 <= side <= 4096 for side in self.image_sides):
            raise ValueError(
                f"features: expected grid from 1 and image_sides of 32 to 4096, got {self.grid}, "
                f"{list(self.image_sides)}"
            )
        if not self.crops and not self.image_sides:
            raise ValueError("features: expected features.crops=true, or image_sides, or both, got neither")

    @property
    def views(self) -> tuple[bool, ...]:
        """For each of the V views, in the order of their columns: whether it is mirrored."""
        return (False, True) if self.mirrored else (False,)
