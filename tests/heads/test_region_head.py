"""Settings of heads that train with the backbone: what is refused, by name."""

from __future__ import annotations

import pytest

from detpipe.heads.region_head import RegionHeadConfig, TrainedHeadConfig


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"box_loss_beta": 0.0}, "box_loss_beta"),
    ],
)
def test_settings_of_a_trained_head(values: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TrainedHeadConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"ridge": 0.0}, {"ridge_iou": 1.0}, {"ridge_iou": -0.1}])
def test_settings_of_every_head(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        RegionHeadConfig(**values)  # type: ignore[arg-type]
