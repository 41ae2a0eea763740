"""The page of classified photos: counts and captions by hand."""

from __future__ import annotations

import numpy as np

from detpipe.report.photo_page import MAX_IMAGES, PhotoPage, counts_text, picture, render

PHOTO = np.full((400, 800, 3), 99, np.uint8)


def page(best: list[tuple[str, float]], **more: object) -> PhotoPage:
    return PhotoPage(source="photos", classes=["cat", "dog", "cow"], best=best, **more)  # type: ignore[arg-type]


def test_the_counts_by_hand() -> None:
    data = page([("dog", 0.8), ("cat", 0.5), ("dog", 0.4)])
    assert data.rows == [["dog", "2", "0.60"], ["cat", "1", "0.50"]]
    assert counts_text(data).splitlines()[1].split() == ["dog", "2", "0.60"]


def test_a_caption_has_the_file_and_the_next_classes() -> None:
    one = picture(PHOTO, "a/1.jpg", [("dog", 0.7), ("cat", 0.2), ("cow", 0.1)])
    assert one.image.shape == (160, 320, 3)
    assert (one.name, one.text) == ("dog", "0.70")
    assert one.below == "a/1.jpg · cat 0.20 · cow 0.10"
    assert picture(PHOTO[:9, :9], "b.jpg", [("dog", 1.0)]).below == "b.jpg"


def test_the_page_says_how_many_photos_it_shows() -> None:
    shown = [picture(PHOTO[:9, :9], "b.jpg", [("dog", 1.0)])] * MAX_IMAGES
    assert "The first 200 of 201 images" in render(page([("dog", 1.0)] * 201, pictures=shown))
    assert "The first" not in render(page([("dog", 1.0)] * MAX_IMAGES, pictures=shown))


def test_without_photos_it_has_no_rows() -> None:
    assert page([]).rows == []
    assert "Classes" in render(page([], bad=["a.jpg: broken"]))
