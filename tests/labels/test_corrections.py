"""Tests of corrections.json: what each action needs, reading and writing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.labels.corrections import Action, Correction, Corrections, read_corrections, write_corrections
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError
from detpipe.storage.input_file import InputFileError

BOX = (1.0, 2.0, 30.5, 40.0)


def test_corrections_come_back_as_they_were_written(tmp_path: Path) -> None:
    given = Corrections(
        dataset="abc",
        corrections=[
            Correction(image="a", action=Action.add, box=BOX, label="cat"),
            Correction(image=7, action=Action.change, object=2, label="dog", split="train"),
            Correction(image=7, action=Action.remove, object=0, id="1234"),
        ],
    )
    write_corrections(tmp_path / "corrections.json", given)
    assert read_corrections(tmp_path / "corrections.json") == given


def test_no_corrections(tmp_path: Path) -> None:
    write_corrections(tmp_path / "corrections.json", Corrections(dataset="abc", corrections=[]))
    assert read_corrections(tmp_path / "corrections.json").corrections == []


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"image": "a", "action": "add", "label": "cat"}, "box"),
        ({"image": "a", "action": "add", "box": BOX}, "label"),
        ({"image": "a", "action": "remove"}, "object"),
        ({"image": "a", "action": "remove", "object": -1}, "object"),
        ({"image": "a", "action": "change", "object": 0}, "label"),
        ({"image": "a", "action": "change", "object": 0, "box": [5, 5, 5, 9]}, "x1 < x2"),
        ({"image": "a", "action": "change", "object": 0, "box": [float("nan"), 5, 9, 9]}, "x1 < x2"),
        ({"image": "a", "action": "paint", "object": 0}, "expected one of add, remove, change, got 'paint'"),
        ({"image": "a", "action": "remove", "object": 0, "colour": "red"}, "colour"),
        ({"action": "remove", "object": 0}, "image"),
    ],
)
def test_a_wrong_correction_is_named_with_its_file(tmp_path: Path, row: dict[str, object], named: str) -> None:
    path = tmp_path / "corrections.json"
    path.write_text(json.dumps({"dataset": "abc", "corrections": [row]}))
    with pytest.raises(DataclassJsonError, match=r"corrections\.json") as caught:
        read_corrections(path)
    assert named in str(caught.value)
    assert str(caught.value).endswith("docs/labels.md)")


def test_another_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "corrections.json"
    write_json(path, [1, 2])
    with pytest.raises(DataclassJsonError, match=r"corrections\.json.*detpipe labels audit"):
        read_corrections(path)
    path.write_text("<html>")
    with pytest.raises(InputFileError, match=r"corrections\.json"):
        read_corrections(path)
