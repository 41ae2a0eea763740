"""Imported proposals: .mat in two forms, pickles, COCO results; matching, and what must be refused."""

from __future__ import annotations

import json
import logging
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from detpipe.datasets.image_file import read_header, read_image
from detpipe.proposals.files.box_table import ProposalFileError
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.files.rcnn_mat import MatForm, find_form, fits, read_mat, to_boxes
from detpipe.proposals.files.safe_pickle import UnsafePickleError
from detpipe.proposals.proposer import ImportedBoxesError
from detpipe.storage.input_file import InputFileError
from detpipe.structures import Dataset, ImageId, ImageRecord, Proposals

SIZE = (40, 60)
IMAGE = np.zeros((*SIZE, 3), np.uint8)
RCNN = np.array([[1, 1, 40, 60], [3, 5, 10, 30]], np.uint16)  # y1 x1 y2 x2, from 1
FAST = np.array([[0, 0, 59, 39], [4, 2, 29, 9]], np.uint16)  # x1 y1 x2 y2, from 0: the same boxes
BOXES = [[0, 0, 60, 40], [4, 2, 30, 10]]


def dataset(*ids: ImageId, name: str = "train", size: tuple[int, int] = SIZE) -> Dataset:
    records = tuple(ImageRecord(i, Path(f"images/{i if isinstance(i, str) else f'{i:012}'}.jpg"), size) for i in ids)
    return Dataset(name, (), (), records, None)


def in_folder(folder: str, *ids: int) -> Dataset:
    """A data set named by its folder of images `0.jpg`, `1.jpg`, ..."""
    return Dataset(folder, (), (), tuple(ImageRecord(i, Path(folder) / f"{i}.jpg", SIZE) for i in ids), None)


def propose(imported: ImportedProposals, data: Dataset, index: int = 0, image: np.ndarray = IMAGE) -> Proposals:
    return imported.propose(image, data.records[index], None)


def save_mat(path: Path, boxes: Sequence[np.ndarray], images: Sequence[str], *, column: bool = False) -> str:
    cells, names = np.empty(len(boxes), object), np.empty((len(images), 1), object)
    for i, one in enumerate(boxes):
        cells[i] = one
    names[:, 0] = images
    scipy.io.savemat(path, {"boxes": cells[:, None] if column else cells[None], "images": names})
    return str(path)


# MATLAB


@pytest.mark.parametrize(("raw", "form"), [(RCNN, MatForm.rcnn), (FAST, MatForm.fast_rcnn)])
def test_both_forms_by_hand(raw: np.ndarray, form: MatForm):
    raw = raw.astype(np.float32)
    assert to_boxes(raw, form).tolist() == BOXES
    assert fits(raw, form, SIZE)
    assert find_form([("a", raw, SIZE)], "file") is form
    assert to_boxes(raw[:0], form).shape == (0, 4)
    with pytest.raises(ValueError, match="auto"):
        to_boxes(raw, MatForm.auto)


@given(
    st.integers(2, 300), st.integers(2, 300), st.randoms(use_true_random=False), st.sampled_from(["rcnn", "fast_rcnn"])
)
def test_the_form_is_found_where_the_whole_image_is_a_box(height: int, width: int, random, name: str):
    x1, y1 = random.randrange(width), random.randrange(height)
    some = [x1, y1, random.randint(x1, width - 1), random.randint(y1, height - 1)]
    fast = np.array([[0, 0, width - 1, height - 1], some], np.float32)
    raw = fast if name == "fast_rcnn" else fast[:, [1, 0, 3, 2]] + 1
    assert find_form([("a", raw, (height, width))], "file") is MatForm(name)


