"""The files for other programs: as their loaders read them, and back by our own importer to the same records."""

from __future__ import annotations

import json
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from detpipe.commands.proposals.export import write
from detpipe.commands.proposals.settings import ExportFormat
from detpipe.proposals.baselines import Uniform
from detpipe.proposals.files.detectron_pkl import to_detectron2, to_mmdetection
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.files.rcnn_mat import MatForm, to_boxes, to_pixels
from detpipe.proposals.files.safe_pickle import dump_numbers, load_numbers
from detpipe.proposals.proposals_db import parse_proposals, propose_image
from detpipe.structures import Dataset, ImageRecord, Proposals
from tests import drawn

Images = list[tuple[ImageRecord, Proposals]]
NONE = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    records = []
    for number in (10, 9, 100):
        path = tmp_path / "photos" / f"image_{number}.jpg"
        drawn.write_jpeg(path, drawn.draw(number)[0])
        records.append(ImageRecord(number, path, drawn.IMAGE_SIZE))
    return Dataset("photos", ("disc", "square"), (7, 3), tuple(records), None)


@pytest.fixture
def images(dataset: Dataset) -> Images:
    """Images with their proposals, out of the order of their ids."""
    return [
        (one, parse_proposals(propose_image(Uniform(max_proposals=25), one, None)).proposals) for one in dataset.records
    ]


FILES = {
    ExportFormat.coco: "boxes.json",
    ExportFormat.detectron2: "boxes.pkl",
    ExportFormat.mmdetection: "boxes.pkl",
    ExportFormat.mmdetection2: "boxes.pkl",
    ExportFormat.rcnn_mat: "boxes.mat",
}


@pytest.mark.parametrize("form", FILES)
def test_back_by_our_importer(form: ExportFormat, dataset: Dataset, images: Images, tmp_path: Path):
    path = tmp_path / FILES[form]
    write(path, form, dataset, images)
    first = path.read_bytes()
    write(path, form, dataset, images)
    assert path.read_bytes() == first
    importer = ImportedProposals(path=str(path))
    importer.check([dataset])
    for record, proposals in images:
        found = parse_proposals(propose_image(importer, record, None)).proposals
        if form is ExportFormat.rcnn_mat:
            assert np.abs(found.boxes - proposals.boxes).max() <= 0.5  # none of these merged
        else:
            assert found.boxes.tobytes() == proposals.boxes.tobytes()
            assert found.scores.tobytes() == proposals.scores.tobytes()


@pytest.mark.parametrize("form", FILES)
def test_images_without_boxes(form: ExportFormat, dataset: Dataset, tmp_path: Path):
    path = tmp_path / FILES[form]
    write(path, form, dataset, [(record, NONE) for record in dataset.records])
    if form is ExportFormat.coco:  # which has no place for them
        assert json.loads(path.read_text()) == []
        return
    importer = ImportedProposals(path=str(path))
    importer.check([dataset])
    for record in dataset.records:
        assert len(parse_proposals(propose_image(importer, record, None)).proposals) == 0


def test_coco_by_hand(tmp_path: Path, dataset: Dataset):
    boxes = np.array([[1, 2.25, 4, 8], [0, 0, 0.0078125, 1]], np.float32)
    proposals = Proposals(boxes, np.array([0.75, 0.1], np.float32))
    write(tmp_path / "a.json", ExportFormat.coco, dataset, [(dataset.records[0], proposals)])
    assert json.loads((tmp_path / "a.json").read_text()) == [
        {"image_id": 10, "category_id": 7, "bbox": [1, 2.25, 3, 5.75], "score": 0.75},
        {"image_id": 10, "category_id": 7, "bbox": [0, 0, 0.0078125, 1], "score": float(np.float32(0.1))},
    ]


def test_coco_is_what_pycocotools_evaluates(tmp_path: Path, dataset: Dataset, images: Images):
    coco = pytest.importorskip("pycocotools.coco")
    write(tmp_path / "a.json", ExportFormat.coco, dataset, images)
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": record.image_id} for record in dataset.records],
        "categories": [{"id": number, "name": str(number)} for number in dataset.category_ids],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "a.json"))
    assert len(loaded.getAnnIds(catIds=[7])) == sum(len(proposals) for _, proposals in images)


