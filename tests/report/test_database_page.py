"""The page of a database of images: every section with and without data, and text from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detpipe.classify.database_contents import Fault
from detpipe.report.database_page import MOST_LABELS, DatabasePage, SampledImage, render, write_database_page
from tests.report.run.test_page import EVIL, Reader, read

GREY = np.full((20, 30, 3), 128, np.uint8)


def page_of(labels: int) -> DatabasePage:
    return DatabasePage(
        subtitle=EVIL,
        facts={"records": EVIL},
        labels={label: 2 + label for label in range(labels)},
        names={label: EVIL if label == 0 else str(label) for label in range(labels)},
        faults=[Fault(EVIL, "broken")],
        fault_count=3,
        sample=[SampledImage(0, EVIL, EVIL, GREY)],
        seed=7,
        mean=GREY,
    )


def has_no_script(page: Reader) -> bool:
    return not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]


def test_every_section_of_a_database(tmp_path: Path) -> None:
    write_database_page(tmp_path / "page.html", page_of(2))
    page = read((tmp_path / "page.html").read_text("utf-8"))
    text = " ".join(page.words)
    for words in ("Faults", "and 2 more", "1 of 5 records", "(seed 7)", "of all records", "40.00%"):
        assert words in text
    assert has_no_script(page)
    assert "width:66.7%" in {attributes.get("style") for _, attributes in page.tags}  # 2 records, at most 3
    assert "details" not in {tag for tag, _ in page.tags}


def test_many_labels_stand_in_a_fold() -> None:
    page = read(render(page_of(MOST_LABELS + 1)))
    assert f"All {MOST_LABELS + 1} labels, the most frequent first" in page.words


def test_a_database_without_records_says_so() -> None:
    page = read(render(DatabasePage(subtitle="empty", facts={}, labels={}, names={})))
    assert "There are no images to show." in page.words
    assert "section" not in {tag for tag, _ in page.tags}
