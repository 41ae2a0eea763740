"""`detpipe detect source=FILE.tar`: the detections of the same images in a folder."""

from __future__ import annotations

import json
from pathlib import Path

from detpipe import Detector
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import detpipe
from tests.storage.test_tar_file import tar_of


def test_a_tar_gives_the_detections_of_a_folder(run_copy: Path, tmp_path: Path) -> None:
    folder, tar = tmp_path / "folder", tmp_path / "pictures.tar"
    drawn.write_jpeg(folder / "one.jpg", drawn.draw(50)[0])
    drawn.write_jpeg(folder / "two.jpg", drawn.draw(51)[0])
    (folder / "broken.jpg").write_bytes((folder / "one.jpg").read_bytes()[:900])
    names = ("one.jpg", "two.jpg", "broken.jpg")
    tar.write_bytes(tar_of({name: (folder / name).read_bytes() for name in names}))
    found = {}
    for source, out in ((folder, "folder"), (tar, "pictures")):
        outcome = detpipe("detect", *drawn.settings("detect"), f"source={source}", f"run_dir={run_copy}", "coco=true")
        assert outcome.status == 0, outcome.err
        found[out] = json.loads((run_copy / "sources" / out / "detections.json").read_text())
    assert found["folder"] == found["pictures"] != []
    own = run_copy / "sources" / "pictures"
    assert sorted(path.name for path in (own / "annotated").iterdir()) == ["one.jpg", "two.jpg"]
    assert [one.path for one in read_manifest(own / "detections.json").bad] == [str(tar / "broken.jpg")]
    detector = Detector.from_run(run_copy)
    stream = detector.stream(tar)
    assert [str(one.path) for one in stream] == [str(tar / "one.jpg"), str(tar / "two.jpg")]
    assert len(stream.left_out) == 1
    assert len(detector(tar / "one.jpg")) == len(detector(folder / "one.jpg"))


def test_an_empty_tar_is_refused(run_copy: Path, tmp_path: Path) -> None:
    tar = tmp_path / "empty.tar"
    tar.write_bytes(tar_of({}))
    outcome = detpipe("detect", *drawn.settings("detect"), f"source={tar}", f"run_dir={run_copy}")
    assert outcome.status != 0
    assert "empty.tar" in outcome.err