def as_detectron2_reads(content: dict, image_id: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores in the order of load_proposals_into_dataset (detectron2/data/build.py)."""
    place = {str(one): number for number, one in enumerate(content["ids"])}[str(image_id)]
    logits = content["objectness_logits"][place]
    order = logits.argsort()[::-1]
    return content["boxes"][place][order], logits[order]


def test_detectron2_reads_them_in_our_order(images: Images):
    content = pickle.loads(dump_numbers(to_detectron2(images)))
    assert content["ids"] == [9, 10, 100]
    assert content["bbox_mode"] == 0
    for record, proposals in images:
        boxes, logits = as_detectron2_reads(content, record.image_id)
        assert boxes.tobytes() == proposals.boxes.tobytes()
        assert logits.tobytes() == proposals.scores.tobytes()
        assert boxes.dtype == logits.dtype == np.float32


@given(st.lists(st.sampled_from([1.0, 0.5, 0.0, -3.0, np.nextafter(np.float32(0.5), np.float32(0))]), max_size=40))
def test_detectron2_does_not_turn_ties_around(scores: list[float]):
    """argsort()[::-1] gives equal scores in the reverse order: so there are none."""
    falling = np.array(sorted(scores, reverse=True), np.float32)
    boxes = np.array([[n, 0, n + 1, 1] for n in range(len(falling))], np.float32).reshape(-1, 4)
    record = ImageRecord("a", Path("a.jpg"), (1, 50))
    content = to_detectron2([(record, Proposals(boxes, falling))])
    read, logits = as_detectron2_reads(content, "a")
    assert read.tobytes() == boxes.tobytes()
    assert np.allclose(logits, falling, atol=1e-5)
    assert (np.diff(logits) < 0).all()


def test_ids_of_words_are_sorted(images: Images):
    named = [(ImageRecord(name, Path(f"{name}.jpg"), (3, 3)), NONE) for name in ("b", "a", "10")]
    assert to_detectron2(named)["ids"] == ["10", "a", "b"]


def test_mmdetection_reads_them_by_folder_and_name(images: Images):
    content = pickle.loads(dump_numbers(to_mmdetection(images)))
    assert list(content) == ["photos/image_10.jpg", "photos/image_9.jpg", "photos/image_100.jpg"]
    one = content["photos/image_9.jpg"]
    assert one["bboxes"].tobytes() == images[1][1].boxes.tobytes()
    assert one["scores"].tobytes() == images[1][1].scores.tobytes()
    assert list(to_mmdetection([(ImageRecord("a", Path("a.jpg"), (1, 1)), NONE)])) == ["a.jpg"]
    twice = [(ImageRecord(name, Path(name, "x", "a.jpg"), (1, 1)), NONE) for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"x/a\.jpg twice"):
        to_mmdetection(twice)


def test_rcnn_by_hand(tmp_path: Path, dataset: Dataset):
    """The whole image of 120 x 160, a pixel, and less than a pixel at the far corner."""
    boxes = np.array([[0, 0, 160, 120], [3, 5, 4, 6], [159.75, 119.75, 160, 120], [10.4, 10.5, 20.4, 20.5]], np.float32)
    wanted = [[1, 1, 120, 160], [6, 4, 6, 4], [120, 160, 120, 160], [12, 11, 21, 20]]
    assert to_pixels(boxes, (120, 160)).tolist() == wanted
    proposals = Proposals(boxes, np.ones(4, np.float32))
    write(
        tmp_path / "a.mat",
        ExportFormat.rcnn_mat,
        dataset,
        [(dataset.records[0], proposals), (dataset.records[1], NONE)],
    )
    content = scipy.io.loadmat(tmp_path / "a.mat")
    assert content["boxes"].shape == (1, 2)
    assert content["images"].shape == (2, 1)
    assert content["images"][0, 0][0] == "10"
    assert content["boxes"][0, 0].tolist() == wanted
    assert content["boxes"][0, 0].dtype == np.float64
    assert content["boxes"][0, 1].shape == (0, 4)
    # As Fast R-CNN reads them (lib/datasets/pascal_voc.py): [x1 y1 x2 y2] from 0, both corners inside.
    assert (content["boxes"].ravel()[0][:, (1, 0, 3, 2)] - 1).tolist()[0] == [0, 0, 159, 119]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_pixels_lie_in_the_image_and_near(height: int, width: int, seed: int):
    corners = np.random.default_rng(seed).random((30, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    raw = to_pixels(boxes, (height, width))
    assert (raw == np.round(raw)).all()
    back = to_boxes(raw, MatForm.rcnn)
    assert (back >= 0).all()
    assert (back[:, 2:] <= (width, height)).all()
    assert (back[:, 2:] > back[:, :2]).all()
    assert np.abs(back - boxes).max() <= 1.0
    assert to_pixels(back, (height, width)).tolist() == raw.tolist()


@pytest.mark.parametrize(
    "make", [lambda: np.arange(6, dtype=np.float32).reshape(2, 3), lambda: np.arange(6)[::2].astype("<i8")]
)
def test_pickles_name_nothing_private(make: Callable[[], np.ndarray], tmp_path: Path):
    data = dump_numbers({"a": [make(), np.zeros((0, 4), np.float32)], "n": 3})
    modules = {arg for opcode, arg, _ in pickletools.genops(data) if isinstance(arg, str) and "numpy" in arg}
    assert modules == {"numpy"}  # numpy 1 has no numpy._core
    (tmp_path / "a.pkl").write_bytes(data)
    for content in (pickle.loads(data), load_numbers(tmp_path / "a.pkl")):
        assert content["n"] == 3
        assert content["a"][0].tolist() == make().tolist()
        assert content["a"][0].dtype == make().dtype
        assert content["a"][1].shape == (0, 4)
