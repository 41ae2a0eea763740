"""One HTML file that needs no network and runs no script: title, links to its sections, and the sections."""

from __future__ import annotations

from collections.abc import Mapping

from detpipe.report.markup import escape
from detpipe.report.page_style import CSS


def page(title: str, subtitle: str, head: str, parts: Mapping[str, str]) -> str:
    """The page. title, subtitle: text. head, parts: HTML; a section with a link to it for each part, by its name."""
    anchors = {name: name.lower().replace(" ", "-") for name in parts}
    links = "".join(f'<a href="#{anchors[name]}">{escape(name)}</a>' for name in parts)
    body = "".join(
        f'<section id="{anchors[name]}"><h2>{escape(name)}</h2>{part}</section>' for name, part in parts.items()
    )
    # The policy forbids scripts and every request, should hostile text ever get past the escaping.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>"
        f"<main>{head}<nav>{links}</nav>{body}</main>"
        "<footer>Made by detpipe. One file: it can be sent and kept as it is.</footer></body></html>\n"
    )
