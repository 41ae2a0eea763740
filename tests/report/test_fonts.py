"""Which font draws which character, and what a picture shows where no font has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detpipe.report import fonts
from detpipe.report.drawing import draw_detections
from detpipe.structures import Detections

NAMES = ("猫", "ねこ", "고양이", "قط", "बिल्ली", "แมว", "кошка")


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", list)
    for cached in (fonts._system_fonts, fonts.font_of, fonts._warn):
        cached.cache_clear()
    yield
    for cached in (fonts._system_fonts, fonts.font_of, fonts._warn):
        cached.cache_clear()


def picture(name: str) -> np.ndarray:
    image = np.full((120, 300, 3), 128, dtype=np.uint8)
    one = Detections(np.array([[20, 60, 280, 110]], np.float32), np.array([0.9], np.float32), np.array([1]))
    return draw_detections(image, one, [name])


def test_latin_cyrillic_and_arabic_are_in_the_own_font() -> None:
    assert [fonts.font_of(c) for c in "aЖم"] == [fonts.BASE] * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_with_a_font_that_has_it(name: str) -> None:
    if not fonts.can_draw(name):
        pytest.skip(f"no font of this system has {name}")
    shown = fonts.shown_name([name], 1)
    assert shown == name
    # Drawn as such, and not as the box of a missing character.
    assert (picture(name) != picture("\ufffe" * len(name))).any()
    for part, font in fonts.runs(f"{name} 0.92", 14):
        characters = fonts._covered(Path(str(font.path)))
        assert all(c in characters or c.isspace() for c in part)


def test_parts_keep_the_text_and_its_order() -> None:
    text = "a 猫 b ねこ 0.92"
    assert "".join(part for part, _ in fonts.runs(text, 12)) == text
    assert fonts.runs("", 12) == []


@pytest.mark.usefixtures("no_system_fonts")
def test_without_a_font_a_picture_shows_the_number_of_the_class_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    classes = ["cat", "猫", "犬"]
    assert [fonts.shown_name(classes, label) for label in (1, 2, 3)] == ["cat", "class 2", "class 3"]
    assert fonts.stand_ins(classes) == fonts.stand_ins(classes) == {"猫": "class 2", "犬": "class 3"}
    (message,) = caplog.messages
    assert "class 2 for 猫" in message
    assert "Install a font" in message
    np.testing.assert_array_equal(picture("猫"), picture("class 1"))


@pytest.mark.usefixtures("no_system_fonts")
def test_names_in_the_own_font_need_no_stand_in(caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.stand_ins(["cat", "кошка", "café", "a b", ""]) == {}
    assert caplog.messages == []
