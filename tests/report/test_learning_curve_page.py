"""The page and the sentence of a learning curve."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.diagnosis.bottleneck import Bottleneck, bottleneck
from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.learning_curve import LearningCurve, LearningPoint
from detpipe.report.learning_curve_page import (
    LearningCurvePage,
    learning_curve_figure,
    learning_curve_sentence,
    learning_curve_text,
    render,
)
from tests.diagnosis.test_bottleneck import IMAGES, RESAMPLES, constant, objects
from tests.report.run.test_page import EVIL, read


def curve(*values: float, spread: float = 0.02) -> LearningCurve:
    """Twice as many images for each value, from 16."""
    points = []
    for place, value in enumerate(values):
        samples = np.clip(np.linspace(value - spread, value + spread, RESAMPLES), 0, 1)[:, None]
        points.append(LearningPoint(16 * 2**place, (value - 0.01, value), Resampled(np.array([value]), samples)))
    return LearningCurve(tuple(points))


def limits(of: LearningCurve, covered: list[bool], found: list[float]) -> Bottleneck:
    facts = objects(covered, found)
    last = of.points[-1].map
    return bottleneck(last, of.last_gain, facts, images=IMAGES, resamples=RESAMPLES, seed=0)


def page_of(of: LearningCurve, what: Bottleneck, subtitle: str = "my data") -> str:
    return render(LearningCurvePage(subtitle=subtitle, curve=of, limits=what, draws=3, resamples=200, head="svm"))


def test_more_labels():
    made = curve(0.3, 0.5, 0.65)
    sentence = learning_curve_sentence(made, limits(made, [True] * 3, [0.7] * 3))
    assert sentence.startswith("More labels would help most (+0.150")
    assert "from 0.500 with 32 images to 0.650 with 64" in sentence
    assert "better proposals +0.000" in sentence


def test_better_proposals():
    made = curve(0.40, 0.401)
    sentence = learning_curve_sentence(made, limits(made, [True, False] * 3, [1.0, 0.0] * 3))
    assert sentence.startswith("Better proposals would help most")
    assert "cover 50 %" in sentence


def test_nothing_is_certain_and_nothing_is_known():
    flat = curve(0.5, 0.5)
    gain = Resampled(np.array([0.01]), np.linspace(-0.1, 0.1, RESAMPLES)[:, None])
    what = bottleneck(constant(0.5), gain, objects([True] * 3, [0.5] * 3), images=IMAGES, resamples=RESAMPLES, seed=0)
    assert learning_curve_sentence(flat, what).startswith("More labels would probably help most (+0.010")
    assert "too few to be certain" in learning_curve_sentence(flat, what)
    gain = Resampled(-gain.value, -gain.samples)
    empty = bottleneck(constant(float("nan")), gain, objects([], []), images=IMAGES, resamples=RESAMPLES, seed=0)
    assert "Nothing is shown to help" in learning_curve_sentence(flat, empty)
    assert "more pixels unknown" in learning_curve_sentence(flat, empty)
    assert "Objects by size" not in read(page_of(flat, empty)).words


def test_the_page():
    made = curve(0.3, 0.5, 0.65)
    page = read(page_of(made, limits(made, [True] * 3, [0.2, 0.7, 0.9])))
    text = " ".join(page.words)
    for words in ("my data", "head=svm", "more pixels", "largest third", "small third", "64", "0.650"):
        assert words in text
    assert not [tag for tag, attributes in page.tags if tag == "script" or "src" in attributes]
    # What is drawn outside of the axes or not at all is not on the page.
    (axes,) = learning_curve_figure(made, limits(made, [True] * 3, [0.5] * 3)).axes
    assert axes.get_ylim() == (0, 1)


def test_a_law_is_drawn_only_if_it_fits():
    good, bad = curve(0.3, 0.5, 0.65), curve(0.5, 0.51, 0.9)
    for made, words in ((good, "For 128 images"), (bad, "No power law is drawn: it does not pass")):
        assert words in " ".join(read(page_of(made, limits(made, [True] * 3, [0.5] * 3))).words)
    labels = [line.get_label() for line in learning_curve_figure(bad, limits(bad, [True] * 3, [0.5] * 3)).axes[0].lines]
    assert "power law" not in labels


def test_without_resamples_there_are_no_intervals():
    points = tuple(LearningPoint(n, (v,), Resampled(np.array([v]), np.zeros((0, 1)))) for n, v in ((8, 0.5), (16, 0.6)))
    made = LearningCurve(points)
    what = bottleneck(
        points[-1].map, made.last_gain, objects([True] * 3, [0.5] * 3), images=IMAGES, resamples=0, seed=0
    )
    assert "nan" not in page_of(made, what)
    assert "probably help most (+0.100 mAP" in learning_curve_sentence(made, what)


def test_the_table_of_the_terminal():
    lines = learning_curve_text(curve(0.3, 0.5)).splitlines()
    assert [line.split()[:2] for line in lines] == [["images", "mAP"], ["16", "0.300"], ["32", "0.500"]]


def test_text_from_outside_is_escaped():
    made = curve(0.3, 0.5)
    page = read(page_of(made, limits(made, [True] * 3, [0.5] * 3), EVIL))
    assert not [tag for tag, attributes in page.tags if tag in ("script", "img") or "onerror" in attributes]


@pytest.mark.parametrize("values", [(1.0, 1.0), (0.0, 0.0)])
def test_the_ends_of_the_scale(values: tuple[float, float]):
    made = curve(*values)
    assert "102" not in " ".join(read(page_of(made, limits(made, [True] * 3, [1.0] * 3))).words)
