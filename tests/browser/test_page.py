"""Pages with scripts: only the page's own scripts run, data reaches them unchanged, and nothing leaves the file."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from detpipe.report import page
from tests.browser.browser import Browser

HOSTILE = "</script><script>document.title = 'hit'</script><!--<script>\u2028\"'\\&amp;\u202e"
TEMPLATE = (
    """{% extends "base.html" %}{% set title = "A page" %}{% block body %}<p id="out">{{ text }}</p>{% endblock %}"""
)
SCRIPT = """"use strict";
document.getElementById("out").replaceChildren(make("b", { title: pageData().text }, pageData().text));
"""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template and a script of the test's own beside those of the package."""
    environment = page._environment()
    own = jinja2.DictLoader({"test.html": TEMPLATE, "test.js": SCRIPT})
    monkeypatch.setattr(environment, "loader", jinja2.ChoiceLoader([own, environment.loader]))


def rendered(text: str) -> str:
    return page.render("test.html", "", scripts=("dom.js", "test.js"), data={"text": text}, text=text)


@pytest.mark.usefixtures("scripted")
def test_data_reaches_the_script_unchanged_and_stays_text(browser: Browser) -> None:
    browser.open(rendered(HOSTILE))
    assert browser.js("return pageData().text") == HOSTILE
    shown = browser.js("const b = document.querySelector('#out b'); return [b.textContent, b.title]")
    assert shown == [HOSTILE.replace("\u202e", "\ufffd")] * 2
    assert browser.driver.title == "A page"


@pytest.mark.usefixtures("scripted")
def test_a_script_that_is_not_the_pages_own_is_refused(browser: Browser) -> None:
    text = rendered("a").replace("</body>", "<script>document.title = 'hit'</script><img src=x onerror=hit></body>")
    browser.open(text.replace("<p id", "<p onclick=\"document.title = 'hit'\" id"))
    browser.click("#out")
    assert browser.text("#out b") == "a"
    assert browser.driver.title == "A page"
    refused = browser.messages()
    assert len([one for one in refused if "script-src" in one]) >= 3, refused
    browser.forget()


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("scripted")
def test_the_policy_refuses_requests(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, list[str]]
) -> None:
    """A script of the page itself could not send anything either. Without its policy, it could."""
    address, paths = asked
    script = f"fetch('{address}/fetch', {{mode: 'no-cors'}}).catch(() => 0); new Image().src = '{address}/image';"
    monkeypatch.setattr(page, "_script", lambda name: script if name == "test.js" else "")
    text = rendered("a")
    browser.open(text)
    for path in ("/fetch", "/image"):
        browser.until(lambda path=path: [one for one in browser.messages() if path in one and "blocked" in one], path)
    assert paths == []
    browser.open(re.sub(r"<meta http-equiv[^>]*>", "", text))
    browser.until(lambda: sorted(paths) == ["/fetch", "/image"])
    browser.forget()


def test_the_fixture_sees_a_request_and_a_message(browser: Browser, tmp_path: Path) -> None:
    """Without a policy the request is made, so the check of the other tests is able to fail."""
    (tmp_path / "other.css").write_text("p { color: red }")
    browser.open("<!DOCTYPE html><link rel=stylesheet href=other.css><script>console.error('said')</script><p>x</p>")
    assert [Path(url).name for url in browser.requests()] == ["other.css"]
    assert any("said" in one for one in browser.messages())
    browser.forget()


def test_a_page_without_scripts_allows_none(browser: Browser) -> None:
    text = page.render("proposal.html", "a", shown=[], top=1, budget=1, min_iou=0.5)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    browser.open(text.replace("</body>", "<script>document.title = 'hit'</script></body>"))
    assert "hit" not in browser.driver.title
    assert len(browser.messages()) == 1
    browser.forget()
