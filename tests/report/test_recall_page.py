"""The page of recall: its sections, its numbers, and text from outside."""

from __future__ import annotations

from pathlib import Path

from detpipe.metrics.method_recall import compare
from detpipe.report.recall_page import RecallPage, render, write_recall_page
from tests.metrics.test_method_recall import measured
from tests.metrics.test_overlap_table import FOUND
from tests.report.run.test_page import EVIL, read


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
    for words in ("my data", "Gaussian, runs/mine", "1,234 resamples", "mine minus none", "At 3 proposals an image"):
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
        assert (
            "There are no objects to find." in read(render(RecallPage(subtitle="", methods=methods, resamples=9))).words
        )
