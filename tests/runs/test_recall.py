"""recall.json as the report reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.runs.recall import read_recall
from detpipe.storage.dataclass_json import DataclassJsonError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recall.json"
    path.write_text('{"10": {"recall@0.5": 0.5, "ar": null}}')
    assert read_recall(path) == {"10": {"recall@0.5": 0.5, "ar": None}}


@pytest.mark.parametrize("content", [[], None, {"10": None}, {"10": {"ar": "x"}}, {"ten": {"ar": 1.0}}, {"10": [1]}])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: object) -> None:
    path = tmp_path / "recall.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataclassJsonError, match=r"recall\.json.*run `detpipe propose` again"):
        read_recall(path)
