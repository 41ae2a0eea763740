"""`inspect run` and `inspect db`: what they write, on whole and on broken things, and that they change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detpipe.classify.images.database import stored_paths
from detpipe.storage.datum import caffe_datum
from detpipe.storage.lmdb_store import LmdbWriter
from tests.command_line import detpipe


def numbers(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Six images of two classes, by make-db."""
    for number in range(6):
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((12, 16, 3), 40 * number, np.uint8))[1].tobytes())
    made = detpipe("make-db", f"root={tmp_path / 'images'}", f"out={tmp_path / 'db'}", "resize=none", "workers=0")
    assert made.status == 0, made.err
    return tmp_path / "db"


def test_a_database(database: Path, tmp_path: Path) -> None:
    before = (database / "data.mdb").read_bytes()
    done = detpipe("inspect", "db", f"db={database}")
    assert done.status == 0, done.err
    out = tmp_path / "inspect_db"
    assert {path.name for path in out.iterdir()} == {
        *("inspect_db.json", "inspect_db.html", "labels.png", "contact_sheet.png", "mean.png"),
    }
    found = numbers(out / "inspect_db.json")
    assert (found["records"], found["unreadable"], found["faults"]) == (6, 0, [])
    assert found["labels"] == {"0": {"name": "cat", "records": 3}, "1": {"name": "dog", "records": 3}}
    assert found["pixels"]["3"]["mean"] == pytest.approx([100.0] * 3)
    assert "cat" in done.out
    assert (database / "data.mdb").read_bytes() == before


def test_a_changed_record_is_a_fault_after_everything_is_written(database: Path, tmp_path: Path) -> None:
    (folder,) = stored_paths(database)
    with LmdbWriter(folder) as writer:
        writer.put(b"99999999_new", caffe_datum(np.zeros((12, 16, 3), np.uint8), 0).SerializeToString())
        writer.put(b"99999999_worse", b"nothing")
    done = detpipe("inspect", "db", f"db={database}", f"out={tmp_path / 'out'}", "sample=0")
    assert done.status == 1
    assert "record 99999999_worse" in done.err
    found = numbers(tmp_path / "out/inspect_db.json")
    assert (found["records"], found["unreadable"]) == (7, 1)
    assert [fault["where"] for fault in found["faults"]] == ["record 99999999_worse", "manifest"]
    assert not (tmp_path / "out/contact_sheet.png").exists()


def test_no_database_is_one_sentence(tmp_path: Path) -> None:
    assert "give db=DB" in detpipe("inspect", "db").err
    assert "run make-db" in detpipe("inspect", "db", f"db={tmp_path}").err


def test_caffes_own_databases(shared_data: Path, tmp_path: Path) -> None:
    folder = next(path.parent for path in sorted((shared_data / "caffe/datum_lmdb_sujack1").rglob("data.mdb")))
    done = detpipe("inspect", "db", f"db={folder}", f"out={tmp_path}")
    assert done.status == 0, done.err
    found = numbers(tmp_path / "inspect_db.json")
    assert found["kinds"] == {"raw": found["records"]}
    assert found["sizes"] == [{"height": 256, "width": 256, "channels": 3, "records": found["records"]}]


def test_a_training_that_still_goes_on(tmp_path: Path) -> None:
    classifier = tmp_path / "classifier"
    (classifier / "snapshots").mkdir(parents=True)
    (classifier / "snapshots/iter_0000002.pt").write_bytes(b"12345")
    rows = [{"iteration": n, "lr": 0.1, "loss": 3.0 - n, "examples_per_second": 9.0, "waiting": 0.01} for n in (1, 2)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"iteration": 3, "lo'
    (classifier / "log.jsonl").write_text(text)
    done = detpipe("inspect", "run", f"run_dir={tmp_path}")
    assert done.status == 0, done.err
    found = numbers(tmp_path / "inspect_run.json")
    assert found["iterations"] == 2
    assert found["waiting"] == 0.01
    assert found["numbers"]["loss"]["best"] == {"iteration": 2, "value": 1.0}
    assert found["snapshots"] == [{"name": "iter_0000002.pt", "size": 5}]
    assert (classifier / "log.jsonl").read_text() == text
    assert (tmp_path / "inspect_run.png").read_bytes()[:4] == b"\x89PNG"
    assert "loss" in (tmp_path / "inspect_run.html").read_text()


def test_no_training_is_one_sentence(tmp_path: Path) -> None:
    done = detpipe("inspect", "run", f"run_dir={tmp_path}")
    assert done.status == 1
    assert "expected a run folder with a training" in done.err
