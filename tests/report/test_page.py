"""The frame of the pages: what templates are given is escaped, what they miss is an error, and all of them are read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest

from detpipe.metrics.bootstrap import Resampled
from detpipe.report import page
from detpipe.report.page import Cell, Picture, interval_cell
from tests.report.run.test_page import EVIL, read

GREY = np.full((4, 6, 3), 128, np.uint8)
SCRIPTS = sorted(path.name for path in (Path(page.__file__).parent / "templates").glob("*.js"))
TEMPLATES = sorted(path.name for path in (Path(page.__file__).parent / "templates").glob("*.html"))


def from_source(source: str, **values: object) -> str:
    template = page._environment().from_string('{% import "macros.html" as m with context %}' + source)
    return template.render(sections=[], **values)


def test_commands_in_a_sentence_are_code_and_stay_escaped() -> None:
    text = page._environment().filters["commands"]
    assert text("Run `detpipe <b> run_dir=a`.") == "Run <code>detpipe &lt;b&gt; run_dir=a</code>."
    assert text("a <b> & `c") == "a &lt;b&gt; &amp; `c"
    assert text("") == ""


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_compiles(name: str) -> None:
    page._environment().get_template(name)


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="is undefined"):
        page.render("signals.html", "a network", head=[], rows=[])


def test_every_part_of_a_cell_and_of_a_picture_is_escaped() -> None:
    cells = [EVIL, Cell(EVIL, below=EVIL, colour=f'"{EVIL}', bar=0.25)]
    shown = [Picture(GREY, alt=EVIL, name=EVIL, text=EVIL, below=EVIL, link=f'"{EVIL}')]
    reader = read(
        from_source("{{ m.table([evil], [cells]) }}{{ m.pictures(shown) }}", evil=EVIL, cells=cells, shown=shown)
    )
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script"})
    assert [tag for tag, _ in reader.tags].count("img") == 1
    assert {"src", "alt", "width", "height", "class", "style", "href"} >= {name for _, a in reader.tags for name in a}
    assert "".join(reader.words).count(EVIL) == 7
    assert ("i", {"style": "width:25.0%"}) in reader.tags


def test_a_section_without_content_has_no_link() -> None:
    text = from_source(
        '{% call m.section("A b") %} {% endcall %}{% call m.section("C d") %}x{% endcall %}{{ sections }}'
    )
    assert 'id="c-d"' in text
    assert "A b" not in text
    assert text.endswith("[&#39;C d&#39;]")


def test_what_cannot_be_printed_or_encoded_is_replaced() -> None:
    text = page.render("proposal.html", "a\x00\udcff\u202eb", shown=[], top=1, budget=1, min_iou=0.5)
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" in text
    text.encode("utf-8")


ENDS = ["</script>", "</SCRIPT >", "<!--", "<script>", "]]>", "&lt;", "\u2028\u2029", "\x00\udcff\u202e", "\\", '"']


@pytest.mark.parametrize("text", ENDS)
def test_no_text_ends_the_data_block_and_all_reach_the_script_unchanged(text: str) -> None:
    block = page._data_block({text: [text]})
    assert not set(block) & set("<>&\n\u2028\u2029")
    assert block.isascii()
    assert json.loads(block) == {text: [text]}


def test_a_page_without_scripts_has_no_block_and_no_script() -> None:
    text = page.render("proposal.html", "a", shown=[], top=1, budget=1, min_iou=0.5)
    assert "<script" not in text
    assert "script-src" not in text


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page._data_block({"a": float("nan")})


def test_the_policy_has_the_hash_of_each_script_as_it_stands_in_the_page() -> None:
    text = page.render("proposal.html", "a", scripts=["dom.js"], data={}, shown=[], top=1, budget=1, min_iou=0.5)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; base-uri" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_strict_and_can_stand_in_a_page(name: str) -> None:
    assert page._script(name).startswith('"use strict";\n')


@pytest.mark.parametrize("source", ["a = '</script>'", "<!-- a", "a = '\x00'"])
def test_a_script_that_the_parser_would_change_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page._environment(), "loader", jinja2.DictLoader({"bad.js": source}))
    with pytest.raises(ValueError, match=r"bad\.js"):
        page._script("bad.js")


@pytest.mark.parametrize(("spread", "below"), [(0.0, "0.500 – 0.500"), (np.nan, "")])
def test_an_interval_stands_below_its_number_where_it_is_known(spread: float, below: str) -> None:
    made = Resampled(value=np.array([0.5]), samples=np.full((20, 1), 0.5 + spread))
    assert interval_cell(made) == Cell("0.500", below=below)
