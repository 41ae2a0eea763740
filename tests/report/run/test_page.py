"""The page: every section with and without data, hostile names, its size, and that nothing leaves the file."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.metrics.evaluate import evaluate
from detpipe.report.run.gallery import evenly
from detpipe.report.run.page import ReportData, render, write_report
from detpipe.structures import Dataset, Detections, GroundTruth, ImageRecord, LeftOut
from detpipe.taxonomy.level_accuracy import Level, LevelAccuracy
from tests.report.own_scripts import without_own_scripts

EVIL = '<script>alert("1")</script>\'&<img src=x onerror=alert(1)>'
EVIL_FILE = "<script>alert(1)<&'\"><img src=x onerror=y>.jpg".replace("/", "")
VOID = {"meta", "img", "br", "link", "input", "use", "path"}


class Reader(html.parser.HTMLParser):
    """Collects what a browser would see: tags with their attributes and the text; checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def make(folder: Path, names: list[str], classes: tuple[str, ...] = ("cat", "dog"), side: int = 80) -> Dataset:
    """Images of noise, each with a cat and a dog."""
    noise = np.random.default_rng(0)
    records = []
    for name in names:
        done, data = cv2.imencode(".jpg", noise.integers(0, 255, (side, side, 3), np.uint8))
        assert done
        (folder / name).write_bytes(data.tobytes())
        records.append(ImageRecord(name, folder / name, (side, side)))
    boxes = [[5, 5, side / 2, side / 2], [side / 2, 10, side - 5, side - 5]]
    return Dataset(
        name="drawn test",
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),
        records=tuple(records),
        ground_truth={name: GroundTruth.from_boxes(boxes, [1, 2]) for name in names},
    )


def full(dataset: Dataset) -> ReportData:
    first = dataset.records[0].image_id
    detections = {first: found([[5, 5, 40, 40], [60, 60, 79, 79]], [0.9, 0.8], [1, 2])}
    numbers = {"recall@0.5": 0.9, "recall@0.7": 0.6, "abo": 0.7, "mabo": 0.7, "ar": 0.5}
    return ReportData(
        title="A run",
        dataset=dataset,
        detections=detections,
        metrics=evaluate(dataset, detections),
        recall={"10": numbers, "100": numbers},
        log_rows=[{"iteration": 20, "loss": 1.0}, {"iteration": 40, "loss": 0.5, "val_accuracy": 0.8}],
        settings={"seed": 3, "solver": {"lr": {"policy": "step"}, "steps": [10, 20]}},
        seconds={"propose": 3.5, "detect": 80.0},
        check_counts={"duplicate image": 4},
    )


def test_every_section_stands_in_the_page(tmp_path: Path):
    data = replace(full(make(tmp_path, ["a.jpg", "b.jpg"])), min_score=0.5)
    write_report(tmp_path / "out" / "report.html", data)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    reader = read(page)
    text = " ".join(reader.words)
    for wanted in (
        "A run",
        "drawn test",
        "2 of 2 images",
        "solver.lr.policy",
        "10, 20",
        "duplicate image",
        "1 min 24 s",
        "Best F1",
    ):
        assert wanted in text, wanted
    assert "1 of 2 found, 1 wrong" in text
    assert sum(tag == "svg" for tag, _ in reader.tags) == 4
    # Two images, one false positive, three missed objects.
    assert sum(tag == "img" for tag, _ in reader.tags) == 2 + 1 + 3
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    ids = [attributes.get("id") for tag, attributes in reader.tags if tag == "section"]
    assert links == [f"#{name}" for name in ids]


def test_nothing_leaves_the_file(tmp_path: Path):
    reader = read(without_own_scripts(render(full(make(tmp_path, ["a.jpg"])))))
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert value is not None
                assert value.startswith(("data:image/jpeg;base64,", "#"))


def test_hostile_names_stay_text(tmp_path: Path):
    dataset = make(tmp_path, [EVIL_FILE.replace("<img", "<b")], classes=(EVIL, "$dog_{"))
    first = dataset.records[0].image_id
    data = replace(
        full(dataset),
        title=EVIL,
        # Each class where the other one is: the reasons under the crops name classes, too.
        detections={first: found([[5, 5, 40, 40], [60, 60, 79, 79]], [0.9, 0.8], [2, 1])},
        settings={EVIL: {EVIL: EVIL}, "evil": [EVIL]},
        seconds={EVIL: 1.0},
        check_counts={EVIL: 1},
    )
    data = replace(data, dataset=replace(dataset, name=EVIL, bad=(LeftOut(EVIL, "broken"),)))
    page = without_own_scripts(render(data))
    reader = read(page)
    assert not re.search(r"<script|<img src=x|<b>\.jpg", page)
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script"})
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert " ".join(reader.words).count('<script>alert("1")</script>') > 8


