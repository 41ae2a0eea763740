"""`proposals show` on the drawn data: which images, which files, with and without annotations."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detpipe.commands.proposals.settings import ProposalsShow
from detpipe.commands.proposals.show import run
from detpipe.datasets.image_file import BrokenImageError, read_header, read_image
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.proposals.baselines import Gaussian
from detpipe.structures import Image, ReadOptions
from tests import drawn
from tests.commands.proposals.proposed import propose_all_but, propose_into


def show(voc_root: Path, folder: Path, **settings: object) -> list[str]:
    run(ProposalsShow(run_dir=str(folder), dataset=VocSource(root=str(voc_root)), **settings))  # type: ignore[arg-type]
    return sorted(path.name for path in (folder / "proposals_shown").iterdir())


def test_the_first_images(voc_root: Path, proposed_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = show(voc_root, proposed_copy / "oracle", count=2)
    assert names == ["0001_test_0.jpg", "0002_test_1.jpg", "index.html"]
    assert read_header(proposed_copy / "oracle" / "proposals_shown" / names[0]).image_size == drawn.IMAGE_SIZE
    assert "2 images; 4 of 4 objects found" in caplog.text


def test_named_images_take_the_place_of_earlier_ones(voc_root: Path, proposed_copy: Path) -> None:
    show(voc_root, proposed_copy / "gaussian")
    mine = proposed_copy / "gaussian" / "proposals_shown" / "mine.jpg"
    mine.write_bytes(b"a picture of one's own")
    names = show(voc_root, proposed_copy / "gaussian", images=["train_3", "train_1"], split=Split.train, top=3)
    assert names == ["0001_train_3.jpg", "0002_train_1.jpg", "index.html", "mine.jpg"]
    with pytest.raises(ValueError, match=r"expected ids of .*\(test_0, .*got train_3"):
        show(voc_root, proposed_copy / "gaussian", images=["test_0", "train_3"])


def test_missed_objects_are_counted(
    voc_root: Path,
    proposed_copy: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    # Of the oracle's two boxes only the first may be used: it is one object's.
    show(voc_root, proposed_copy / "oracle", budget=1)
    assert "4 images; 4 of 8 objects found" in caplog.text


def test_without_annotations(voc_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    photos = ImageFolderSource(root=str(voc_root / "JPEGImages"))
    propose_into(tmp_path / "run", photos, Gaussian(max_proposals=5))
    run(ProposalsShow(run_dir=str(tmp_path / "run"), dataset=photos, count=1))
    assert "objects" not in (tmp_path / "run" / "proposals_shown" / "index.html").read_text().split("boxes")[-1]
    assert "1 image ->" in caplog.text


def test_images_without_proposals_or_pixels_are_named(
    voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(path: Path, options: ReadOptions) -> Image:
        if path.stem == "test_2":
            raise BrokenImageError(f"{path}: it has gone")
        return read_image(path, options)

    folder = propose_all_but("test_1", voc_root, tmp_path / "run")
    monkeypatch.setattr("detpipe.commands.proposals.show.read_image", read)
    assert show(voc_root, folder) == ["0001_test_0.jpg", "0004_test_3.jpg", "index.html"]
    assert "test_1.jpg has no proposals" in caplog.text
    assert "test_2.jpg: it has gone" in caplog.text


def test_what_is_refused() -> None:
    for wrong in ({"count": 0}, {"top": -1}, {"budget": 0}, {"min_iou": 0.0}, {"min_iou": 1.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ProposalsShow(**wrong)  # type: ignore[arg-type]
