from __future__ import annotations

import math

import torch

from detpipe.inspect.tensor_statistics import histogram, tensor_statistics
from detpipe.inspect.weight_change import weight_change
from detpipe.report.mosaic import mosaic
from detpipe.report.weights_page import (
    WeightsPage,
    change_figure,
    histogram_figures,
    histograms_figure,
    render,
    weights_text,
)

HOSTILE = "<script>$x"


def page() -> WeightsPage:
    tensors = {
        HOSTILE: torch.tensor([[1.0, math.nan], [2.0, 0.0]]),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 2),
    }
    before = {HOSTILE: torch.ones(2, 2), "count": torch.tensor(3), "gone": torch.ones(1), "none": torch.ones(1)}
    statistics = {name: tensor_statistics(tensor) for name, tensor in tensors.items()}
    return WeightsPage(
        subtitle="file.pth",
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        statistics=statistics,
        histograms={HOSTILE: histogram(tensors[HOSTILE], statistics[HOSTILE], 5)},
        filters=(HOSTILE, mosaic([torch.zeros(2, 2, 3, dtype=torch.uint8).numpy()], 50)),
        against="old.pth",
        change=weight_change(tensors, before),
    )


def test_the_page_tells_all_and_escapes_it() -> None:
    html = render(page())
    for part in (
        "3 tensors, 5 numbers",
        "NaN or infinity: &lt;script&gt;$x.",
        "1 NaN, 0 inf",
        "only there: gone",
        "old.pth",
    ):
        assert part in html
    assert "of other shapes: none (0, 2) here, (1,) there" in html
    assert "<script" not in html


def test_the_text() -> None:
    text = weights_text(page())
    assert "one number" in text
    assert "against old.pth" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("count")]
    assert rows[0][-7:] == ["3", "0", "3", "3", "3", "3", "0.0%"]
    # "count" is as it was; the other has a NaN, so that nothing can be told.
    assert "against old.pth: 1 of 2 tensors differ" in text
    assert text.splitlines()[-5].split() == [HOSTILE, "–", "–"]


def test_figures_of_nothing() -> None:
    assert not histograms_figure({}).axes[0].get_visible()
    assert histogram_figures({}) == {}
    assert change_figure(weight_change({}, {})).axes[0].get_legend() is None
    assert change_figure(weight_change({"a": torch.ones(1)}, {"a": torch.zeros(1)})).axes[0].lines