@pytest.mark.parametrize(("raw", "form"), [(RCNN, "rcnn"), (FAST, "fast_rcnn")])
@pytest.mark.parametrize("column", [True, False])
def test_cells_of_boxes_and_names(
    tmp_path: Path, raw: np.ndarray, form: str, column: bool, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    data = dataset("a", "b", "c")
    empty = np.zeros((0, 4), np.uint16)
    path = save_mat(tmp_path / "voc.mat", [raw[1:], raw, empty], ["b", "a", "c"], column=column)
    imported = ImportedProposals(path=path)
    imported.check([data])
    assert f"box format {form}" in caplog.text
    found = propose(imported, data, 0)
    assert found.boxes.tolist() == BOXES
    assert found.scores.tolist() == [1, 0.5]
    # b's one box alone could be either: the other image said which.
    assert propose(imported, data, 1).boxes.tolist() == BOXES[1:]
    assert len(propose(imported, data, 2)) == 0
    assert propose(ImportedProposals(path=path, form=form), data, 1).boxes.tolist() == BOXES[1:]
    assert propose(ImportedProposals(path=path, max_proposals=1), data).boxes.tolist() == BOXES[:1]


def test_what_fits_both_is_refused_until_said(tmp_path: Path):
    data = dataset("a", size=(50, 50))
    path = save_mat(tmp_path / "square.mat", [np.array([[2, 3, 20, 30]])], ["a"])
    with pytest.raises(ProposalFileError, match=r"proposals.form=rcnn or proposals.form=fast_rcnn"):
        ImportedProposals(path=path).check([data])
    image = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(ProposalFileError, match="fit R-CNN's"):
        propose(ImportedProposals(path=path), data, image=image)
    assert propose(ImportedProposals(path=path, form="rcnn"), data, image=image).boxes.tolist() == [[2, 1, 30, 20]]
    assert propose(ImportedProposals(path=path, form="fast_rcnn"), data, image=image).boxes.tolist() == [[2, 3, 21, 31]]


def test_what_fits_neither_is_refused(tmp_path: Path):
    for number, wrong in enumerate(([0, 0, 60, 40], [0, 0, 39, 59], [5, 5, 2, 9], [1, 1, 41, 60], [-1, 0, 5, 5])):
        path = save_mat(tmp_path / f"{number}.mat", [np.array([wrong])], ["a"])
        with pytest.raises(ProposalFileError, match="fits neither"):
            ImportedProposals(path=path).check([dataset("a")])
    path = save_mat(tmp_path / "mixed.mat", [RCNN, FAST], ["a", "b"])
    with pytest.raises(ProposalFileError, match="earlier images fit only rcnn"):
        ImportedProposals(path=path).check([dataset("a", "b")])


def test_the_form_said_is_held_to(tmp_path: Path):
    path = save_mat(tmp_path / "voc.mat", [FAST], ["a"])
    with pytest.raises(ImportedBoxesError, match="in the form rcnn"):
        propose(ImportedProposals(path=path, form="rcnn"), dataset("a"))


def test_one_array_and_a_folder_of_them(tmp_path: Path):
    scipy.io.savemat(tmp_path / "a_boxes.mat", {"boxes": FAST})
    scipy.io.savemat(tmp_path / "b.mat", {"boxes": FAST[1:]})
    data = dataset("a", "b", "missing")
    for path in (tmp_path, tmp_path / "a_boxes.mat"):
        imported = ImportedProposals(path=str(path))
        imported.check([data])
        assert propose(imported, data, 0).boxes.tolist() == BOXES
        with pytest.raises(ImportedBoxesError, match="missing"):
            propose(imported, data, 2)
    imported = pickle.loads(pickle.dumps(ImportedProposals(path=str(tmp_path), form="fast_rcnn")))
    assert propose(imported, data, 1).boxes.tolist() == BOXES[1:]


def test_a_pattern_of_files(tmp_path: Path):
    save_mat(tmp_path / "voc_train.mat", [RCNN], ["a"])
    save_mat(tmp_path / "voc_test.mat", [RCNN[1:]], ["b"])
    imported = ImportedProposals(path=str(tmp_path / "voc_*.mat"))
    train, test = dataset("a"), dataset("b", name="test")
    imported.check([train, test])
    there = pickle.loads(pickle.dumps(imported))
    assert propose(there, train).boxes.tolist() == BOXES
    assert propose(there, test).boxes.tolist() == BOXES[1:]
    save_mat(tmp_path / "voc_again.mat", [RCNN], ["a"])
    with pytest.raises(ProposalFileError, match="in 2 files"):
        propose(imported, train)


def test_a_file_written_anew_is_read_anew(tmp_path: Path):
    path = save_mat(tmp_path / "voc.mat", [RCNN], ["a"])
    imported = ImportedProposals(path=path)
    assert len(propose(imported, dataset("a"))) == 2
    time.sleep(0.01)
    save_mat(tmp_path / "voc.mat", [RCNN[:1]], ["a"])
    assert len(propose(imported, dataset("a"))) == 1


def test_broken_mat_files_are_named(tmp_path: Path):
    good = Path(save_mat(tmp_path / "good.mat", [RCNN, RCNN], ["a", "b"])).read_bytes()
    wrong = tmp_path / "wrong.mat"
    for content in (b"", b"no mat file", good[:200], good[:-30], b"MATLAB 7.3 MAT-file" + bytes(105) + b"\x00\x02IM"):
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.mat: expected"):
            ImportedProposals(path=str(wrong)).check()
    scipy.io.savemat(wrong, {"other": FAST})
    with pytest.raises(ProposalFileError, match="expected a variable `boxes`"):
        read_mat(wrong)
    scipy.io.savemat(wrong, {"boxes": np.zeros((3, 7))})
    with pytest.raises(ProposalFileError, match=r"expected boxes \(N, 4\)"):
        read_mat(wrong)
    scipy.io.savemat(wrong, {"boxes": np.array([[1, 1, np.nan, 3]])})
    with pytest.raises(ProposalFileError, match="finite"):
        read_mat(wrong)
    save_mat(wrong, [RCNN, RCNN], ["a", "a"])
    with pytest.raises(ProposalFileError, match="a twice"):
        read_mat(wrong)
    save_mat(wrong, [RCNN, RCNN], ["a"])
    with pytest.raises(ProposalFileError, match="2 for 1 images"):
        read_mat(wrong)
    with pytest.raises(FileNotFoundError):
        read_mat(tmp_path / "none.mat")


def test_real_file_of_fast_rcnn(shared_data: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    folder = shared_data / "proposals" / "fast_rcnn_demo_proposals"
    files = [folder / "000004.jpg", folder / "001551.jpg"]
    data = Dataset("demo", (), (), tuple(ImageRecord(f.stem, f, read_header(f).image_size) for f in files), None)
    imported = ImportedProposals(path=str(folder), max_proposals=None)
    imported.check([data])
    assert "box format fast_rcnn" in caplog.text
    for record, count in zip(data.records, (2888, 2057), strict=True):
        image = read_image(record.path)
        found = imported.propose(image, record, None)
        raw = scipy.io.loadmat(folder / f"{record.image_id}_boxes.mat")["boxes"].astype(np.float32)
        assert len(raw) == count
        unique, first = np.unique(raw, axis=0, return_index=True)
        assert len(found) == len(unique)
        np.testing.assert_array_equal(found.boxes - np.array([0, 0, 1, 1], np.float32), raw[np.sort(first)])
        assert found.boxes.max(axis=0).tolist()[2:] == [image.shape[1], image.shape[0]]


# Pickles


def dump(path: Path, content: object) -> str:
    path.write_bytes(pickle.dumps(content, 2))
    return str(path)


def detectron2(**changes: object) -> dict[str, object]:
    boxes = [np.array([[4, 2, 30, 10], [0, 0, 60, 40]], np.float32), np.zeros((0, 4), np.float32)]
    return {"ids": [7, 9], "boxes": boxes, "objectness_logits": [np.array([-1, 3], np.float32), np.zeros(0)]} | changes


@pytest.mark.parametrize("names", [("ids", "objectness_logits"), ("indexes", "scores")])
def test_detectron(tmp_path: Path, names: tuple[str, str]):
    content = detectron2()
    content = {names[0]: content["ids"], "boxes": content["boxes"], names[1]: content["objectness_logits"]}
    imported, data = ImportedProposals(path=dump(tmp_path / "d2.pkl", content)), dataset(7, 9)
    imported.check([data])
    found = propose(imported, data)
    assert found.boxes.tolist() == BOXES
    assert found.scores.tolist() == [3, -1]
    assert len(propose(imported, data, 1)) == 0


def test_detectron_box_modes(tmp_path: Path):
    boxes = [np.array([[4, 2, 26, 8], [0, 0, 60, 40]], np.float32), np.zeros((0, 4), np.float32)]
    imported = ImportedProposals(path=dump(tmp_path / "d2.pkl", detectron2(boxes=boxes, bbox_mode=1)))
    assert propose(imported, dataset(7)).boxes.tolist() == BOXES
    with pytest.raises(ProposalFileError, match="bbox_mode"):
        ImportedProposals(path=dump(tmp_path / "rel.pkl", detectron2(bbox_mode=2))).check()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (detectron2(ids=[7]), "equal lengths"),
        (detectron2(ids=[7, 7]), "7 twice"),
        ({"boxes": []}, "equal lengths"),
        (detectron2(objectness_logits=[np.zeros(5), np.zeros(0)]), "one score per box"),
        (detectron2(boxes=[np.zeros((2, 3)), np.zeros((0, 4))]), "expected boxes"),
        (detectron2(boxes=["text", np.zeros((0, 4))]), "as numbers"),
        ([["no", "boxes"]], "as numbers"),
        (5, "got a int"),
        ({"a.jpg": {"masks": []}}, "expected bboxes"),
    ],
)
def test_other_pickles_are_named(tmp_path: Path, content: object, message: str):
    with pytest.raises(ProposalFileError, match=message):
        ImportedProposals(path=dump(tmp_path / "other.pkl", content)).check()


