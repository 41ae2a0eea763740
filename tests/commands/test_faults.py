"""Broken inputs: each one named and counted, none fatal below max_bad, fatal above it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import Outcome, detpipe

FAULTS = {
    "truncated_image": "train_0.jpg",
    "wrong_extension": "train_1.jpg",
    "alpha_channel": "train_2.jpg",
    "zero_area_box": "train_3.xml",
    "missing_annotation": "train_4.jpg",
}
"""What is done to the data set: kind of finding -> file. The first and the last make an image unusable."""


@pytest.fixture(scope="module")
def faulty(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = drawn.copy(voc_root, tmp_path_factory.mktemp("faulty") / "drawn")
    images, annotations = root / "JPEGImages", root / "Annotations"
    cut = images / "train_0.jpg"
    cut.write_bytes(cut.read_bytes()[:-900])
    pixels = drawn.draw(1)[0]
    (images / "train_1.jpg").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    rgba = np.dstack([drawn.draw(2)[0], np.full(drawn.IMAGE_SIZE, 200, np.uint8)])
    (images / "train_2.jpg").write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
    click = (
        "<object><name>disc</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    )
    xml = annotations / "train_3.xml"
    xml.write_text(xml.read_text().replace("</annotation>", f"{click}</annotation>"))
    (annotations / "train_4.xml").unlink()
    return root


def run(command: str, root: Path, folder: Path, *more: str) -> Outcome:
    return detpipe(command, *drawn.voc(root), *drawn.settings(command, *more), f"run_dir={folder}")


def test_the_run_goes_on_below_max_bad(faulty: Path, tmp_path: Path) -> None:
    outcome = run("run", faulty, tmp_path, "dataset.max_bad=0.2")
    assert outcome.status == 0, outcome.err
    check = json.loads((tmp_path / "check.json").read_text())
    found = {one["kind"]: Path(one["file"]).name for one in check["findings"]}
    # Both of them PNG in .jpg, so the last one found stands here.
    assert found == {**FAULTS, "wrong_extension": "train_2.jpg"}
    assert check["counts"] == {**dict.fromkeys(FAULTS, 1), "wrong_extension": 2}
    assert all(one["severity"] in ("error", "warning", "info") and one["detail"] for one in check["findings"])
    for kind in ("truncated_image", "missing_annotation", "zero_area_box"):
        assert FAULTS[kind] in outcome.err  # named on the terminal, too
    bad = read_manifest(tmp_path / "proposals.lmdb").bad
    assert [Path(one.path).name for one in bad] == ["train_0.jpg", "train_4.jpg"]
    assert read_manifest(tmp_path / "proposals.lmdb").summary["images"] == 12
    crops = [read_manifest(tmp_path / name).summary["images"] for name in ("crops.lmdb", "crops_val.lmdb")]
    assert sum(crops) == 8


def test_above_max_bad_it_fails_with_a_sentence(faulty: Path, tmp_path: Path) -> None:
    outcome = run("run", faulty, tmp_path, "dataset.max_bad=0.1")
    assert outcome.status == 1
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("detpipe run: ")
    assert "2 of 10 images can't be used" in last
    assert "train_0.jpg" in last
    assert "max_bad=0.1" in last
    assert "Traceback" not in outcome.err
    assert (tmp_path / "check.json").is_file()
    assert not (tmp_path / "proposals.lmdb").exists()


def test_pixels_that_turn_out_bad(voc_root: Path, tmp_path: Path) -> None:
    """A PNG whose header and end are sound: only the decoder finds out, in `propose`, which holds max_bad too."""
    root = drawn.copy(voc_root, tmp_path / "drawn")
    file = root / "JPEGImages" / "train_5.jpg"
    data = bytearray(cv2.imencode(".png", drawn.draw(5)[0])[1].tobytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 2000] = bytes(2000)
    file.write_bytes(bytes(data))
    outcome = run("run", root, tmp_path / "strict")
    assert outcome.status == 1
    assert "1 of 14 images can't be read, more than dataset.max_bad=0.01" in outcome.err
    assert str(file) in outcome.err
    outcome = run("run", root, tmp_path / "run", "dataset.max_bad=0.1")
    assert outcome.status == 0, outcome.err
    (bad,) = read_manifest(tmp_path / "run" / "proposals.lmdb").bad
    assert (bad.path, bad.key) == (str(file), "train/train_5")
    assert bad.reason.startswith("expected an image file")
    crops = [read_manifest(tmp_path / "run" / name).summary["images"] for name in ("crops.lmdb", "crops_val.lmdb")]
    assert sum(crops) == 9


@pytest.mark.parametrize(("fail_on", "status"), [("error", 1), ("warning", 1), ("never", 0)])
def test_check_fails_as_it_is_told(faulty: Path, tmp_path: Path, fail_on: str, status: int) -> None:
    outcome = run("check", faulty, tmp_path, f"fail_on={fail_on}")
    assert outcome.status == status
    check = json.loads((tmp_path / "check.json").read_text())
    assert set(check) == {"findings", "counts"}
    for kind, file in FAULTS.items():
        assert kind in check["counts"]
        assert file in outcome.out
    if status:
        assert f"at or above fail_on={fail_on}" in outcome.err.splitlines()[-1]


def test_warnings_alone_pass_by_default(voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "drawn")
    xml = root / "Annotations" / "train_3.xml"
    xml.write_text(xml.read_text().replace("<width>160</width>", "<width>0</width>"))
    assert run("check", root, tmp_path / "run").status == 0
    assert json.loads((tmp_path / "run" / "check.json").read_text())["counts"] == {"size_mismatch": 1}
    assert run("check", root, tmp_path / "run", "fail_on=warning").status == 1


def test_a_sound_data_set(voc_root: Path, tmp_path: Path) -> None:
    outcome = run("check", voc_root, tmp_path, "fail_on=warning")
    assert outcome.status == 0
    assert "nothing found" in outcome.out
    assert "train: 10 images; objects: disc 10, square 10" in outcome.out


def test_a_damaged_crop_is_found(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = drawn.copy(finished_run, tmp_path / "run")
    assert "are valid" in run("crop", voc_root, folder, "verify=true").out
    file = folder / "crops.lmdb" / "data.mdb"
    data = file.read_bytes()
    jpeg = data[data.index(b"\xff\xd8\xff\xe0") :][:900]
    spoilt = jpeg[:800] + bytes(value ^ 255 for value in jpeg[800:])
    file.write_bytes(data.replace(jpeg, spoilt))  # LMDB leaves copies of records in pages that it split
    outcome = run("crop", voc_root, folder, "verify=true")
    assert outcome.status == 1
    assert f"{folder / 'crops.lmdb'}, record " in outcome.err


def test_a_file_name_that_is_no_utf8(finished_run: Path, voc_root: Path, tmp_path: Path) -> None:
    """It passes through every file that names images, the log of what is left out included."""
    photos, run_dir = tmp_path / "photos", drawn.copy(finished_run, tmp_path / "run")
    photos.mkdir()
    try:
        data = (voc_root / "JPEGImages" / "test_0.jpg").read_bytes()
        (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(data)
        (photos / os.fsdecode(b"broken\xe9.jpg")).write_bytes(data[:900])
    except OSError:
        pytest.skip("the file system wants UTF-8")
    proposed = detpipe(
        "propose", "dataset=images", f"dataset.root={photos}", "dataset.max_bad=1", "proposals=uniform",
        "workers=0", f"run_dir={tmp_path / 'proposed'}",
    )  # fmt: skip
    assert proposed.status == 0, proposed.err
    found = detpipe("detect", *drawn.settings("detect"), f"source={photos}", "voc_results=true", f"run_dir={run_dir}")
    assert found.status == 0, found.err
    assert "Logging error" not in found.err
    assert r"broken\udce9.jpg" in (run_dir / "detpipe.log").read_text()
    own = run_dir / "sources" / "photos"
    assert {one["file_name"] for one in json.loads((own / "detections.json").read_text())} == {"caf\udce9.jpg"}
    assert "caf\N{REPLACEMENT CHARACTER}.jpg," in (own / "detections.csv").read_text("utf-8")
    assert [os.fsencode(path.name) for path in (own / "annotated").iterdir()] == [b"caf\xe9.jpg"]
    assert (own / "voc_results" / "comp4_det_test_disc.txt").read_bytes().startswith(b"caf\xe9 ")
