"""Fonts of text in pictures: DejaVu Sans, which comes with matplotlib, and for other scripts what the system has.

Chinese, Japanese, Korean and many Indian and East Asian scripts are not in DejaVu Sans. A class name whose characters
no font has is shown as "class 3" in pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

logger = logging.getLogger(__name__)

BASE = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in this size in pixels."""
    return _load(BASE, size)


def runs(text: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
    """The text in parts that one font each can draw, in order. A character that no font has is in DejaVu Sans."""
    parts: list[tuple[str, Path]] = []
    for character in text:
        # A part goes on as long as its font can: combined characters must stay together.
        if parts and (character in _covered(parts[-1][1]) or character.isspace()):
            parts[-1] = (parts[-1][0] + character, parts[-1][1])
            continue
        path = font_of(character) or BASE
        if parts and path == parts[-1][1]:
            parts[-1] = (parts[-1][0] + character, path)
        else:
            parts.append((character, path))
    return [(part, _load(path, size)) for part, path in parts]


def can_draw(text: str) -> bool:
    """Whether each printable character of the text is in a font."""
    return all(font_of(c) is not None for c in text if c.isprintable() and not c.isspace())


def shown_name(classes: Sequence[str], label: int) -> str:
    """The name of label 1..K in pictures: its own, or "class 3" if no font has its characters."""
    return classes[label - 1] if can_draw(classes[label - 1]) else f"class {label}"


def stand_ins(classes: Sequence[str]) -> dict[str, str]:
    """The names that pictures cannot show, with what they show in their place. Logs a warning if there are any."""
    found = {
        name: shown for label, name in enumerate(classes, start=1) if (shown := shown_name(classes, label)) != name
    }
    if found:
        _warn(tuple(found.items()))
    return found


@cache
def _warn(found: tuple[tuple[str, str], ...]) -> None:
    """Warn once of the same names."""
    some = ", ".join(f"{shown} for {name}" for name, shown in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    logger.warning(
        "no font of this system has the characters of %d class names; pictures show %s%s. Install a font that has "
        "them, such as Noto Sans CJK",
        len(found),
        some,
        more,
    )


@cache
def font_of(character: str) -> Path | None:
    """The file of a font that has the character: DejaVu Sans, else the first of the system's; None without one."""
    if character in _covered(BASE):
        return BASE
    return next((path for path in _system_fonts() if character in _covered(path)), None)


@cache
def _system_fonts() -> tuple[Path, ...]:
    """The font files of the system, those without serifs and bold ones first."""

    def order(path: Path) -> tuple[bool, bool, bool, str]:
        name = path.name.lower()
        return "serif" in name, "mono" in name, "bold" not in name, str(path)

    return tuple(sorted(map(Path, font_manager.findSystemFonts()), key=order))


@cache
def _covered(path: Path) -> frozenset[str]:
    """The characters of a font; none for a file that cannot be read, or that Pillow cannot draw."""
    try:
        characters = frozenset(map(chr, FT2Font(str(path)).get_charmap()))
        _load(path, 12)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return characters


@cache
def _load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def family_of(path: Path) -> str:
    """The name by which matplotlib knows a font file."""
    font_manager.fontManager.addfont(str(path))
    return font_manager.FontProperties(fname=str(path)).get_name()