def test_hostile_pickle_stops_the_check(tmp_path: Path):
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch victim'\ntR.")
    with pytest.raises(UnsafePickleError, match=r"calls (os|posix)\.system"):
        ImportedProposals(path=str(tmp_path / "evil.pkl")).check()


def test_mmdetection_list_goes_by_the_order_of_the_data_set(tmp_path: Path):
    scored = np.array([[4, 2, 30, 10, 0.3], [0, 0, 60, 40, 0.9]], np.float32)
    imported = ImportedProposals(path=dump(tmp_path / "mm.pkl", [scored[:0], scored]))
    train, test = dataset("a", "b", "c"), dataset("x", "y", name="test")
    with pytest.raises(ImportedBoxesError):  # matched by `check` alone
        propose(imported, test)
    with pytest.raises(ImportedBoxesError, match="got none of them"):
        imported.check([train, test])
    imported.check([test])
    imported = pickle.loads(pickle.dumps(imported))
    found = propose(imported, test, 1)
    assert found.boxes.tolist() == BOXES
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert len(propose(imported, test, 0)) == 0
    for data in ([train], [test, dataset("u", "v", name="val")]):
        with pytest.raises(ProposalFileError, match="without names"):
            ImportedProposals(path=imported.path).check(data)


def test_mmdetection_dict_goes_by_file_names(tmp_path: Path):
    boxes = np.array([[4, 2, 30, 10]], np.float32)
    content = {
        "train2017/000000000007.jpg": {"bboxes": boxes, "scores": np.array([0.5], np.float32)},
        "train2017/000000000009.jpg": np.zeros((0, 5), np.float32),
    }
    imported, data = ImportedProposals(path=dump(tmp_path / "mm.pkl", content)), dataset(7, 9)
    imported.check([data])
    assert propose(imported, data).boxes.tolist() == BOXES[1:]
    assert len(propose(imported, data, 1)) == 0
    content |= {"val2017/000000000007.jpg": np.zeros((0, 5), np.float32)}
    imported = ImportedProposals(path=dump(tmp_path / "two.pkl", content))
    with pytest.raises(ImportedBoxesError):  # which of the two?
        propose(imported, data)


