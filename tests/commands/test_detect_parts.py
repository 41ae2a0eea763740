"""`detpipe detect source=... out=DIR.parquet`: rows, continuation, unreadable images, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.commands import detect_parts
from detpipe.commands.stage_settings import Detect
from tests import drawn
from tests.command_line import detpipe
from tests.storage.test_tar_file import tar_of

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """A tar of two good images and one that is cut short."""
    folder = tmp_path / "folder"
    for number in (0, 1):
        drawn.write_jpeg(folder / f"{number}.jpg", drawn.draw(50 + number)[0])
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    path = tmp_path / "pictures.tar"
    path.write_bytes(tar_of({**files, "broken.jpg": files["0.jpg"][:900]}))
    return path


def test_rows_equal_detections_json(run_copy: Path, tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "detections.parquet"
    words = ["detect", *drawn.settings("detect"), f"source={tar}", f"run_dir={run_copy}"]
    assert detpipe(*words).status == 0
    written = json.loads((run_copy / "sources" / "pictures" / "detections.json").read_text())
    monkeypatch.setattr(detect_parts, "PART", 1)
    outcome = detpipe(*words, f"out={out}")
    assert outcome.status == 0, outcome.err
    assert "1 unreadable" in outcome.out + outcome.err
    table = parquet.read_table(out)
    assert table.column_names == ["image_id", "file", "class", "label", "score", "x1", "y1", "x2", "y2"]
    rows = table.to_pylist()
    assert [(one["image_id"], one["file"], one["class"], one["label"]) for one in rows] == [
        (one["image_id"], one["file_name"], one["category"], one["category_id"]) for one in written
    ]
    for row, one in zip(rows, written, strict=True):
        x, y, width, height = one["bbox"]
        assert [row[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(
            [x, y, x + width, y + height], abs=0.02
        )
        assert row["score"] == pytest.approx(one["score"], rel=1e-5)
    assert sorted(path.name for path in out.iterdir()) == ["_manifest.json", "part-00000.parquet", "part-00001.parquet"]
    manifest = json.loads((out / "_manifest.json").read_text())
    assert (manifest["complete"], manifest["images"], manifest["detections"]) == (True, 2, len(rows))
    assert [one["path"] for one in manifest["unreadable"]] == [str(tar / "broken.jpg")]

    # A lost part is made again with the same bytes, and what is there stays.
    parts = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    (out / "part-00001.parquet").unlink()
    outcome = detpipe(*words, f"out={out}")
    assert "1 new" in outcome.out + outcome.err
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == parts

    # Other settings are refused, and overwritten on request.
    outcome = detpipe(*words, f"out={out}", "detect.nms_iou=0.4")
    assert outcome.status != 0
    assert "overwrite=true" in outcome.err
    monkeypatch.undo()
    outcome = detpipe(*words, f"out={out}", "detect.nms_iou=0.4", "overwrite=true")
    assert outcome.status == 0, outcome.err
    assert [path.name for path in out.glob("*.parquet")] == ["part-00000.parquet"]

    # A damaged part is named.
    (out / "part-00000.parquet").write_bytes(b"PAR1")
    outcome = detpipe(*words, f"out={out}", "detect.nms_iou=0.4")
    assert outcome.status != 0
    assert "part-00000.parquet" in outcome.err


def test_without_a_readable_image_nothing_is_kept(run_copy: Path, tmp_path: Path) -> None:
    tar = tmp_path / "empty.tar"
    words = [
        "detect",
        *drawn.settings("detect"),
        f"source={tar}",
        f"run_dir={run_copy}",
        f"out={tmp_path / 'o.parquet'}",
    ]
    tar.write_bytes(tar_of({}))
    assert detpipe(*words).status != 0
    tar.write_bytes(tar_of({"a.jpg": b"none"}))
    outcome = detpipe(*words)
    assert outcome.status != 0
    assert "a.jpg" in outcome.err
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    outcome = detpipe(*words[:-1], f"out={foreign}", "overwrite=true")
    assert outcome.status != 0
    assert (foreign / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "settings", [{"out": "o"}, {"out": "o", "source": "s", "coco": True}, {"out": "o", "source": "s", "boxes": "b"}]
)
def test_settings_that_do_not_go_together(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="out"):
        Detect(**settings)  # type: ignore[arg-type]
