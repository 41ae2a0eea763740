"""Figures: what stands in them, and that names and odd numbers don't break them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from detpipe.report import curves
from detpipe.report.figure_style import hex_colour

NAMES = ["cat", "$x_{1$", "_hidden", "<script>alert(1)</script>", "浣熊", "bad\x00\ud800 name", "</text>&amp;"]


def curve(hits: int = 3) -> curves.Curve:
    return np.arange(1, hits + 1) / (hits + 1), np.linspace(1, 0.5, hits)


def text_of(svg: str) -> str:
    return " ".join(
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    )


def test_hostile_names_stay_text():
    figure = curves.precision_recall_figure({name: curve() for name in NAMES}, dict.fromkeys(NAMES, 0.5))
    svg = curves.to_svg(figure, "one")
    text = text_of(svg)
    for name in ("cat", "$x_{1$", "_hidden", "<script>alert(1)</scrip", "浣熊"):
        assert name in text
    assert "<script" not in svg
    svg.encode("utf-8")
    assert curves.to_png(figure).startswith(b"\x89PNG")


def test_classes_without_objects_are_left_out():
    figure = curves.precision_recall_figure({"cat": curve(), "dog": curve(0)}, {"cat": 0.5, "dog": float("nan")})
    assert len(figure.axes[0].lines) == 1
    assert "dog" not in text_of(curves.to_svg(figure, "one"))


def test_a_line_is_the_envelope():
    figure = curves.precision_recall_figure({"cat": (np.array([0.5, 0.5, 1.0]), np.array([1, 0.5, 2 / 3]))}, {"cat": 1})
    line = figure.axes[0].lines[0]
    assert np.asarray(line.get_xdata()).tolist() == [0, 0.5, 0.5, 1, 1]
    assert np.asarray(line.get_ydata()) == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])


def test_the_colour_belongs_to_the_label_and_not_to_the_rank():
    names = {"cat": 0.1, "dog": 0.9}
    lines = curves.precision_recall_figure({name: curve() for name in names}, names).axes[0].lines
    assert [line.get_color() for line in lines] == [hex_colour(2), hex_colour(1)]


def test_many_classes_have_a_panel_each():
    names = {f"class {k}": k / 20 for k in range(20)}
    figure = curves.precision_recall_figure({name: curve(k) for k, name in enumerate(names)}, names)
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert len(visible) == 20
    assert visible[0].get_title(loc="left") == "0.95  class 19"
    assert len(curves.to_svg(figure, "many")) < 300_000


def test_recall_over_the_number_of_proposals_in_order():
    values = {"recall@0.5": 0.5, "recall@0.7": 0.2, "abo": 0.4, "mabo": 0.4, "ar": 0.3}
    figure = curves.recall_figure({"1000": values, "10": values | {"recall@0.5": None, "mabo": None}})
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [10, 1000]
    assert "1,000" in text_of(curves.to_svg(figure, "recall"))


def test_nothing_to_draw_is_no_error():
    nan = float("nan")
    for figure in (
        curves.precision_recall_figure({}, {}),
        curves.precision_recall_figure({"cat": curve(0)}, {"cat": nan}),
        curves.precision_recall_figure({"cat": curve(0)}, {"cat": 0.0}),
        curves.recall_figure({}),
        curves.seconds_figure({}),
    ):
        ElementTree.fromstring(curves.to_svg(figure, "empty"))


def test_an_svg_takes_the_ink_of_the_page_and_is_the_same_each_time():
    def make() -> str:
        return curves.to_svg(curves.seconds_figure({"propose": 3.0, "detect": 200.0}), "seconds")

    svg = make()
    assert svg == make()
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "<style" not in svg
    assert "3 min 20 s" in text_of(svg)


def test_the_alternative_text_is_escaped():
    svg = curves.to_svg(curves.seconds_figure({"propose": 3.0}), "seconds", 'time of "a" & <b>')
    element = ElementTree.fromstring(svg)
    assert element.attrib["role"] == "img"
    assert element.attrib["aria-label"] == 'time of "a" & <b>'
    assert "aria-label" not in curves.to_svg(curves.seconds_figure({}), "seconds")


def test_axes_of_shares_end_at_1():
    names = {f"class {k}": k / 20 for k in range(20)}
    values = {"recall@0.5": 0.5, "recall@0.7": 0.2, "abo": 0.4, "mabo": 0.4, "ar": 1.0}
    for figure in (
        curves.precision_recall_figure({"cat": curve()}, {"cat": 0.5}),
        curves.precision_recall_figure({name: curve(k) for k, name in enumerate(names)}, names),
        curves.recall_figure({"10": values, "100": values}),
    ):
        assert {axes.get_ylim() for axes in figure.axes if axes.get_visible()} == {(0, 1)}


def test_the_settings_of_matplotlib_stay_as_they_were():
    before = dict(matplotlib.rcParams)
    curves.to_png(curves.seconds_figure({"propose": 3.0}))
    assert dict(matplotlib.rcParams) == before
