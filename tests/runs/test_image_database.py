"""image_database: the classes of a database, and labels that are ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.classify.images.database import ImagesReader
from detpipe.runs.image_database import training_classes
from tests import drawn
from tests.command_line import detpipe


def make_db(folder: Path, labels: tuple[int, ...]) -> tuple[Path, str]:
    """A database of one drawn image for each label, and what make-db says."""
    lines = []
    for number, label in enumerate(labels):
        drawn.write_jpeg(folder / f"{number}.jpg", drawn.draw(number)[0])
        lines.append(f"{number}.jpg {label}")
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    words = (f"list={folder / 'list.txt'}", f"root={folder}", f"out={folder / 'db'}", "resize=8x8", "workers=0")
    outcome = detpipe("make-db", *words)
    assert outcome.status == 0, outcome.err
    return folder / "db", outcome.out + outcome.err


def test_labels_that_are_ids_are_refused_before_a_billion_names_are_made(tmp_path: Path) -> None:
    path, said = make_db(tmp_path, (5, 10**9))
    sentence = "2 labels up to 1,000,000,000: number them from 0"
    assert sentence in said
    with ImagesReader(path) as reader, pytest.raises(ValueError, match=sentence):
        training_classes(reader)
    shown = detpipe("inspect", "db", f"db={path}", f"out={tmp_path / 'page'}")
    assert sentence in shown.out + shown.err


def test_labels_with_few_gaps_are_classes(tmp_path: Path) -> None:
    path, said = make_db(tmp_path, (0, 3))
    assert "number them" not in said
    with ImagesReader(path) as reader:
        assert training_classes(reader) == ("0", "1", "2", "3")