def test_a_list_of_one_split_is_not_that_of_images_with_the_same_ids(tmp_path: Path):
    # COCO files that count from 0 each, their images in folders of their own.
    train, test = in_folder("train", 0, 1, 2), in_folder("test", 0, 1)
    lists = [np.array([[4, 2, 30, 10]], np.float32), *[np.zeros((0, 4), np.float32)] * 2]
    dump(tmp_path / "mm_train.pkl", lists)
    with pytest.raises(ImportedBoxesError, match="of the images of test, got none of them"):
        ImportedProposals(path=str(tmp_path / "mm_train.pkl")).check([train, test])
    dump(tmp_path / "mm_test.pkl", [np.array([[0, 0, 60, 40]], np.float32), lists[1]])
    imported = ImportedProposals(path=str(tmp_path / "mm_*.pkl"))
    imported.check([train, test])
    imported = pickle.loads(pickle.dumps(imported))
    assert propose(imported, train).boxes.tolist() == BOXES[1:]
    assert propose(imported, test).boxes.tolist() == BOXES[:1]


@pytest.mark.parametrize("form", ["json", "pkl", "mat", "folder"])
def test_a_name_that_means_images_of_two_splits_is_refused(tmp_path: Path, form: str):
    train, test = in_folder("train", 0, 1), in_folder("test", 0)
    path = tmp_path / f"boxes.{form}"
    if form == "json":
        path.write_text(json.dumps([{"image_id": i, "bbox": [4, 2, 26, 8], "score": 1} for i in (0, 1)]))
    elif form == "pkl":
        dump(path, detectron2(ids=[0, 1]))
    elif form == "mat":
        save_mat(path, [FAST, FAST], ["0", "1"])
    else:
        path.mkdir()
        scipy.io.savemat(path / "0_boxes.mat", {"boxes": FAST})
    message = r"'0(_boxes\.mat)?', which means two.*train.0\.jpg \(id 0\) and test.0\.jpg \(id 0\); give the images"
    with pytest.raises(ImportedBoxesError, match=message):
        ImportedProposals(path=str(path)).check([train, test])
    ImportedProposals(path=str(path)).check([train])
    ImportedProposals(path=str(path)).check([train, train])  # the same files: their boxes are right in both


