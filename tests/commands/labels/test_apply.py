"""`detpipe labels apply`: the corrected data set, the run folder beside it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.classify.features.store import open_store
from detpipe.commands.labels.apply import run
from detpipe.commands.labels.apply_settings import LabelsApply
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.yolo import YoloSource
from detpipe.labels.corrections import Action, Correction, CorrectionError, Corrections, write_corrections
from detpipe.runs.kept_dataset import kept_dataset
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import RunFolder, copy_proposals, load_splits
from detpipe.storage.manifest import read_manifest
from detpipe.structures import ImageId
from tests import drawn
from tests.command_line import Outcome, detpipe

FROZEN = (
    "head=linear",
    "crops.size=32",
    "features.crops=true",
    "detect.features.refine=0",
)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def corrections_of(source: DatasetSource, folder: Path, *some: Correction, reviewed: Sequence[ImageId] = ()) -> Path:
    path = folder / "corrections.json"
    digest = labels_digest(load_splits(source))
    write_corrections(path, Corrections(dataset=digest, corrections=list(some), reviewed=list(reviewed)))
    return path


def apply(
    dataset: DatasetSource,
    folder: Path,
    *some: Correction,
    out: str = "out",
    reviewed: Sequence[ImageId] = (),
    **settings: Any,
) -> DatasetSource:
    """The corrected data set."""
    config = LabelsApply(
        run_dir=str(folder / "none"),
        dataset=dataset,
        corrections=str(corrections_of(dataset, folder, *some, reviewed=reviewed)),
        out=str(folder / out),
        **settings,
    )
    run(config)
    found = kept_dataset(RunFolder(folder / out / "run"))
    assert found is not None
    return found


def objects(source: DatasetSource, split: Split, image: str) -> list[tuple[str, tuple[float, ...]]]:
    return [(one.name, one.box) for entry in source.entries(split) if entry.image_id == image for one in entry.objects]


CHANGED = Correction(image="train_0", action=Action.change, object=0, box=(10, 20, 30.5, 40), label="square")
REMOVED = Correction(image="train_1", action=Action.remove, object=1)
ADDED = Correction(image="test_0", action=Action.add, box=(0, 0, 12, 12), label="disc", split="test")


def test_a_yolo_folder(tmp_path: Path) -> None:
    drawn.write_yolo(tmp_path / "yolo")
    corrected = apply(YoloSource(root=str(tmp_path / "yolo")), tmp_path, CHANGED, REMOVED, ADDED)
    assert isinstance(corrected, YoloSource)
    assert corrected.root == str(tmp_path / "out")
    (name, box), _ = objects(corrected, Split.train, "train_0")
    assert name == "square"
    assert box == pytest.approx((10, 20, 30.5, 40))
    assert len(objects(corrected, Split.train, "train_1")) == 1
    assert len(objects(corrected, Split.test, "test_0")) == 3
    bird = Correction(image="test_0", action=Action.add, box=(0, 0, 12, 12), label="bird", split="test")
    with pytest.raises(ValueError, match="'bird'"):
        apply(YoloSource(root=str(tmp_path / "yolo")), tmp_path, bird, out="birds", allow_new_classes=True)
    assert not (tmp_path / "birds").exists()


def command(run_dir: Path, corrections: Path, out: Path, *more: str) -> Outcome:
    return detpipe("labels", "apply", str(corrections), f"run_dir={run_dir}", f"out={out}", *more)


def test_a_run_needs_only_its_folder(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root))
    before = contents(voc_root), contents(run_copy)
    path = corrections_of(source, tmp_path, CHANGED, REMOVED, ADDED)
    outcome = command(run_copy, path, tmp_path / "new")
    assert outcome.status == 0, outcome.err
    assert (contents(voc_root), contents(run_copy)) == before
    assert not list(tmp_path.glob(".*"))
    corrected = VocSource(root=str(tmp_path / "new"))
    first = objects(corrected, Split.train, "train_0")
    assert first == [("square", (10, 20, 30.5, 40)), *objects(source, Split.train, "train_0")[1:]]
    assert objects(corrected, Split.train, "train_1") == objects(source, Split.train, "train_1")[:1]
    assert objects(corrected, Split.test, "test_0")[2:] == [("disc", (0, 0, 12, 12))]
    assert "1 added, 1 removed, 1 changed in 3 images" in outcome.out
    assert "train/train_0, object 0: disc -> square" in outcome.out
    assert f"dataset=voc dataset.root={tmp_path / 'new'}" in outcome.out
    changes = json.loads((tmp_path / "new" / "changes.json").read_text())
    assert [(one["image"], one["action"]) for one in changes["changes"]] == [
        ("train_0", "change"),
        ("train_1", "remove"),
        ("test_0", "add"),
    ]
    assert changes["dataset"] == labels_digest(load_splits(source))
    assert changes["corrected"] == labels_digest(load_splits(corrected))


@pytest.mark.slow
def test_a_run_on_the_corrected_set_proposes_nothing_again(voc_root: Path, tmp_path: Path) -> None:
    """Only regions of changed images get new features, and the results equal those of a run from nothing."""
    old, new = tmp_path / "old", tmp_path / "new"
    words = [*drawn.settings("run", *FROZEN), "proposals=gaussian"]
    words = [word for word in words if word.split("=")[0] not in ("proposals.preset", "proposals.max_side")]
    assert (outcome := detpipe("run", *drawn.voc(voc_root), *words, f"run_dir={old}")).status == 0, outcome.err
    before = contents(old)
    path = corrections_of(VocSource(root=str(voc_root)), tmp_path, CHANGED, ADDED)
    assert (outcome := command(old, path, new)).status == 0, outcome.err
    proposed = (new / "run" / "proposals.lmdb" / "data.mdb").stat().st_mtime_ns
    assert read_manifest(new / "run" / "features" / "test").complete
    outcome = detpipe("run", *words, f"run_dir={new / 'run'}")
    assert outcome.status == 0, outcome.err
    assert (new / "run" / "proposals.lmdb" / "data.mdb").stat().st_mtime_ns == proposed
    summary = read_manifest(new / "run" / "features" / "train").summary
    # Of ten training images one has changed; some of its regions are the same.
    assert 0 < summary["regions"] - summary["taken_over"] <= summary["regions"] / 10
    assert contents(old) == before
    fresh = tmp_path / "fresh"
    copy_proposals(RunFolder(old), RunFolder(fresh))
    own = [word for word in words if word.split("=")[0].split(".")[0] not in ("proposals", "solver", "head")]
    assert (outcome := detpipe("features", *drawn.voc(new), *own, f"run_dir={fresh}")).status == 0, outcome.err
    for split in (Split.train, Split.test):
        stores = [open_store(RunFolder(folder).features(split)) for folder in (fresh, new / "run")]
        assert stores[0].manifest.digest == stores[1].manifest.digest
        for name in ("boxes", "labels", "ious", "class_ious", "deltas"):
            assert np.array_equal(*(getattr(store, name) for store in stores)), name
        # Rows of other batches differ in the last bits.
        np.testing.assert_allclose(*(store.features for store in stores), rtol=1e-2, atol=1e-3)


def test_proposals_that_use_the_labels_are_not_kept(voc_root: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    words = ("workers=0", "proposals=ground_truth")
    assert detpipe("propose", *drawn.voc(voc_root), *words, f"run_dir={old}").status == 0
    outcome = command(old, corrections_of(VocSource(root=str(voc_root)), tmp_path, CHANGED), tmp_path / "new")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "new" / "run" / "proposals.lmdb").exists()
    outcome = detpipe("propose", *words, f"run_dir={tmp_path / 'new' / 'run'}")
    assert outcome.status == 0, outcome.err


def test_coco_files_keep_their_ids(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    words = drawn.write_coco(tmp_path / "set", voc_root)
    old = tmp_path / "old"
    outcome = detpipe(
        "propose", *words, "workers=0", "proposals=gaussian", "proposals.max_proposals=9", f"run_dir={old}"
    )
    assert outcome.status == 0, outcome.err
    source = kept_dataset(RunFolder(old))
    assert source is not None
    some = Correction(image=100, action=Action.change, object=None, id="2", label="disc", split="train")
    outcome = command(old, corrections_of(source, tmp_path, some), tmp_path / "new")
    assert outcome.status == 0, outcome.err
    copy = kept_dataset(RunFolder(tmp_path / "new" / "run"))
    assert isinstance(source, CocoSource)
    assert isinstance(copy, CocoSource)
    before, after = (json.loads(Path(str(one.train_json)).read_bytes()) for one in (source, copy))
    assert after["annotations"][1] == {**before["annotations"][1], "category_id": drawn.COCO_IDS["disc"]}
    assert {**after, "annotations": []} == {**before, "annotations": []}
    outcome = detpipe(
        "propose", "proposals=gaussian", "proposals.max_proposals=9", f"run_dir={tmp_path / 'new' / 'run'}"
    )
    assert outcome.status == 0, outcome.err
    assert "the annotations have changed, the proposals have not" in outcome.err


def test_a_new_class_joins_the_chosen_classes(voc_root: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root), classes=["square", "disc"])
    new = Correction(image="train_0", action=Action.change, object=0, label="ring")
    corrected = apply(source, tmp_path, new, allow_new_classes=True)
    assert corrected.class_names() == ["square", "disc", "ring"]


def test_corrections_of_an_audit_of_one_split_are_accepted(voc_root: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root))
    path = tmp_path / "corrections.json"
    train = labels_digest({Split.train: source.load(Split.train)})
    write_corrections(path, Corrections(dataset=train, corrections=[CHANGED]))
    run(LabelsApply(run_dir=str(tmp_path / "none"), dataset=source, corrections=str(path), out=str(tmp_path / "out")))
    assert objects(VocSource(root=str(tmp_path / "out")), Split.train, "train_0")[0][0] == "square"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two new images; one has the name of an image of the data set."""
    folder = tmp_path / "photos"
    drawn.write_jpeg(folder / "train_0.jpg", drawn.draw(500)[0])
    drawn.write_jpeg(folder / "more" / "b.jpg", drawn.draw(501)[0])
    return folder


