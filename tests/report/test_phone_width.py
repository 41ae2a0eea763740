"""Every page fits a screen of 400 pixels: no figure is wider than its text allows, and each has an alternative text."""

from __future__ import annotations

import re
from pathlib import Path

from detpipe.report import page
from detpipe.report.figure_style import WIDTH
from tests.report.run.test_page import read
from tests.report.test_no_script_runs import pages as pages  # a fixture: every page of the package

STYLE = (Path(page.__file__).parent / "templates" / "style.css").read_text("utf-8")


def test_no_figure_is_wider_than_a_phone_needs(pages: dict[str, str]) -> None:
    """A figure is scaled to the screen, so a wide one has small text."""
    widths = [
        (name, float(attributes["viewbox"].split()[2]))
        for name, text in pages.items()
        for tag, attributes in read(text).tags
        if tag == "svg" and "viewbox" in attributes
    ]
    assert len({name for name, _ in widths}) >= 8  # of pages with figures
    assert [(name, width) for name, width in widths if width > 72 * WIDTH + 1] == []


def test_no_figure_or_picture_keeps_a_width() -> None:
    for rule in re.findall(r"([^{}]*\b(?:svg|img|plots?|gallery|mosaic)\b[^{}]*)\{([^}]*)\}", STYLE):
        selector, declarations = rule
        assert "min-width" not in declarations, selector
        assert not re.search(r"(?<!-)width: *\d{3,}px", declarations), selector


def test_every_figure_and_picture_has_an_alternative_text(pages: dict[str, str]) -> None:
    found = set()
    for name, text in pages.items():
        for tag, attributes in read(text).tags:
            if tag == "img":
                assert (attributes.get("alt") or "").strip(), name
            if tag == "svg" and "viewbox" in attributes:
                assert attributes.get("role") == "img", name
                assert (attributes.get("aria-label") or "").strip(), name
                found.add(name)
    assert len(found) >= 8
