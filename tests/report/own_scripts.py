"""The scripts of a page: taken out, so that what is left can be searched for others."""

from __future__ import annotations

import re

from detpipe.report import page

DATA = re.compile(r'<script type="application/json" id="page-data">[^<>&]*</script>\n')


def without_own_scripts(text: str) -> str:
    """The page without its data block and without the scripts of templates/, of which each may be there once."""
    text = DATA.sub("", text, count=1)
    for name in ("dom.js", "boxes.js", "report.js"):
        text = text.replace(f"<script>{page._script(name)}</script>\n", "", 1)
    return text
