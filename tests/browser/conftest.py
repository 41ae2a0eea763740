"""The fixture `browser`: a page in Chromium, and a test that fails if the page logs anything or asks for a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")

from selenium import webdriver

from tests.browser.browser import Browser, missing_programs, start


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all tests, since it takes seconds to start."""
    missing = missing_programs()
    if missing:
        pytest.skip(missing)
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Browser]:
    """Chromium with an empty localStorage. The test fails on messages in the console and on requests."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    made = Browser(chromium, downloads)
    made.forget()
    yield made
    messages, requests = made.messages(), made.requests()
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "local_storage"})
    chromium.get("about:blank")
    assert messages == [], "the page wrote to the console"
    assert requests == [], "the page asked for other files"
