"""Corrections become edits of files: which object is meant, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.coco import CocoSource
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.object_edits import ObjectEdit
from detpipe.datasets.source import DatasetSource
from detpipe.datasets.voc import VocSource
from detpipe.labels.corrections import Action, Correction, CorrectionError
from detpipe.labels.planned_edits import Label, PlannedEdits, plan_edits
from detpipe.runs.run_folder import load_splits
from tests import drawn
from tests.datasets.conftest import VocFolder, voc_object


def plan(source: DatasetSource, *corrections: Correction, new: bool = False) -> PlannedEdits:
    return plan_edits(source, load_splits(source), corrections, allow_new_classes=new)


def change(image: Any = "a", **values: Any) -> Correction:
    return Correction(image=image, action=Action.change, **{"object": 0, **values})


@pytest.fixture
def source(tmp_path: Path) -> VocSource:
    """Images a and b, 20 high and 30 wide, with a dog, a cat, and a dog whose box is empty within the image."""
    voc = VocFolder(tmp_path / "set")
    for name in ("a", "b"):
        voc.image(f"{name}.jpg")
        voc.xml(name, voc_object(1, 1, 9, 9, "dog") + voc_object(3, 4, 12, 13) + voc_object(31, 1, 40, 9, "dog"))
    voc.list("trainval", "a\n")
    voc.list("test", "b\n")
    return VocSource(root=str(voc.root))


def edits(planned: PlannedEdits) -> list[ObjectEdit]:
    return [edit for some in planned.edits.values() for edit in some]


def test_no_corrections_give_no_edits(source: VocSource) -> None:
    assert plan(source) == PlannedEdits()


def test_each_action_becomes_an_edit_and_a_change(source: VocSource) -> None:
    planned = plan(
        source,
        change(label="cat", box=(1, 1, 8, 8)),
        Correction(image="a", action=Action.remove, object=2),
        Correction(image="b", action=Action.add, box=(5, 6, 7.5, 8), label=" cat "),
    )
    assert {(path.name, name): some for (path, name), some in planned.edits.items()} == {
        ("a.xml", "a"): [
            ObjectEdit(index=0, name="cat", box=(1, 1, 8, 8)),
            ObjectEdit(index=2, is_removed=True),
        ],
        ("b.xml", "b"): [ObjectEdit(name="cat", box=(5, 6, 7.5, 8))],
    }
    assert [(one.split, one.action, one.before, one.after) for one in planned.changes] == [
        ("train", Action.change, Label(label="dog", box=(0, 0, 9, 9)), Label(label="cat", box=(1, 1, 8, 8))),
        ("train", Action.remove, Label(label="dog", box=(30, 0, 40, 9)), None),
        ("test", Action.add, None, Label(label="cat", box=(5, 6, 7.5, 8))),
    ]
    assert [str(one) for one in planned.changes] == [
        "train/a, object 0: dog -> cat, [0, 0, 9, 9] -> [1, 1, 8, 8]",
        "train/a, object 2: removed dog [30, 0, 40, 9]",
        "test/b: added cat [5, 6, 7.5, 8]",
    ]


def test_a_value_that_stays_is_no_edit(source: VocSource) -> None:
    planned = plan(source, change(label="dog", box=(0, 0, 9, 9)), change(object=1, label="dog", box=(2, 3, 12, 13)))
    assert planned.without_effect == 1
    assert edits(planned) == [ObjectEdit(index=1, name="dog")]


def test_with_chosen_classes_the_index_counts_their_objects(source: VocSource) -> None:
    # Without dogs, the cat is object 0. It may become a dog, which the data set has.
    planned = plan(dataclasses.replace(source, classes=["cat"]), change(label="dog"))
    assert edits(planned) == [ObjectEdit(index=1, name="dog")]
    assert planned.changes[0].object == 0


def test_boxes_are_clipped_to_the_image(source: VocSource) -> None:
    assert edits(plan(source, change(box=(-3, 5, 99, 99)))) == [ObjectEdit(index=0, box=(0, 5, 30, 20))]


def test_a_new_class_must_be_allowed(source: VocSource) -> None:
    planned = plan(source, change(label="cow"), change(image="b", label="cow"), new=True)
    assert planned.new_classes == ["cow"]
    with pytest.raises(CorrectionError, match=r"correction 1, image 'a'.*did you mean 'cat'.*allow_new_classes=true"):
        plan(source, change(label="cats"))


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        (change("c", label="cat"), "an image of the data set"),
        (change(split="test", label="cat"), "split: expected train"),
        (change(object=3, label="cat"), "one of 3 objects"),
        (change(object=None, id="5", label="cat"), "id 5, got 0"),
        (change(box=(30, 0, 35, 9)), "box in the image, which is 30 wide and 20 high"),
        (change(label=" "), "label"),
        (change(label="a\nb"), "label"),
    ],
)
def test_what_can_not_be_applied_is_refused(source: VocSource, correction: Correction, said: str) -> None:
    with pytest.raises(CorrectionError, match=rf"correction 1, image .*{said}"):
        plan(source, correction, new=True)


def test_two_corrections_of_one_object_are_refused(source: VocSource) -> None:
    with pytest.raises(CorrectionError, match=r"correction 2.*number 1"):
        plan(source, change(label="cat"), Correction(image="a", action=Action.remove, object=0))
    added = Correction(image="a", action=Action.add, box=(1, 1, 5, 5), label="cat")
    with pytest.raises(CorrectionError, match=r"correction 2.*number 1"):
        plan(source, added, added)
    assert len(edits(plan(source, added, dataclasses.replace(added, label="dog")))) == 2


def test_coco_objects_are_found_by_id_and_split(voc_root: Path, tmp_path: Path) -> None:
    words = drawn.write_coco(tmp_path, voc_root)[1:]
    settings: dict[str, Any] = dict(word.removeprefix("dataset.").split("=", 1) for word in words)
    source = CocoSource(**settings)
    # Both files number their images from 100, and their annotations from 1.
    planned = plan(source, change(100, object=None, id="2", label="disc", split="test"))
    assert [(path.name, name) for path, name in planned.edits] == [(Path(settings["test_json"]).name, 100)]
    assert edits(planned) == [ObjectEdit(index=1, name="disc")]
    assert planned.changes[0].id == "2"
    for correction, said in (
        (change(100, label="disc"), "split: expected one of train, test"),
        (change(100, object=0, id="2", label="disc", split="test"), "object 0, which has id 1"),
    ):
        with pytest.raises(CorrectionError, match=said):
            plan(source, correction)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_before_exif_rotation_are_written_on_those_pixels(orientation: int, tmp_path: Path) -> None:
    """A white rectangle in the file, found in the rotated image, and corrected there."""
    voc = VocFolder(tmp_path / "set")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[8:16, 12:36] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(pixels).save(voc.images / "a.jpg", exif=exif, quality=95)
    size = "<size><width>60</width><height>40</height></size>"
    voc.xml("a", voc_object(1, 1, 5, 5), before=size)
    source = VocSource(root=str(voc.root), test_share=0, exif_boxes=ExifBoxes.raw)
    shown = cv2.imread(str(voc.images / "a.jpg"))
    assert shown is not None
    ys, xs = np.nonzero(shown[:, :, 0] > 127)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    assert edits(plan(source, change(box=box))) == [ObjectEdit(index=0, box=(12, 8, 36, 16))]
