"""A page in the system's Chromium: it is opened from its file, and what it logs and requests is collected."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 10.0
"""Seconds that `Browser.until` waits. Pages answer in milliseconds, but the machine may be busy."""

CONTRASTS = """
const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest(":disabled, script, style, option, #view")) continue;
  let behind = element;
  while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
  const a = getComputedStyle(element).color;
  const b = behind ? getComputedStyle(behind).backgroundColor : "rgb(255,255,255)";
  const [x, y] = [light(parse(a)), light(parse(b))].sort((m, n) => n - m);
  found.push([(x + 0.05) / (y + 0.05), element.textContent.trim().slice(0, 40)]);
}
return found;
"""
"""The contrast of each displayed text with the colour behind it, by WCAG 2.1, and its beginning."""


def missing_programs() -> str:
    """What is not installed, as a sentence; "" if Chromium and its driver are."""
    if _browser_path() is None:
        return "no Chromium on this machine (Debian: apt-get install chromium)"
    if shutil.which("chromedriver") is None:
        return "no chromedriver on this machine (Debian: apt-get install chromium-driver)"
    return ""


def _browser_path() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def start(profile: Path) -> webdriver.Chrome:
    """A headless Chromium with an empty profile, which logs the console and all requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = _browser_path() or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    # Chromium's own requests (updates, sign-in) are not the page's.
    options.add_argument("--disable-background-networking")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(executable_path=shutil.which("chromedriver") or ""))


class Browser:
    """Chromium with one page. Sizes are in CSS pixels.

    driver: selenium's own object. downloads: the folder that files are saved in.
    """

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads
        self._own = ""
        self._requests: list[str] = []
        self._messages: list[str] = []
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})

    def open(self, page: Path | str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a file, or HTML text in a new file of the test. dark: what the system prefers."""
        if isinstance(page, str):
            path = self.downloads.parent / "page.html"
            path.write_text(page, encoding="utf-8")
            page = path
        self.resize(width, height)
        preference = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preference})
        self._own = page.absolute().as_uri()
        self.driver.get(self._own)

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the view, which may be narrower than a window can be. Below 600 pixels it is a phone's."""
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)

    def reload(self) -> None:
        """Load the page again; its localStorage stays."""
        self.driver.refresh()

    def find(self, selector: str) -> WebElement:
        """The first element of a CSS selector. Raises NoSuchElementException if there is none."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """The elements of a CSS selector that are displayed, in the page's order."""
        return [one for one in self.driver.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]

    def text(self, selector: str) -> str:
        """The displayed text of an element."""
        return self.find(selector).text

    def click(self, selector: str) -> None:
        """Click the middle of the first element of a CSS selector."""
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, each by itself, where the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def focused(self) -> WebElement:
        """The element that has the focus."""
        return self.driver.switch_to.active_element

    def js(self, script: str, *arguments: object) -> Any:
        """Run a function's body in the page and give what it returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], T], what: str = "") -> T:
        """Wait until the condition is true and give its value. Raises AssertionError after PATIENCE."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                value = condition()
            except (NoSuchElementException, StaleElementReferenceException):
                value = None  # the page is changing
            if value:
                return value
            assert time.monotonic() < end, f"waited {PATIENCE:.0f} s for {what or 'the condition'}"
            time.sleep(0.02)

    def downloaded(self, name: str) -> bytes:
        """The content of a file that the page saved, once it is complete."""
        path = self.downloads / name
        self.until(lambda: path.is_file() and path.stat().st_size > 0, f"the file {name}")
        return path.read_bytes()

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the view."""
        return bool(self.js("return document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def pale_texts(self) -> list[Any]:
        """The displayed texts whose contrast is below 4.5, which WCAG 2.1 AA asks for, with their contrast."""
        found = self.js(CONTRASTS)
        assert len(found) > 10, found
        return [one for one in found if one[0] < 4.5]

    def messages(self) -> list[str]:
        """All that the console said since the test began, a refused script included."""
        self._messages += [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]
        return self._messages

    def requests(self) -> list[str]:
        """The addresses that the page asked for since the test began, except its own file and what is inside it."""
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                self._requests.append(event["params"]["request"]["url"])
            elif event["method"] == "Network.webSocketCreated":
                self._requests.append(event["params"]["url"])
        inside = ("data:", "blob:", "about:", "chrome:", "chrome-untrusted:")  # the last two: its first tab
        return [url for url in self._requests if not url.startswith(inside) and url.partition("#")[0] != self._own]

    def forget(self) -> None:
        """Drop what was collected: for a test that provokes a message or a request on purpose."""
        self.messages()
        self.requests()
        self._messages.clear()
        self._requests.clear()
