"""Pieces of HTML, all text in them escaped: names of files and classes come from outside."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence

from detpipe.report.drawing import to_jpeg
from detpipe.structures import Image


def escape(value: object) -> str:
    """The value's text for an element or a quoted attribute; what UTF-8 can't hold becomes a question mark."""
    clean = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in clean))


def paragraph(text: object, kind: str = "") -> str:
    """A paragraph of plain text; kind: its CSS class."""
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, kind: str = "") -> str:
    """A table whose first column is text and whose others are numbers. A cell is escaped unless it is Markup."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table{_kind(kind)}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


class Markup(str):
    """HTML that is made here and must not be escaped again."""

    __slots__ = ()


def number(value: float | None, digits: int = 3) -> str:
    """0.123, or a dash where there is no number."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def picture(image: Image, alt: str, caption: str, *, quality: int = 80) -> str:
    """A figure with the image inside as JPEG. caption: escaped by the caller, for it may hold markup."""
    height, width = image.shape[:2]
    source = f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(image, quality)).decode('ascii')}"
    size = f'width="{width}" height="{height}"'
    return f'<figure><img src="{source}" alt="{escape(alt)}" {size}><figcaption>{caption}</figcaption></figure>'


def _cell(cell: object) -> str:
    return str(cell) if isinstance(cell, Markup) else escape(cell)


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
