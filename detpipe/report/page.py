"""HTML pages from the files in templates/. A page is one file without network requests.

Jinja2 escapes all values, because names of files and classes are untrusted. A page with controls has scripts, which are
files in templates/, and their data as JSON. The content policy of a page also forbids requests and all other scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
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
from detpipe.structures import Dataset, Image


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


def render(
    template: str,
    subtitle: str,
    *,
    scripts: Sequence[str] = (),
    data: Mapping[str, object] | None = None,
    **values: object,
) -> str:
    """Render a template with these values, all escaped. Characters that can't be printed or encoded become U+FFFD.

    scripts: names of files in templates/, which run in this order at the end of the page; dom.js has what they share.
    data: for the scripts (`pageData()` in dom.js), as JSON; unlike values, its texts reach the scripts unchanged.
    Raises jinja2.UndefinedError if the template uses a missing value, and ValueError for NaN or infinity in data, since
    JSON has neither.
    """
    sources = [_script(name) for name in scripts]
    text = (
        _environment()
        .get_template(template)
        .render(
            subtitle=subtitle,
            sections=[],
            policy=_policy(sources),
            data_block=None if data is None else _data_block(data),
            scripts=[Markup(source) for source in sources],
            **values,
        )
    )
    bad = {ord(c): "\N{REPLACEMENT CHARACTER}" for c in set(text) if not c.isprintable() and c not in "\n\t"}
    return text.translate(bad)


def without_files(dataset: Dataset) -> str:
    """A sentence for a page if files of images are missing; else ""."""
    count = sum(not record.has_file for record in dataset.records)
    if not count:
        return ""
    which = (
        "The image files are" if count == len(dataset.records) else f"{count:,} of {len(dataset.records):,} images are"
    )
    return f"{which} missing, so there are no pictures of them. The numbers only need annotations and detections."


def jpeg_uri(image: Image, quality: int) -> str:
    """The image (H, W, 3) RGB as a JPEG in a data URI, for src of an img. quality: 0 to 100."""
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(image, quality)).decode('ascii')}"


_ENDS_SCRIPT = re.compile(r"</script|<script|<!--", re.IGNORECASE)
"""What the HTML parser reads in a script as its end, or as the start of a comment that hides the end."""


@cache
def _script(name: str) -> str:
    """The text of a script of templates/, as the browser will hash it."""
    environment = _environment()
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")
    if _ENDS_SCRIPT.search(text) or not all(c.isprintable() or c in "\n\t" for c in text):
        raise ValueError(f"{name}: expected a script without script tags, comments of HTML and control characters")
    return text


def _policy(scripts: Sequence[str]) -> str:
    """The content policy: no request, and no script but these, which the browser knows by their hashes."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if not scripts:
        return policy
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"{policy}; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _data_block(data: Mapping[str, object]) -> Markup:
    """JSON in ASCII without <, > and &, so that no text in it can end the block or begin a tag or comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))


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
    environment.filters |= {"number": number, "spec": format, "svg": _svg, "jpeg": jpeg_uri, "commands": _commands}
    environment.tests["cell"] = lambda value: isinstance(value, Cell)
    return environment


def _commands(text: str) -> Markup:
    """The sentence with its commands, which stand between backticks, as <code>."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick of a name
        return Markup.escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else Markup.escape(part) for index, part in enumerate(parts)
    )


def _svg(figure: Figure, name: str, alt: str) -> Markup:
    return Markup(to_svg(figure, name, alt))