def test_a_folder_in_the_name_tells_two_splits_apart(tmp_path: Path):
    train, test = in_folder("train", 0), in_folder("test", 0)
    content = {"train/0.jpg": np.array([[4, 2, 30, 10]], np.float32), "test/0.jpg": np.zeros((0, 4), np.float32)}
    imported = ImportedProposals(path=dump(tmp_path / "mm.pkl", content))
    imported.check([train, test])
    assert propose(imported, train).boxes.tolist() == BOXES[1:]
    assert len(propose(imported, test)) == 0
    del content["test/0.jpg"]  # "0.jpg" of no other folder, so it is taken for that of test, too
    with pytest.raises(ImportedBoxesError, match=r"'train/0\.jpg', which means two"):
        ImportedProposals(path=dump(tmp_path / "mm.pkl", content)).check([train, test])


# COCO results


def test_coco_results(tmp_path: Path):
    results = [
        {"image_id": 7, "category_id": 3, "bbox": [4, 2, 26, 8], "score": 0.25},
        {"image_id": 8, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 1},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 60.5, 40], "score": 0.75},
        {"image_id": 7, "category_id": 2, "bbox": [4, 2, 26, 8], "score": 0.125},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    imported, data = ImportedProposals(path=str(path)), dataset(7, 9)
    imported.check([data])
    found = propose(imported, data)
    assert found.boxes.tolist() == BOXES
    assert found.scores.tolist() == [0.75, 0.25]
    with pytest.raises(ImportedBoxesError, match="image 9"):
        propose(imported, data, 1)
    path.write_text("[]")
    with pytest.raises(ImportedBoxesError, match="got none of them"):
        ImportedProposals(path=str(path)).check([data])


SQUARE = {"size": [40, 60], "counts": [42, 3, 37, 3, 2315]}
"""Rows 2 to 4 of columns 1 and 2."""


@pytest.mark.parametrize("more", [{}, {"bbox": []}, {"bbox": None}])
@pytest.mark.parametrize(
    ("mask", "boxes"),
    [
        (SQUARE, [[1, 2, 3, 5]]),
        ({"size": [40, 60], "counts": coco_mask.frPyObjects(SQUARE, 40, 60)["counts"].decode()}, [[1, 2, 3, 5]]),
        ([[10.5, 20, 30, 20, 30, 35.25]], [[10.5, 20, 30, 35.25]]),
        ([[4, 2, 8, 2, 8, 9], [20, 5, 22, 5, 22, 6]], [[4, 2, 22, 9]]),
        ({"size": [40, 60], "counts": [2400]}, []),
    ],
)
def test_masks_of_coco_results_become_boxes(mask: object, more: dict[str, object], boxes: object, tmp_path: Path):
    path = tmp_path / "masks.json"
    path.write_text(json.dumps([{"image_id": 0, "segmentation": mask, "score": 0.5, **more}]))
    imported, data = ImportedProposals(path=str(path)), dataset(0)
    imported.check([data])
    assert propose(imported, data).boxes.tolist() == boxes


