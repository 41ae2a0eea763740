"""The page on which labels are corrected: its data, its pictures, its limits, and hostile names in it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detpipe.labels.corrections import Action
from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind
from detpipe.report.labels_page import (
    SCRIPTS,
    ImageToLabel,
    LabelledObject,
    LabelsPage,
    PageImage,
    PredictedBox,
    write_labels_page,
)
from detpipe.structures import ImageRecord

BOX = (10.25, 20.1, 60.0, 50.3)
OTHER = (70.0, 5.0, 95.0, 30.0)
HUGE_ID = 12345678901234567890
"""An integer that JavaScript's numbers round."""


def image_file(folder: Path, name: str = "a.png", size: tuple[int, int] = (60, 100)) -> ImageRecord:
    cv2.imwrite(str(folder / name), np.full((*size, 3), 120, np.uint8))
    return ImageRecord(name, folder / name, size)


def suspect(image: int | str, **values: Any) -> Suspect:
    first = Suspect(
        image=image,
        split="train",
        kind=SuspectKind.wrong_class,
        score=0.9,
        object=1,
        box=BOX,
        label="cat",
        suggestion=Suggestion(action=Action.change, label="dog"),
        why="the model gives dog 0.91",
    )
    return replace(first, **values)


def page_of(folder: Path, *items: Suspect | ImageToLabel, record: ImageRecord | None = None) -> LabelsPage:
    record = record or image_file(folder)
    objects = (LabelledObject(box=OTHER, label="dog"), LabelledObject(box=BOX, label="cat", id="77"))
    return LabelsPage(
        title="Label audit",
        subtitle="a data set",
        dataset="abc",
        classes=["cat", "dog"],
        items=items,
        images={(item.split, item.image): PageImage(record=record, objects=objects) for item in items},
    )


def written(folder: Path, page: LabelsPage, config: LabelsPageConfig | None = None) -> tuple[str, Any, list[str]]:
    """The page's HTML, the content of its data block, and the base64 text of its pictures."""
    write_labels_page(folder / "audit.html", page, config)
    html = (folder / "audit.html").read_text("utf-8")
    block = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    return html, json.loads(block[1]), re.findall(r'<script type="text/plain" id="picture-\d+">(.*?)</script>', html)


def decoded(text: str) -> tuple[int, ...]:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return tuple(image.shape)


def test_a_suspect_keeps_its_exact_box_and_the_picture_is_stored_once(tmp_path: Path) -> None:
    items = (suspect("a.png"), suspect("a.png", kind=SuspectKind.spurious, suggestion=Suggestion(action=Action.remove)))
    _, data, pictures = written(tmp_path, page_of(tmp_path, *items))
    assert (data["file"], data["dataset"]) == ("audit.html", "abc")
    assert [item["boxes"] for item in data["items"]] == [[[*BOX, "cat", None]]] * 2
    assert [(item["action"], item["label"]) for item in data["items"]] == [("change", "dog"), ("remove", None)]
    assert [name for name, _ in data["classes"]] == ["cat", "dog"]
    assert len(pictures) == 1
    assert decoded(pictures[0]) == (60, 100, 3)
    image = data["images"][0]
    assert (image["width"], image["height"], json.loads(image["id"])) == (100, 60, "a.png")
    assert image["objects"] == [[*OTHER, "dog", None], [*BOX, "cat", "77"]]


def test_no_items(tmp_path: Path) -> None:
    _, data, pictures = written(tmp_path, page_of(tmp_path))
    assert (data["items"], data["images"], pictures) == ([], [], [])


def test_the_settings_limit_the_items_and_the_pictures(tmp_path: Path) -> None:
    items = [suspect("a.png", score=score) for score in (0.9, 0.8, 0.7)]
    html, data, pictures = written(tmp_path, page_of(tmp_path, *items), LabelsPageConfig(most=2, side=40))
    assert [item["score"] for item in data["items"]] == [0.9, 0.8]
    assert "page.most" not in written(tmp_path, page_of(tmp_path, *items), LabelsPageConfig(most=3))[0]
    assert "page.most" in html
    assert decoded(pictures[0]) == (24, 40, 3)


@pytest.mark.parametrize(
    ("values", "named"), [({"most": -1}, "page.most"), ({"side": 8}, "page.side"), ({"quality": 0}, "page.quality")]
)
def test_a_wrong_setting_is_named(values: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        LabelsPageConfig(**values)


def test_an_image_that_cannot_be_read_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    broken = ImageRecord("b.png", tmp_path / "b.png", (60, 100))
    _, data, pictures = written(tmp_path, page_of(tmp_path, suspect("b.png"), record=broken))
    assert len(data["items"]) == 1
    assert pictures == [""]


def test_an_item_needs_its_image_and_its_object(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'b\.png'"):
        replace(page_of(tmp_path, suspect("a.png")), items=[suspect("b.png")])
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        page_of(tmp_path, suspect("a.png", object=2))


def test_an_item_is_known_again_in_another_order(tmp_path: Path) -> None:
    first, second = suspect("a.png"), suspect("a.png", kind=SuspectKind.misplaced)
    keys = [item["key"] for item in written(tmp_path, page_of(tmp_path, first, second))[1]["items"]]
    turned = replace(second, score=0.1, why="other words")
    again = [item["key"] for item in written(tmp_path, page_of(tmp_path, turned, first))[1]["items"]]
    assert again == keys[::-1]
    assert len({*keys}) == 2
    twice = [item["key"] for item in written(tmp_path, page_of(tmp_path, first, first))[1]["items"]]
    assert len({*twice}) == 2


def test_an_image_to_label(tmp_path: Path) -> None:
    boxes = [PredictedBox(box=BOX, label="cat", score=0.75)]
    item = ImageToLabel(image=HUGE_ID, boxes=boxes, why="it is unlike all labelled images")
    html, data, pictures = written(tmp_path, page_of(tmp_path, item))
    assert data["items"][0]["boxes"] == [[*BOX, "cat", 0.75]]
    assert data["images"][0]["id"] == str(HUGE_ID)
    assert data["images"][0]["split"] is None
    assert len(pictures) == 1
    assert 'id="by-kind"' not in html


def test_hostile_names_cannot_leave_the_data_block(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--\udcff\u2028"
    item = suspect(evil, label=evil, why=evil, split="train")
    page = replace(page_of(tmp_path, item), classes=[evil], title=evil, subtitle=evil, dataset=evil)
    html, data, _ = written(tmp_path, page)
    assert data["items"][0]["why"] == evil
    assert json.loads(data["images"][0]["id"]) == evil
    assert html.count("<script") == 2 + len(SCRIPTS)  # a picture and the data, and the scripts of the page
    assert "alert(1)</script>" not in html


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    page = page_of(tmp_path, suspect("a.png"))
    assert written(tmp_path, page)[0] == written(tmp_path, page)[0]
