"""The scripts of a page: taken out, so that what is left can be searched for others."""

from __future__ import annotations

import re

from detpipe.report import labels_page, page
from detpipe.report.run.page import SCRIPTS

DATA = re.compile(r'<script type="application/json" id="page-data">[^<>&]*</script>\n')
PICTURE = re.compile(r'<script type="text/plain" id="picture-\d+">[A-Za-z0-9+/=]*</script>\n')


def without_own_scripts(text: str) -> str:
    """The page without its data block, its pictures and the scripts of templates/, of which each may be there once."""
    text = PICTURE.sub("", DATA.sub("", text, count=1))
    for name in dict.fromkeys((*SCRIPTS, *labels_page.SCRIPTS)):
        text = text.replace(f"<script>{page._script(name)}</script>\n", "", 1)
    return text