def test_a_box_beside_a_mask_is_taken(tmp_path: Path):
    path = tmp_path / "masks.json"
    path.write_text(json.dumps([{"image_id": 0, "segmentation": SQUARE, "bbox": [1, 2, 5, 5], "score": 0.5}]))
    assert propose(ImportedProposals(path=str(path)), dataset(0)).boxes.tolist() == [[1, 2, 6, 7]]


@pytest.mark.parametrize(
    "mask",
    [None, [], {}, "mask", [[1, 2, 3]], {"size": [40, 60], "counts": [9999]}, {"size": [40], "counts": "0"}],
)
def test_a_broken_mask_is_named(mask: object, tmp_path: Path):
    path = tmp_path / "masks.json"
    path.write_text(json.dumps([{"image_id": 0, "segmentation": mask, "score": 0.5}]))
    with pytest.raises(ProposalFileError, match=r"masks\.json: result 0: .*segmentation"):
        ImportedProposals(path=str(path)).check([dataset(0)])


@pytest.mark.parametrize(
    ("in_file", "of_image"), [(7, "000007"), (7.0, 7), ("7", 7), ("007", 7), ("7.0", 7), ("000007", 7)]
)
def test_ids_are_numbers_here_and_text_there(tmp_path: Path, in_file: object, of_image: ImageId):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": in_file, "bbox": [4, 2, 26, 8], "score": 1}]))
    assert propose(ImportedProposals(path=str(path)), dataset(of_image)).boxes.tolist() == BOXES[1:]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '[{"image_id": 1}]', '[{"image_id": 1, "bbox": [1, 2, 3], "score": 1}]',
     '[{"image_id": 1, "bbox": [1, 2, 3, "x"], "score": 1}]', '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]',
     '[{"image_id": 1, "bbox": [1, 2, 3, NaN], "score": 1}]', "[" * 100_000],
)  # fmt: skip
def test_broken_json_is_named(tmp_path: Path, text: str):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises((ProposalFileError, InputFileError), match=r"results\.json"):
        ImportedProposals(path=str(path)).check()


@pytest.mark.parametrize(("bbox", "message"), [([70, 0, 5, 5], "outside"), ([9, 9, -3, 4], "x1 <= x2")])
def test_boxes_of_another_image_are_refused(tmp_path: Path, bbox: list[int], message: str):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": 7, "bbox": bbox, "score": 1}]))
    with pytest.raises(ImportedBoxesError, match=message):
        propose(ImportedProposals(path=str(path)), dataset(7))


# All


def test_missing_and_unknown_files(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"proposals\.path"):
        ImportedProposals().check()
    with pytest.raises(FileNotFoundError, match="found none; correct"):
        ImportedProposals(path=str(tmp_path / "none.mat")).check()
    (tmp_path / "boxes.txt").write_text("1 2 3 4")
    with pytest.raises(ProposalFileError, match=r"\.mat, \.pkl"):
        ImportedProposals(path=str(tmp_path / "boxes.txt")).check()
    with pytest.raises(ValueError, match="pixels alone"):
        ImportedProposals()(IMAGE)


def test_some_missing_images_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = save_mat(tmp_path / "voc.mat", [RCNN], ["a"])
    ImportedProposals(path=path).check([dataset("a", "b")])
    assert "no boxes of 1 images of train: b" in caplog.text
    with pytest.raises(ImportedBoxesError, match="got none of them"):
        ImportedProposals(path=path).check([dataset("a"), dataset("c", name="test")])
    ImportedProposals(path=path).check([dataset()])


def test_an_id_comes_before_the_name_of_a_file(tmp_path: Path):
    # Image 2 is called 1.jpg: files of ids and files of names mean different images by "1".
    record = ImageRecord(2, Path("1.jpg"), SIZE)
    content = {"ids": [1, 2], "boxes": [RCNN[:0], FAST], "objectness_logits": [np.zeros(0), np.zeros(2)]}
    by_id = ImportedProposals(path=dump(tmp_path / "d2.pkl", content))
    assert len(by_id.propose(IMAGE, record, None)) == 2
    by_name = ImportedProposals(path=save_mat(tmp_path / "m.mat", [RCNN, RCNN[:0]], ["1", "2"]))
    assert len(by_name.propose(IMAGE, record, None)) == 2
