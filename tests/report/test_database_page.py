"""The page of a database of images: every section with and without data, and text from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detpipe.classify.images.contents import Fault
from detpipe.report.curves import to_png, to_svg
from detpipe.report.database_page import (
    MAX_NAMED,
    MOST_LABELS,
    DatabasePage,
    SampledImage,
    label_figure,
    mean_image,
    render,
    sheet,
    write_database_page,
)
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


@pytest.mark.parametrize("labels", [0, 1, MAX_NAMED, MAX_NAMED + 1])
def test_any_number_of_labels_is_drawn(labels: int) -> None:
    counts = {3 * label: label + 1 for label in range(labels)}
    figure = label_figure(counts, dict.fromkeys(counts, "<script>$x_{"))
    assert to_png(figure)[:4] == b"\x89PNG"
    assert "<script" not in to_svg(figure, "labels")
    assert len(figure.axes[0].patches) == labels


def test_the_sheet_has_a_cell_for_each_image() -> None:
    images = [np.full(size, 255, dtype=np.uint8) for size in ((1, 1, 3), (300, 20, 3), (20, 900, 3))]
    drawn, cell = sheet(images, ["a", "\ud800" * 200, ""], [0, 1, 1 << 30]), sheet(images[:1], ["a"], [0])
    assert drawn.shape == (cell.shape[0], 3 * cell.shape[1], 3)
    with pytest.raises(ValueError, match="expected images"):
        sheet([], [], [])


def test_the_mean_is_rgb() -> None:
    mean = np.array([10.4, 20.6, 30.0], dtype=np.float32)[:, None, None] * np.ones((1, 200, 300), dtype=np.float32)
    assert mean_image(mean)[0, 0].tolist() == [30, 21, 10]
    assert mean_image(mean).shape == (200, 300, 3)
    assert mean_image(mean[:1, :2, :4]).shape == (64, 128, 3)
