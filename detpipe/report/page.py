"""HTML pages from the files in templates/. A page is one file without scripts and network requests.

Jinja2 escapes all values, because names of files and classes are untrusted. The policy in base.html also forbids
scripts and requests.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from detpipe.metrics.bootstrap import Resampled
from detpipe.report.curves import to_svg
from detpipe.report.drawing import to_jpeg
from detpipe.report.text_table import number
from detpipe.structures import Image


@dataclass(frozen=True)
class Cell:
    """A table cell that is more than text.

    below: a second, smaller line. colour: "#rrggbb" of a square before the text. bar: the filled share, in [0, 1], of a
    bar before the text.
    """

    text: str
    below: str = ""
    colour: str = ""
    bar: float | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """An image (H, W, 3) RGB with a caption: a bold name, text next to it and a smaller line below.

    alt: the alternative text. link: a percent-encoded address for the name. quality: of the JPEG.
    """

    image: Image
    alt: str
    name: str = ""
    text: str = ""
    below: str = ""
    link: str = ""
    quality: int = 80


def interval_cell(value: Resampled) -> Cell:
    """0.432 and, below it, its interval if known. value: a single number."""
    low, high = (end.item() for end in value.interval)
    return Cell(number(value.value.item()), below="" if np.isnan(low) else f"{number(low)} – {number(high)}")


def render(template: str, subtitle: str, **values: object) -> str:
    """Render a template with these values, all escaped. Characters that can't be printed or encoded become U+FFFD.

    Raises jinja2.UndefinedError if the template uses a missing value.
    """
    text = _environment().get_template(template).render(subtitle=subtitle, sections=[], **values)
    bad = {ord(c): "\N{REPLACEMENT CHARACTER}" for c in set(text) if not c.isprintable() and c not in "\n\t"}
    return text.translate(bad)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("detpipe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    environment.filters |= {"number": number, "spec": format, "svg": _svg, "jpeg": _jpeg}
    environment.tests["cell"] = lambda value: isinstance(value, Cell)
    return environment


def _svg(figure: Figure, name: str) -> Markup:
    return Markup(to_svg(figure, name))


def _jpeg(image: Image, quality: int) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(image, quality)).decode('ascii')}"
