"""next.json is read as it was written, and a wrong one is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detpipe.labels.next_images import DrawnBox, NextFile, NextImage, NextScores, read_next, write_next
from detpipe.labels.selection import Criterion
from detpipe.storage.dataclass_json import DataclassJsonError

IMAGE = NextImage(
    file="a/b.jpg",
    criterion=Criterion.random,
    random=True,
    why="At random.",
    scores=NextScores(uncertain=0.5, disagreement=0.25, distance=None),
    boxes=[DrawnBox(box=(1.0, 2.0, 3.5, 4.0), label="cat", score=0.5)],
)
CONTENT = NextFile(
    dataset="abc",
    source="/photos",
    classes=["cat"],
    threshold=0.4,
    draw_score=0.2,
    candidates=3,
    known=["c.jpg"],
    unreadable=[],
    images=[IMAGE],
)


@pytest.mark.parametrize("content", [CONTENT, replace(CONTENT, images=[])])
def test_it_is_read_as_it_was_written(content: NextFile, tmp_path: Path) -> None:
    write_next(tmp_path / "next.json", content)
    assert read_next(tmp_path / "next.json") == content


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "next.json").write_text('{"images": 3}')
    with pytest.raises(DataclassJsonError, match=r"next\.json.*labels next"):
        read_next(tmp_path / "next.json")
    with pytest.raises(ValueError, match="x1 < x2"):
        DrawnBox(box=(1, 1, 1, 2), label="cat", score=0.5)