def test_the_accuracy_at_each_level_of_a_class_tree(tmp_path: Path):
    assert "Class tree" not in render(full(make(tmp_path, ["a.jpg"])))
    levels = (Level("species", 4, 8, 6, 7, 5), Level("family", 2, 8, 8, 1, 1))
    data = replace(full(make(tmp_path, ["a.jpg"])), levels=LevelAccuracy(9, 8, 0.5, 0.65, levels))
    text = " ".join(" ".join(read(render(data)).words).split())
    assert "Class tree" in text
    assert "species 4 8 6 0.750 7 5" in text
    assert "8 of 9 objects" in text


def test_a_page_without_anything_says_so():
    empty = Dataset("bare folder", (), (), (), None)
    reader = read(render(ReportData(title="Empty", dataset=empty, detections={})))
    text = " ".join(reader.words)
    for sentence in (
        "The images have no annotations",
        "There are no images to show.",
        "There are no annotations.",
        "There are no annotated objects",
        "Without annotations, errors are unknown.",
        "No recall of proposals was measured.",
        "No training log.",
        "No stage was timed.",
        "The data was not checked.",
        "No settings were recorded.",
    ):
        assert sentence in text


def test_images_without_annotations_show_their_detections(tmp_path: Path):
    dataset = replace(make(tmp_path, ["a.jpg"]), ground_truth=None)
    detections = {"a.jpg": found([[5, 5, 40, 40]], [0.9], [1])}
    page = render(ReportData(title="Folder", dataset=dataset, detections=detections))
    assert "at least 0.50" in page
    assert page.count("<img") == 1


def test_nothing_found_is_said(tmp_path: Path):
    dataset = make(tmp_path, ["a.jpg"])
    page = render(ReportData(title="Bad", dataset=dataset, detections={}, metrics=evaluate(dataset, {})))
    assert "No detection is correct" in page
    assert "No detection is wrong." in page


def test_a_picture_that_has_gone_is_named_and_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    dataset = make(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.jpg").write_bytes(b"no image")
    page = render(full(dataset))
    assert "Unreadable files: a.jpg, b.jpg." in page
    assert "a.jpg" in caplog.text
    assert page.count("<img") == 0


def test_a_set_score_decides_what_is_drawn(tmp_path: Path):
    data = replace(full(make(tmp_path, ["a.jpg"])), min_score=0.85)
    page = render(data)
    assert "at least 0.85 (as set)" in page
    assert "No detection is wrong." in page


def test_the_page_of_the_worst_images_stays_small(tmp_path: Path):
    names = [f"{i}.jpg" for i in range(30)]
    dataset = make(tmp_path, names, side=500)
    detections = {name: found([[100, 100, 400, 400]], [0.9], [1]) for name in names}
    data = ReportData(title="Noise", dataset=dataset, detections=detections, metrics=evaluate(dataset, detections))
    page = render(data)
    assert page.count("<img") == 24 + 12 + 12
    assert len(page) < 8_000_000


def test_boxes_at_and_beyond_the_edge_are_no_error(tmp_path: Path):
    dataset = make(tmp_path, ["a.jpg"])
    outside = {
        "a.jpg": found([[-30, -30, 200, 200], [500, 500, 600, 600], [79, 79, 80, 80]], [0.9, 0.8, 0.7], [1, 1, 1])
    }
    read(render(ReportData(title="Edge", dataset=dataset, detections=outside, metrics=evaluate(dataset, outside))))


def test_many_bad_images_are_counted_and_some_named():
    dataset = Dataset("d", (), (), (), None, bad=tuple(LeftOut(f"{i}.jpg", "truncated") for i in range(50)))
    page = render(ReportData(title="Bad", dataset=dataset, detections={}, check_counts={}))
    assert "50 images left out" in page
    assert "19.jpg: truncated" in page
    assert "20.jpg: truncated" not in page
    assert "and 30 more" in page
    assert "found no faults" in page


def test_settings_of_every_plain_kind():
    class Policy(Enum):
        STEP = "step"

    empty = Dataset("d", (), (), (), None)
    settings = {"policy": Policy.STEP, "none": None, "empty": {}, "list": [], "path": Path("x") / "y", "flag": True}
    text = " ".join(read(render(ReportData(title="S", dataset=empty, detections={}, settings=settings))).words)
    for wanted in ("policy step", "none none", "empty none", "list none", "path x/y", "flag True"):
        assert wanted in text


def test_images_are_spread_evenly():
    records = [ImageRecord(i, Path("x"), (1, 1)) for i in range(10)]
    assert [record.image_id for record in evenly(records, 4)] == [0, 3, 6, 9]
    assert [record.image_id for record in evenly(records[:2], 4)] == [0, 1]
    assert [record.image_id for record in evenly(records, 1)] == [0]
