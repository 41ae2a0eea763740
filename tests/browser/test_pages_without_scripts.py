"""blame.html and learning_curve.html in a browser: phone width, contrast, links and keys. They have no scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from detpipe.report.blame_page import write_blame_page
from detpipe.structures import ImageId
from tests.browser.browser import Browser
from tests.report.test_blame_page import FOUND, TRACES, blamed, dataset
from tests.report.test_learning_curve_page import curve, limits, page_of


def blame_html(folder: Path) -> Path:
    """A diagnosis with several causes, compared with another run."""
    path = folder / "blame.html"
    names: list[ImageId] = list(FOUND)
    write_blame_page(path, blamed(dataset(folder, names), FOUND, TRACES, against=True))
    return path


def learning_curve_html(folder: Path) -> Path:
    path = folder / "learning_curve.html"
    made = curve(0.3, 0.5, 0.65)
    path.write_text(page_of(made, limits(made, [True] * 3, [0.7] * 3)), encoding="utf-8")
    return path


PAGES = {"blame": blame_html, "learning_curve": learning_curve_html}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1200, False), (1200, True)])
def test_it_fits_the_screen_and_text_has_contrast(
    browser: Browser, tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    browser.open(PAGES[name](tmp_path), width=width, dark=dark)
    assert not browser.scrolls_sideways()
    cut = "return [...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert [one.text for one in browser.js(cut)] == []
    assert browser.pale_texts() == []
    pictures = browser.driver.find_elements("css selector", "img")
    assert all(one.get_attribute("alt") for one in pictures)
    for one in browser.all(".plot svg"):
        assert one.get_attribute("aria-label") or one.find_elements("css selector", "title")


@pytest.mark.parametrize("name", PAGES)
def test_the_links_at_the_top_lead_to_sections(browser: Browser, tmp_path: Path, name: str) -> None:
    browser.open(PAGES[name](tmp_path))
    links = [str(one.get_attribute("href")).partition("#")[2] for one in browser.all("nav a")]
    assert links
    assert [link for link in links if not browser.js("return !!document.getElementById(arguments[0])", link)] == []


def test_examples_of_a_cause_are_opened_by_key(browser: Browser, tmp_path: Path) -> None:
    browser.open(blame_html(tmp_path))
    closed = next(one for one in browser.all("details") if one.get_attribute("open") is None)
    browser.js("arguments[0].querySelector('summary').focus()", closed)
    browser.press(Keys.ENTER)
    assert closed.get_attribute("open") is not None
