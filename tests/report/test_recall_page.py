"""The page of recall: its sections, its numbers, and text from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.metrics.method_recall import MethodRecall, compare
from detpipe.report.curves import to_png, to_svg
from detpipe.report.recall_page import (
    BY_BUDGET,
    TITLES,
    RecallPage,
    recall_curves_figure,
    recall_figures,
    render,
    write_recall_page,
)
from tests.metrics.test_method_recall import measured
from tests.metrics.test_overlap_table import FOUND
from tests.report.run.test_page import EVIL, read
from tests.report.test_curves import NAMES, text_of


def test_methods_side_by_side(tmp_path: Path):
    mine, none = measured(FOUND), measured({})
    data = RecallPage(
        subtitle="my data",
        methods={"mine": mine, "none": none},
        paired={"none": compare(mine, none)},
        sources={"mine": "Gaussian, runs/mine"},
        resamples=1234,
    )
    write_recall_page(tmp_path / "page.html", data)
    page = read((tmp_path / "page.html").read_text("utf-8"))
    text = " ".join(page.words)
    for words in ("my data", "Gaussian, runs/mine", "1,234 resamples", "mine minus none", "At 3 proposals per image"):
        assert words in text
    assert [words for words in page.words if words in ("Curves", "Numbers", "Differences", "Sizes", "Classes")] == [
        *("Curves", "Numbers", "Differences", "Sizes", "Classes"),  # the links
        *("Curves", "Numbers", "Differences", "Sizes", "Classes"),
    ]
    assert "0.625" in page.words  # ABO of three proposals
    assert "+0.625" in page.words
    assert not [tag for tag, attributes in page.tags if tag == "script" or "src" in attributes]


def test_one_method_has_no_differences():
    text = render(RecallPage(subtitle="", methods={"mine": measured(FOUND, resamples=0)}, resamples=0))
    assert "Differences" not in read(text).words


def test_names_from_outside_are_escaped():
    mine = measured(FOUND)
    data = RecallPage(
        subtitle=EVIL,
        methods={EVIL: mine, "b": mine},
        paired={"b": compare(mine, mine)},
        sources={EVIL: EVIL, "b": EVIL},
        resamples=30,
    )
    page = read(render(data))
    assert not [tag for tag, attributes in page.tags if tag in ("script", "img") or "onerror" in attributes]


def test_nothing_to_find():
    for methods in ({}, {"mine": measured({}, {})}):
        assert "There are no objects." in read(render(RecallPage(subtitle="", methods=methods, resamples=9))).words


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


def test_a_figure_a_panel_for_the_page():
    figures = recall_figures({"mine": measured(FOUND).curves, "none": measured({}).curves})
    assert list(figures) == [*(TITLES[name] for name in BY_BUDGET), "recall of 10 proposals per image"]
    assert all(len(figure.axes) == 1 and len(figure.axes[0].lines) == 2 for figure in figures.values())
    assert {figure.axes[0].get_ylim() for figure in figures.values()} == {(0, 1)}


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
    assert recall_figures({}) == {}
    # Without proposals there is one point for each measure, which is not a curve.
    assert list(recall_figures({"none": measured({}, {}).curves})) == ["recall of 10 proposals per image"]
