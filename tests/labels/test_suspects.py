"""Tests of audit.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.labels.corrections import Action
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind, read_audit, write_audit
from detpipe.storage.dataclass_json import DataclassJsonError

SUSPECT = Suspect(
    image=12,
    split="train",
    kind=SuspectKind.misplaced,
    score=0.75,
    object=3,
    box=(1.0, 2.0, 3.5, 4.0),
    label="cat",
    suggestion=Suggestion(action=Action.change, label="cat", box=(1.0, 2.0, 5.0, 4.0)),
    why="the model's box is wider",
)


def test_suspects_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.json", "abc", [SUSPECT])
    content = json.loads((tmp_path / "audit.json").read_text())
    first = content["suspects"][0]
    assert (first["image"], first["kind"], first["box"]) == (12, "misplaced", [1.0, 2.0, 3.5, 4.0])
    assert read_audit(tmp_path / "audit.json").suspects == [SUSPECT]


def test_no_suspects(tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.json", "abc", [])
    assert read_audit(tmp_path / "audit.json").suspects == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_audit(tmp_path / "audit.json", "abc", [SUSPECT])
    text = (tmp_path / "audit.json").read_text().replace("0.75", "7.5")
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(DataclassJsonError, match=r"audit\.json.*score.*detpipe labels audit"):
        read_audit(tmp_path / "audit.json")
