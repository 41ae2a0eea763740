"""Figures of recall: what is drawn where, and that names don't break them."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.metrics.method_recall import MethodRecall
from detpipe.report.curves import to_png, to_svg
from detpipe.report.recall_figures import BY_BUDGET, recall_curves_figure
from tests.metrics.test_method_recall import measured
from tests.metrics.test_overlap_table import FOUND
from tests.report.test_curves import NAMES, text_of


def figure_of(**methods: MethodRecall):
    return recall_curves_figure({name: method.curves for name, method in methods.items()})


def test_a_line_a_method_in_each_panel():
    figure = figure_of(mine=measured(FOUND), none=measured({}))
    panels = [axes for axes in figure.axes if axes.lines]
    assert [len(axes.lines) for axes in panels] == [2] * 4
    assert [axes.get_xscale() for axes in panels] == ["log"] * len(BY_BUDGET) + ["linear"]
    mine, none = panels[2].lines
    assert np.asarray(mine.get_xdata()).tolist() == [1, 2, 3]
    assert np.asarray(mine.get_ydata())[-1] == pytest.approx(2.5 / 4)
    assert np.asarray(none.get_ydata()).tolist() == [0]
    assert mine.get_color() != none.get_color()


def test_the_band_is_the_interval():
    method = measured(FOUND)
    axes = figure_of(mine=method).axes[0]
    (band,) = axes.collections
    low, high = method.curves.curve("ar")[1].interval
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(low.min())
    assert corners[:, 1].max() == pytest.approx(high.max())


def test_hostile_names_stay_text():
    method = measured(FOUND)
    figure = recall_curves_figure(dict.fromkeys(NAMES, method.curves))
    svg = to_svg(figure, "recall")
    for name in ("cat", "$x_{1$", "_hidden", "<script>alert(1)</script>", "浣熊"):
        assert name in text_of(svg)
    assert "<script" not in svg
    assert to_png(figure).startswith(b"\x89PNG")


def test_nothing_to_draw():
    for methods in ({}, {"none": measured({}, {})}, {"sure": measured(FOUND, resamples=0)}):
        figure = figure_of(**methods)
        assert to_png(figure).startswith(b"\x89PNG")
        to_svg(figure, "recall")