def new(image: str, *box: float, label: str = "disc") -> Correction:
    return Correction(image=image, action=Action.add, box=(box[0], box[1], box[2], box[3]), label=label)


NEW = (
    new("train_0.jpg", 1, 2, 30, 40),
    new("more/b.jpg", 5, 5, 50, 50),
    new("more/b.jpg", 9, 9, 60, 60, label="square"),
)


def test_new_images_become_training_images(voc_root: Path, photos: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root))
    corrected = apply(source, tmp_path, CHANGED, *NEW, source=str(photos))
    names = [entry.image_id for entry in corrected.entries(Split.train)]
    assert names == [*drawn.TRAIN, "train_0_2", "b"]
    assert objects(corrected, Split.train, "train_0_2") == [("disc", (1, 2, 30, 40))]
    assert objects(corrected, Split.train, "b") == [("disc", (5, 5, 50, 50)), ("square", (9, 9, 60, 60))]
    assert len(corrected.entries(Split.test)) == len(drawn.TEST)
    changes = json.loads((tmp_path / "out" / "changes.json").read_text())["changes"]
    assert [one["image"] for one in changes] == ["train_0", "train_0.jpg", "more/b.jpg", "more/b.jpg"]


def test_new_images_join_a_coco_file(voc_root: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    words = drawn.write_coco(tmp_path / "set", voc_root)
    source = CocoSource(**dict(word.removeprefix("dataset.").split("=", 1) for word in words[1:]))  # type: ignore[arg-type]
    corrected = apply(source, tmp_path, *NEW, source=str(photos))
    added = corrected.entries(Split.train)[len(drawn.TRAIN) :]
    assert [(one.image_id, [each.name for each in one.objects]) for one in added] == [
        (110, ["disc"]),
        (111, ["disc", "square"]),
    ]
    assert isinstance(corrected, CocoSource)
    before, after = (json.loads(Path(str(one.train_json)).read_bytes()) for one in (source, corrected))
    assert after["images"][: len(drawn.TRAIN)] == before["images"]


def test_only_new_images_are_proposed_on(voc_root: Path, photos: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    words = ("workers=0", "proposals=gaussian", "proposals.max_proposals=9")
    assert detpipe("propose", *drawn.voc(voc_root), *words, f"run_dir={old}").status == 0
    path = corrections_of(VocSource(root=str(voc_root)), tmp_path, *NEW)
    outcome = command(old, path, tmp_path / "new", f"source={photos}")
    assert outcome.status == 0, outcome.err
    assert "2 new images for training" in outcome.out
    outcome = detpipe("propose", *words, f"run_dir={tmp_path / 'new' / 'run'}")
    assert outcome.status == 0, outcome.err
    assert f"{len(drawn.TRAIN + drawn.TEST)} of {len(drawn.TRAIN + drawn.TEST) + 2} images already done" in outcome.err


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_images_without_objects_join_too(layout: str, voc_root: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    if layout == "yolo":
        drawn.write_yolo(tmp_path / "set")
        source: DatasetSource = YoloSource(root=str(tmp_path / "set"))
    elif layout == "coco":
        words = drawn.write_coco(tmp_path / "set", voc_root)
        source = CocoSource(**dict(word.removeprefix("dataset.").split("=", 1) for word in words[1:]))  # type: ignore[arg-type]
    else:
        source = VocSource(root=str(voc_root))
    before = source.entries(Split.train)
    known = str(before[0].image_id)
    corrected = apply(source, tmp_path, NEW[0], reviewed=["more/b.jpg", known], source=str(photos))
    ids = {one.image_id for one in before}
    added = [one for one in corrected.entries(Split.train) if one.image_id not in ids]
    assert sorted(len(one.objects) for one in added) == [0, 1]
    assert len(corrected.load(Split.train).records) == len(before) + 2
    # The image that the data set has stays as it is.
    changes = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert (len(changes["changes"]), changes["without_effect"]) == (1, 1)


def test_new_images_need_their_folder(voc_root: Path, photos: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root))
    with pytest.raises(CorrectionError, match=r"correction 1.*source=FOLDER"):
        apply(source, tmp_path, *NEW)
    for image in ("gone.jpg", "../corrections.json"):
        with pytest.raises(CorrectionError, match=r"correction 1.*a file in source="):
            apply(source, tmp_path, new(image, 1, 1, 9, 9), source=str(photos))
        with pytest.raises(CorrectionError, match=r"reviewed.*a file in source="):
            apply(source, tmp_path, reviewed=[image], source=str(photos))
    with pytest.raises(CorrectionError, match=r"correction 2.*twice"):
        apply(source, tmp_path, NEW[0], NEW[0], source=str(photos))
    (photos / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(CorrectionError, match=r"broken\.jpg"):
        apply(source, tmp_path, new("broken.jpg", 1, 1, 9, 9), source=str(photos))


def refused(outcome: Outcome, said: str, folder: Path, left: Sequence[str]) -> None:
    assert outcome.status == 1
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(left)


def test_what_can_not_be_applied_leaves_nothing(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    source = VocSource(root=str(voc_root))
    work = tmp_path / "work"
    work.mkdir()
    path = corrections_of(source, work, CHANGED)
    content = json.loads(path.read_text())
    left = ["corrections.json"]
    inside = voc_root / "corrected"
    refused(command(run_copy, path, inside), "outside the data set", work, left)
    assert not inside.exists()
    refused(command(run_copy, path, work), "exists", work, left)
    refused(command(run_copy, work / "gone.json", work / "out"), "gone.json", work, left)
    refused(detpipe("labels", "apply", f"run_dir={run_copy}", f"out={work / 'out'}"), "corrections=FILE", work, left)
    refused(detpipe("labels", "apply", f"corrections={path}", f"run_dir={run_copy}"), "out=DIR", work, left)
    path.write_text(json.dumps({**content, "dataset": "0" * 32}))
    refused(command(run_copy, path, work / "out"), "corrections of this data set", work, left)
    thin = Correction(image="train_0", action=Action.change, object=0, box=(5, 5, 5.5, 9))
    path = corrections_of(source, work, thin)
    refused(command(run_copy, path, work / "out"), "train_0.xml: expected boxes wider", work, left)
    unknown = Correction(image="train_9x", action=Action.remove, object=0)
    path = corrections_of(source, work, CHANGED, unknown)
    refused(command(run_copy, path, work / "out"), "correction 2, image 'train_9x'", work, left)


def test_what_a_killed_command_left_is_replaced(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.part" / "Annotations").mkdir(parents=True)
    (tmp_path / ".out.part" / "Annotations" / "old.xml").write_text("x")
    apply(VocSource(root=str(voc_root)), tmp_path, CHANGED)
    assert not (tmp_path / ".out.part").exists()
    assert not (tmp_path / "out" / "Annotations" / "old.xml").exists()


BOXES = st.tuples(st.integers(0, 100), st.integers(0, 60), st.integers(2, 60), st.integers(2, 60)).map(
    lambda box: (box[0] / 1, box[1] / 1, box[0] + box[2] + 0.25, box[1] + box[3] / 1)
)


@settings(max_examples=8)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from(drawn.TRAIN), st.integers(0, 1)),
        st.tuples(BOXES, st.sampled_from(drawn.CLASSES)),
        max_size=6,
    )
)
def test_changes_and_their_inverse_give_the_same_data_set(
    voc_root: Path, tmp_path_factory: pytest.TempPathFactory, wanted: dict[tuple[str, int], tuple[Any, str]]
) -> None:
    """With no change this is: applying no corrections gives an equal data set."""
    folder = tmp_path_factory.mktemp("inverse")
    source = VocSource(root=str(voc_root))
    forward = [
        Correction(image=image, action=Action.change, object=index, box=box, label=label)
        for (image, index), (box, label) in wanted.items()
    ]
    changed = apply(source, folder, *forward, out="there")
    assert (labels_digest(load_splits(changed)) == labels_digest(load_splits(source))) == (not wanted)
    truth = load_splits(source)[Split.train].measured_truth
    assert truth is not None
    backward = [
        Correction(
            image=image,
            action=Action.change,
            object=index,
            box=tuple(np.float64(truth[image].boxes[index]).tolist()),
            label=drawn.CLASSES[truth[image].labels[index] - 1],
        )
        for image, index in wanted
    ]
    back = apply(changed, folder, *backward, out="back")
    assert labels_digest(load_splits(back)) == labels_digest(load_splits(source))
    for name in ("Annotations", "ImageSets"):
        files = {path.name: path.read_bytes() for path in (folder / "back" / name).rglob("*.*")}
        assert files == {path.name: path.read_bytes() for path in (voc_root / name).rglob("*.*")}
    shutil.rmtree(folder)
