"""Lines of YOLO's text: boxes and outlines by hand, wrong lines, edits, and files of detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.object_edits import ObjectEdit
from detpipe.datasets.yolo_text import (
    YoloTextError,
    edited_yolo_text,
    parse_yolo_text,
    write_yolo_results,
    yolo_line,
)
from detpipe.structures import Dataset, Detections, ImageRecord


@pytest.mark.parametrize(
    ("line", "shares"),
    [
        ("1 0.5 0.5 0.25 0.5", (0.375, 0.25, 0.25, 0.5)),
        ("1 0.5 0.5 0.25 0.5 0.9", (0.375, 0.25, 0.25, 0.5)),
        ("1.0\t.5 .5  .25 .5 ", (0.375, 0.25, 0.25, 0.5)),
        ("1 0.25 0.5 0.75 0.5 0.5 0.875", (0.25, 0.5, 0.5, 0.375)),
        ("1 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5", (0.25, 0.25, 0.5, 0.25)),
        ("1 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5 0.9", (0.25, 0.25, 0.5, 0.25)),
        ("1 0 0.5 0.5 1", (-0.25, 0.0, 0.5, 1.0)),
    ],
)
def test_a_line(line: str, shares: tuple[float, ...]) -> None:
    (found,) = parse_yolo_text(f"\n{line}\n", 2)
    assert (found.line, found.number, found.shares) == (1, 1, shares)


def test_no_lines_are_no_objects() -> None:
    assert parse_yolo_text("", 2) == parse_yolo_text(" \n\n", 2) == []


def test_keypoints_stand_behind_the_box() -> None:
    line = "0 0.5 0.5 0.25 0.5 0.1 0.2 2 0.3 0.4 1"
    assert parse_yolo_text(line, 1, keypoints=True)[0].shares == (0.375, 0.25, 0.25, 0.5)
    with pytest.raises(YoloTextError, match="got 8 columns"):
        parse_yolo_text("0 0.5 0.5 0.25 0.5 0.1 0.2 2", 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 .5 .5 .1 .1", "0 to 1"),
        ("-1 .5 .5 .1 .1", "from 0, got -1"),
        ("1.5 .5 .5 .1 .1", "whole number"),
        ("cat .5 .5 .1 .1", "class: expected a number"),
        ("1 .5 .5 .1", "got 4 columns"),
        ("1", "got 1 columns"),
        ("1 .5 .5 .1 .1 .1 .1 .1", "got 8 columns"),
        ("1 nan .5 .1 .1", "finite"),
        ("1 .5 .5 inf .1", "finite"),
        ("1 320 240 100 50", "got 320; divide pixels"),
        ("1 .5 -.5 .1 .1", "got -0.5"),
        ("1 .5 .5 -.001 .1", "width"),
        ("1 .5 .5 .1 x", "'x'"),
        ("1 1e999 .5 .1 .1", "finite"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str) -> None:
    with pytest.raises(YoloTextError, match=r"^line 2: ") as caught:
        parse_yolo_text(f"0 .5 .5 .1 .1\n{line}\n", 2)
    assert said in str(caught.value)


def test_without_names_any_class_is_right() -> None:
    assert parse_yolo_text("79 .5 .5 .1 .1", None)[0].number == 79


SIDE = st.integers(1, 4000)


@given(size=st.tuples(SIDE, SIDE), corners=st.tuples(*[st.floats(0, 1, width=32)] * 4))
def test_a_written_box_is_read_back(size: tuple[int, int], corners: tuple[float, ...]) -> None:
    height, width = size
    (x1, x2), (y1, y2) = sorted(corners[0::2]), sorted(corners[1::2])
    box = (x1 * width, y1 * height, x2 * width, y2 * height)
    (found,) = parse_yolo_text(yolo_line(0, box, size), 1)
    x, y, w, h = found.shares
    back = (x * width, y * height, (x + w) * width, (y + h) * height)
    assert back == pytest.approx(box, abs=1e-12 * max(size) + 1e-300)


TEXT = "0 0.5 0.5 0.25 0.5 \n\n1 0.25 0.5 0.75 0.5 0.5 0.875\n"


def test_edits_change_their_lines_only() -> None:
    objects = parse_yolo_text(TEXT, 2)
    names = ["cat", "dog"]

    def edited(*edits: ObjectEdit) -> str:
        return edited_yolo_text(TEXT, objects, edits, names, (100, 200))

    assert edited() == TEXT
    assert edited(ObjectEdit(index=1, name="cat")) == TEXT.replace("1 0.25", "0 0.25")
    assert edited(ObjectEdit(index=0, is_removed=True)) == "\n1 0.25 0.5 0.75 0.5 0.5 0.875\n"
    assert edited(ObjectEdit(index=1, box=(0, 0, 50, 50))) == "0 0.5 0.5 0.25 0.5 \n\n1 0.125 0.25 0.25 0.5\n"
    assert edited(ObjectEdit(name="dog", box=(100, 50, 200, 100))) == TEXT + "1 0.75 0.75 0.5 0.5\n"
    with pytest.raises(ValueError, match="'bird'"):
        edited(ObjectEdit(index=0, name="bird"))


def test_detections_become_text(tmp_path: Path) -> None:
    records = [ImageRecord(name, tmp_path / path, (100, 200)) for name, path in ((1, "a/x.jpg"), (2, "a/y.jpg"))]
    dataset = Dataset("set", ("cat", "big dog"), (1, 2), tuple(records), None, ())
    found = Detections(
        np.array([[0, 0, 50, 50], [100, 50, 200, 100]], np.float32), np.array([0.9, 0.2], np.float32), np.array([2, 1])
    )
    stale = tmp_path / "out" / "labels" / "stale.txt"
    stale.parent.mkdir(parents=True)
    stale.write_text("0 0 0 0 0")
    write_yolo_results(tmp_path / "out", dataset, {1: found}, min_score=0.5)
    assert {path.name for path in stale.parent.iterdir()} == {"x.txt", "y.txt"}
    assert (stale.parent / "x.txt").read_text() == "1 0.125000 0.250000 0.250000 0.500000 0.9\n"
    assert (stale.parent / "y.txt").read_text() == ""
    assert (tmp_path / "out" / "classes.txt").read_text() == "cat\nbig dog\n"


def test_names_of_images_lead_nowhere_else(tmp_path: Path) -> None:
    records = [ImageRecord(name, tmp_path / "in" / name, (10, 10)) for name in ("../x.jpg", "b/../../x.jpg", "x.jpg")]
    dataset = Dataset("set", ("cat",), (1,), tuple(records), None, ())
    write_yolo_results(tmp_path / "out", dataset, {})
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    labels = tmp_path / "out" / "labels"
    assert {path.relative_to(labels).as_posix() for path in labels.rglob("*.txt")} == {"x.txt", "in/x.txt"}
