"""The page of a diagnosis: its counts add up, and each error has a picture with its facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.causes import Cause
from detpipe.diagnosis.diagnose import Inputs, OtherRun, diagnose, find_errors
from detpipe.diagnosis.oracles import Scene
from detpipe.report.blame_page import EXAMPLES, BlamePage, render, stages, write_blame_page
from detpipe.report.drawing import image_to_png
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, SHORT, found, objects, traced
from tests.report.run.test_page import EVIL, read

TRACES: dict[ImageId, list[ObjectTrace]] = {
    "found": [traced(score=0.9, by=0)],
    "background": [traced(score=0.1, scores={0: 0.8, CAT: 0.1}, fate="below_floor")],
    "nothing": [traced(proposal_iou=0.2, iou=0.2)],
    "nms": [traced(score=0.8, scores={CAT: 0.8}, fate="nms", by=0)],
}
FOUND = {
    "found": found((0.9, BOX, CAT), (0.8, FAR, DOG)),
    "background": found((0.6, FAR, DOG)),
    "nothing": found(),
    "nms": found((0.9, SHORT, CAT)),
}


def dataset(folder: Path, images: Sequence[ImageId], classes: Sequence[str] = CLASSES) -> Dataset:
    """Grey images with a cat in the corner."""
    records = []
    for number, name in enumerate(images):
        path = folder / f"{number}.png"
        path.write_bytes(image_to_png(np.full((120, 120, 3), 128, np.uint8)))
        records.append(ImageRecord(name, path, (120, 120)))
    truth: dict[ImageId, GroundTruth] = {name: objects((BOX, CAT)) for name in images}
    return Dataset(
        name="drawn",
        classes=tuple(classes),
        category_ids=tuple(range(1, len(classes) + 1)),
        records=tuple(records),
        ground_truth=truth,
    )


def blamed(
    images: Dataset,
    detections: Mapping[ImageId, Detections],
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None,
    *,
    against: bool = False,
) -> BlamePage:
    truth = images.measured_truth
    assert truth is not None
    scene = Scene(truth, detections)
    errors = find_errors(scene, images.classes, threshold=0.5, traces=traces, proposals=None)
    inputs = Inputs(
        dataset=images.name,
        classes=images.classes,
        scene=scene,
        threshold=0.5,
        threshold_why="a test",
        run_dir="run",
        second_opinion="Nobody was asked.",
        traces=traces,
    )
    nothing = {image_id: found() for image_id in truth}
    lost = find_errors(Scene(truth, nothing), images.classes, threshold=0.5, traces=None, proposals=None)
    other = OtherRun(run_dir="other", detections=nothing, threshold=0.5, misses=lost.misses, reduced=True)
    result = diagnose(inputs, errors, other=other if against else None, resamples=20)
    return BlamePage(result=result, dataset=images, detections=detections)


def test_the_stages_end_with_the_found_objects(tmp_path: Path) -> None:
    page = blamed(dataset(tmp_path, list(TRACES)), FOUND, TRACES)
    rows = stages(page.result)
    assert [one.left for one in rows] == [4, 3, 3, 3, 2, 2, 2, 1]
    assert {one.causes: one.lost for one in rows if one.lost} == {
        "no proposal": 1,
        "background": 1,
        "suppressed": 1,
    }
    assert rows[-1].left == page.result.objects - page.result.n_missed


def test_the_page(tmp_path: Path) -> None:
    data = blamed(dataset(tmp_path, list(TRACES)), FOUND, TRACES, against=True)
    write_blame_page(tmp_path / "blame.html", data)
    page = read((tmp_path / "blame.html").read_text("utf-8"))
    text = " ".join(page.words)
    for words in (
        "3 of 4",
        "the best proposal has IoU 0.20",
        "was scored background 0.80, cat 0.10",
        "removed by non-maximum suppression: IoU 0.40 with a detection of score 0.90",
        "no object is annotated here",
        "Nobody was asked.",
        "missed → found",
    ):
        assert words in text, words
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == data.result.n_missed + data.result.n_false == 6
    assert all((one.get("alt") or "").startswith(("Missed ", "False detection ")) for one in pictures)
    assert not [tag for tag, _ in page.tags if tag == "script"]


def test_without_traces_there_are_no_stages(tmp_path: Path) -> None:
    text = " ".join(read(render(blamed(dataset(tmp_path, list(FOUND)), FOUND, None))).words)
    assert "The stages are unknown" in text
    assert "localisation" in text


def test_nothing_to_show(tmp_path: Path) -> None:
    right = blamed(dataset(tmp_path, ["found"]), {"found": found((0.9, BOX, CAT))}, {"found": [traced(by=0)]})
    text = " ".join(read(render(right)).words)
    for words in ("No object is missed.", "No detection is false.", "No error costs so much"):
        assert words in text
    empty = Dataset(name="empty", classes=CLASSES, category_ids=(1, 2, 3), records=(), ground_truth={})
    assert "There are no objects." in " ".join(read(render(blamed(empty, {}, {}))).words)


def test_an_image_that_is_gone_has_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = blamed(dataset(tmp_path, list(TRACES)), FOUND, TRACES)
    (tmp_path / "1.png").unlink()
    page = read(render(data))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4
    assert "left out an image" in caplog.text


def test_few_examples_of_many_and_from_many_images(tmp_path: Path) -> None:
    crowd = dataset(tmp_path, ["a", "b", "c", "d"])
    truth = {name: objects(*[((10 * i, 0, 10 * i + 9, 9), CAT) for i in range(5)]) for name in "abcd"}
    many = Dataset(
        name="many", classes=CLASSES, category_ids=(1, 2, 3), records=crowd.records, ground_truth=dict(truth)
    )
    traces = {name: [traced(proposal_iou=0.1, iou=0.1)] * 5 for name in "abcd"}
    data = blamed(many, {name: found() for name in "abcd"}, traces)
    assert data.result.missed[Cause.no_proposal] == 20
    files = [words for words in read(render(data)).words if ".png, object" in words]
    assert len(files) == EXAMPLES == 6
    assert {files.count(one) for one in files} == {1}
    assert [sum(one.startswith(f"{n}.png") for one in files) for n in range(4)] == [2, 2, 2, 0]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    data = blamed(dataset(tmp_path, list(TRACES), (EVIL, "dog", "owl")), FOUND, TRACES)
    page = read(render(data))
    assert not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]
