"""The colours of the pages: WCAG AA, light and dark. Text needs 4.5 to 1, the edges of controls 3 to 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detpipe.report import page
from detpipe.report.drawing import Colour, contrast

STYLE = (Path(page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
MODES = dict(zip(("light", "dark"), re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL), strict=True))


def colour(text: str) -> Colour:
    red, green, blue = (int(text[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "least"), [("ink", 4.5), ("soft", 4.5), ("accent", 4.5), ("edge", 3.0)])
@pytest.mark.parametrize("below", ["page", "card"])
def test_contrast(mode: str, name: str, least: float, below: str) -> None:
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", MODES[mode]))
    assert contrast(colour(colours[name]), colour(colours[below])) >= least


def test_contrast_of_the_first_card() -> None:
    """Its text is white on the accent, and in dark mode on a colour of its own."""
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", MODES["light"]))["accent"]
    dark = re.search(r"\.cards div:first-child \{ background: (#[0-9a-f]{6})", STYLE)
    assert dark is not None
    assert min(contrast((255, 255, 255), colour(one)) for one in (light, dark[1])) >= 4.5
