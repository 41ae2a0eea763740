"""`detpipe labels next` on the drawn runs: what is chosen, what is left out, and the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands.labels.next import warn_if_weak
from detpipe.commands.labels.next_settings import LabelsNext
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.labels.corrections import Action, Correction, Corrections, write_corrections
from detpipe.labels.next_images import read_next
from detpipe.runs.operating_point import KeptOperatingPoint, keep_operating_point
from tests import drawn
from tests.command_line import Outcome, detpipe


@pytest.fixture
def photos(tmp_path: Path, voc_root: Path) -> Path:
    """Eight new images (one in a subfolder), one that the data set has, a copy of a new one, and a broken one."""
    folder = tmp_path / "photos"
    for number in range(100, 108):
        drawn.write_jpeg(folder / ("sub" if number == 107 else "") / f"new_{number}.jpg", drawn.draw(number)[0])
    shutil.copy(voc_root / "JPEGImages" / "train_0.jpg", folder / "known.jpg")
    shutil.copy(folder / "new_100.jpg", folder / "twin.jpg")
    (folder / "broken.jpg").write_bytes((folder / "new_101.jpg").read_bytes()[:900])
    return folder


def choose(root: Path, folder: Path, photos: Path, *more: str) -> Outcome:
    return detpipe("labels", "next", str(photos), f"run_dir={folder}", *drawn.voc(root), "device=cpu", *more)


@pytest.mark.parametrize("kind", ["finished_run", pytest.param("fast_run", marks=pytest.mark.slow)])
def test_images_of_a_folder(
    kind: str, voc_root: Path, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = drawn.copy(request.getfixturevalue(kind), tmp_path / "run")
    outcome = choose(voc_root, folder, photos, "count=5", "draw_score=0")
    assert outcome.status == 0, outcome.err
    content = read_next(folder / "next.json")
    assert (content.candidates, len(content.images)) == (8, 5)
    assert content.known == ["known.jpg", "twin.jpg"]
    assert [Path(line.split(": ")[0]).name for line in content.unreadable] == ["broken.jpg"]
    assert "broken.jpg" in outcome.err
    assert sum(one.random for one in content.images) == 1
    assert all(one.why for one in content.images)
    assert any(one.boxes for one in content.images)
    assert len({one.file for one in content.images}) == 5
    page = (folder / "next.html").read_text("utf-8")
    for one in content.images:
        assert Path(one.file).name in page
    assert content.dataset in page
    first = (folder / "next.json").read_bytes()
    assert choose(voc_root, folder, photos, "count=5", "draw_score=0").status == 0
    assert (folder / "next.json").read_bytes() == first


def test_more_than_there_are_and_only_at_random(voc_root: Path, photos: Path, run_copy: Path) -> None:
    shares = "shares={uncertain: 0, disagreement: 0, different: 0, random: 1}"
    outcome = choose(voc_root, run_copy, photos, "count=50", shares, "draw_score=1")
    assert outcome.status == 0, outcome.err
    content: dict[str, Any] = json.loads((run_copy / "next.json").read_text())
    assert len(content["images"]) == 8
    assert {one["criterion"] for one in content["images"]} == {"random"}
    assert "sub/new_107.jpg" in {one["file"] for one in content["images"]}
    assert all(one["boxes"] == [] for one in content["images"])


def test_what_is_refused(voc_root: Path, run_copy: Path, tmp_path: Path) -> None:
    for wrong in ({"count": 0}, {"draw_score": 2}, {"max_pixels": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LabelsNext(**wrong)  # type: ignore[arg-type]
    nothing = detpipe("labels", "next", f"run_dir={run_copy}", *drawn.voc(voc_root))
    assert (nothing.status, "source=FOLDER" in nothing.err) == (1, True)
    known = choose(voc_root, run_copy, voc_root / "JPEGImages")
    assert known.status == 1
    assert "14 are in the data set" in known.err
    missing = choose(voc_root, run_copy, tmp_path / "nowhere")
    assert (missing.status, "nowhere" in missing.err) == (1, True)
    other = choose(voc_root, run_copy, voc_root / "JPEGImages", "dataset.classes=[disc]")
    assert other.status == 1
    assert "classes" in other.err
    assert not (run_copy / "next.json").exists()


def test_accepted_boxes_become_training_images(voc_root: Path, photos: Path, run_copy: Path, tmp_path: Path) -> None:
    """What the page saves for accepted images: rows without a split, whose image is the file's name in the source."""
    assert choose(voc_root, run_copy, photos, "count=3", "draw_score=0").status == 0
    content = read_next(run_copy / "next.json")
    accepted = [one for one in content.images if one.boxes]
    rows = [
        Correction(image=one.file, action=Action.add, box=one.boxes[0].box, label=one.boxes[0].label)
        for one in accepted
    ]
    write_corrections(tmp_path / "corrections.json", Corrections(dataset=content.dataset, corrections=rows))
    applied = detpipe(
        "labels",
        "apply",
        str(tmp_path / "corrections.json"),
        f"run_dir={run_copy}",
        *drawn.voc(voc_root),
        f"source={photos}",
        f"out={tmp_path / 'more'}",
    )
    assert applied.status == 0, applied.err
    names = {record.path.name for record in VocSource(root=str(tmp_path / "more")).load(Split.train).records}
    assert len(names) == len(drawn.TRAIN) + len(accepted)
    assert {Path(one.file).name for one in accepted} <= names


def test_an_image_without_objects_is_not_chosen_again(
    voc_root: Path, photos: Path, run_copy: Path, tmp_path: Path
) -> None:
    assert choose(voc_root, run_copy, photos, "count=1").status == 0
    content = read_next(run_copy / "next.json")
    file = tmp_path / "corrections.json"
    write_corrections(file, Corrections(dataset=content.dataset, corrections=[], reviewed=[content.images[0].file]))
    out = tmp_path / "more"
    words = ("labels", "apply", str(file), f"run_dir={run_copy}", *drawn.voc(voc_root), f"out={out}")
    refused = detpipe(*words)
    assert refused.status == 1
    assert "source=FOLDER" in refused.err
    applied = detpipe(*words, f"source={photos}")
    assert applied.status == 0, applied.err
    assert "1 new image for training" in applied.out
    assert not VocSource(root=str(out)).entries(Split.train)[-1].objects
    assert choose(out, run_copy, photos, "count=8").status == 0
    again = read_next(run_copy / "next.json")
    assert content.images[0].file in again.known
    assert (again.candidates, len(again.images)) == (7, 7)


@pytest.mark.parametrize(("precision", "recall", "is_warned"), [(0.5, 0.1, True), (0.0, 0.0, True), (0.8, 0.8, False)])
def test_a_weak_detector_is_told_that_selection_does_not_help(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, precision: float, recall: float, is_warned: bool
) -> None:
    (tmp_path / "classifier.json").write_text("{}")
    point = KeptOperatingPoint(score=0.5, precision=precision, recall=recall, measured_on="drawn test", images=3)
    keep_operating_point(tmp_path, point)
    warn_if_weak(tmp_path)
    assert ("shares.random=1" in caplog.text) == is_warned


def test_a_detector_that_was_not_evaluated_has_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_weak(tmp_path)
    assert not caplog.text
