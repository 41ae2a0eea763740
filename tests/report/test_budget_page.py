"""The page and the table of a budget curve: its sections, its sentence, and text from outside."""

from __future__ import annotations

import math
from pathlib import Path

from detpipe.metrics.budget_curve import BudgetCurve
from detpipe.report.budget_page import (
    BudgetPage,
    budget_figures,
    budget_sentences,
    budget_text,
    render,
    write_budget_page,
)
from detpipe.structures import Detections, GroundTruth, ImageId
from tests.metrics.test_budget_curve import curve as drawn_curve
from tests.metrics.test_budget_curve import found, of_images
from tests.report.run.test_page import EVIL, read

IMAGES = [f"{number:02}" for number in range(40)]
TRUTH: dict[ImageId, GroundTruth] = {name: GroundTruth.from_boxes([[0, 0, 10, 10]], [1]) for name in IMAGES}
ALL: dict[ImageId, Detections] = {name: found(1) for name in IMAGES}
DETECTIONS = {1: {name: found(1) for name in IMAGES[:20]}, 2: ALL, 4: ALL}


def curve(
    detections: dict[int, dict[ImageId, Detections]],
    truth: dict[ImageId, GroundTruth] = TRUTH,
    tolerance: float = 0.01,
    propose: float = 0.5,
) -> BudgetCurve:
    """Of forty images, if `truth` has no others."""
    return drawn_curve(detections, truth, tolerance, propose)


def test_the_page(tmp_path: Path):
    made = curve(DETECTIONS)
    data = BudgetPage(subtitle="my data", curve=made, method="gaussian", resamples=1234, timed=7)
    write_budget_page(tmp_path / "page.html", data)
    page = read((tmp_path / "page.html").read_text("utf-8"))
    text = " ".join(page.words)
    for words in ("my data", "1,234 resamples", "Proposing (gaussian) was timed on 7 images", "2750.0"):
        assert words in text
    assert "2 per image, mAP 1.000 at 2750 ms" in text
    assert not [tag for tag, attributes in page.tags if tag == "script" or "src" in attributes]


def test_the_table_of_the_terminal():
    made = curve(DETECTIONS, propose=math.nan)
    head, first, *_ = budget_text(made).splitlines()
    assert head.split("  ")[0] == "proposals"
    assert first.split()[:2] == ["1", "1"]
    assert "–" in first  # the time of proposing
    fewest, best = budget_sentences(curve(DETECTIONS, tolerance=0.5))
    assert "50 % of the best mAP: 1 per image, mAP 0.500 at 1750 ms" in fewest
    assert "2, mAP 1.000 at 2750 ms, 1.6 times" in best


def test_text_from_outside_is_escaped():
    page = read(render(BudgetPage(subtitle=EVIL, curve=curve(DETECTIONS), method=EVIL, resamples=3, timed=1)))
    assert not [tag for tag, attributes in page.tags if tag in ("script", "img") or "onerror" in attributes]


def test_nothing_to_find():
    for made in (curve({1: {}}, {}), curve({})):
        words = read(render(BudgetPage(subtitle="", curve=made, method="x", resamples=0, timed=0))).words
        assert any(("no objects" in one) or ("fewest boxes" in one) for one in words)


def test_one_number_of_proposals_is_no_curve():
    one, three = curve({1: ALL}), curve(DETECTIONS)
    assert budget_figures(one) == {}
    assert "<svg" not in render(BudgetPage(subtitle="", curve=one, method="x", resamples=0, timed=0))
    accuracy, cost = budget_figures(three).values()
    assert accuracy.axes[0].get_ylim() == (0, 1)
    assert len(cost.axes[0].collections) == 3  # the stages


def test_few_images_give_no_recommendation():
    first, rule = budget_sentences(of_images(7, 5))
    assert "Too few images to tell" in first
    assert "7 images with objects, best mAP 0.714" in first
    assert "15 such images and an interval of at most 0.2" in rule
