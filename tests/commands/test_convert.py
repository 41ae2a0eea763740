from __future__ import annotations

import json
from pathlib import Path

import pytest

from detpipe.datasets.auto import recognised_source
from detpipe.datasets.source import Split
from detpipe.storage.links import refuse_links
from tests.command_line import detpipe


def test_a_voc_folder_to_coco(voc_root: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in voc_root.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    outcome = detpipe("convert", f"dataset.root={voc_root}", "to=coco", f"out={out}", "workers=0")
    assert outcome.status == 0
    assert "everything was carried over" in outcome.out
    assert f"read it with dataset.root={out}" in outcome.out
    report = json.loads((out / "conversion.json").read_text())
    assert report["to"] == "coco"
    assert report["source"].startswith("dataset=voc ")
    assert report["images"] == {"train": 10, "test": 4}
    assert report["objects"] == {"train": 20, "test": 8}
    assert report["not_carried_over"] == []
    image = next((out / "train").iterdir())
    assert image.stat().st_nlink > 1
    assert len(recognised_source(out).load(Split.test)) == 4
    assert {path: path.read_bytes() for path in voc_root.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("images", "links"), [("copy", 1), ("none", None)])
def test_images(voc_root: Path, tmp_path: Path, images: str, links: int | None) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is fine
    assert detpipe("convert", f"dataset.root={voc_root}", "to=yolo", f"out={out}", f"images={images}").status == 0
    found = [path.stat().st_nlink for path in out.rglob("*.jpg")]
    assert set(found) == ({links} if links else set())
    assert len(list(out.rglob("labels/*/*.txt"))) == 14
    refuse_links(out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out=new"], "to: "),
        (["to=coco"], "out: "),
        (["to=pascal", "out=new"], "to"),
        (["to=coco", "out={full}"], "which has content"),
        (["to=coco", "out={full}/file"], "which has content"),
        (["to=coco", "out={root}/new"], "outside the data set"),
        (["to=coco", "out={root}"], "which has content"),
    ],
)
def test_what_is_refused(voc_root: Path, tmp_path: Path, words: list[str], message: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    before = sorted(path for path in tmp_path.rglob("*"))
    typed = [word.format(full=full, root=voc_root) for word in words]
    outcome = detpipe("convert", f"dataset.root={voc_root}", *typed)
    assert outcome.status == 1
    assert message in outcome.err
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not Path("new").exists()


def test_too_many_bad_images(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "set/Annotations").mkdir(parents=True)
    for path in sorted((voc_root / "Annotations").iterdir())[:2]:
        (tmp_path / "set/Annotations" / path.name).write_bytes(path.read_bytes())
    outcome = detpipe("convert", f"dataset.root={tmp_path / 'set'}", "to=voc", f"out={tmp_path / 'out'}")
    assert outcome.status == 1
    assert "2 of 2 images can't be used" in outcome.err
    assert "dataset.max_bad" in outcome.err
    assert not (tmp_path / "out").exists()
