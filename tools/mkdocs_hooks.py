"""Hooks of mkdocs: pages of the repository's root join the site, and no page of it needs the network."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("ARCHITECTURE.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""Pages outside docs/ that the site shows, too."""
NOTES = tuple(f"benchmarks/notes/{path.name}" for path in sorted((ROOT / "benchmarks" / "notes").glob("*.md")))

COMMENT = re.compile(r"^<!-- (?:test|file): .*? -->\n", re.M)
"""Marks for tests/test_docs.py."""
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(https?:)?//[^>]*>")
CANONICAL = re.compile(r"\brel=[\"']?(?:canonical|next|prev|license)\b")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages to the pages of docs/."""
    for name in (*ROOT_PAGES, *NOTES):
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Change the links: in the repository docs/ is a folder, in the site its pages are at the root."""
    markdown = COMMENT.sub("", markdown)
    if page.file.src_uri in ROOT_PAGES:
        return re.sub(r"\]\((?:\./)?docs/", "](", markdown)
    if page.file.src_uri in NOTES:
        return markdown.replace("](../../docs/", "](../../")
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, (*ROOT_PAGES, 'benchmarks/notes/')))})", r"](\1", markdown)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Raise PluginError for a page that would fetch a font, a script or a picture from another place."""
    for tag in FETCHED.finditer(output):
        if not CANONICAL.search(tag[0]):
            raise PluginError(f"{page.file.src_uri}: expected a page that needs no network, found {tag[0]}")
    return output
