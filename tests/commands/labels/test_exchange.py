"""`detpipe labels export`, an edit as each tool makes it, and `labels diff`: the edit comes back as corrections."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.labels.corrections import Action, Correction, Corrections, read_corrections
from detpipe.labels.label_diff import diff_labels
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind, write_audit
from detpipe.labels.tools.exchange import EditedImage
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import load_splits
from detpipe.structures import Dataset, GroundTruth, ImageId, ImageRecord
from tests import drawn
from tests.command_line import Outcome, detpipe

TOOLS = ("coco", "cvat", "label_studio", "fiftyone")
NEW = [20.0, 30.0, 60.0, 90.0]


def coco(path: Path, edited: bool) -> None:
    """Another tool numbers all annotations anew, and keeps `attributes` alone."""
    content = json.loads(path.read_bytes())
    by_image: dict[int, list[dict[str, Any]]] = {}
    for one in content["annotations"]:
        by_image.setdefault(one["image_id"], []).append(
            {key: one[key] for key in one if key not in ("detpipe_id", "area")}
        )
    if edited:
        by_image[1][0]["category_id"] = 2
        by_image[2].pop(1)
        x, y, width, height = by_image[3][0]["bbox"]
        by_image[3][0]["bbox"] = [x + 5, y, width, height]
        by_image[4].append({"image_id": 4, "category_id": 1, "bbox": [20, 30, 40, 60]})
    rows = [one for some in by_image.values() for one in some]
    content["annotations"] = [{**one, "id": number} for number, one in enumerate(rows, start=100)]
    path.write_text(json.dumps(content))


def cvat(path: Path, edited: bool) -> None:
    tree = ElementTree.parse(path)
    images = list(tree.getroot().iter("image"))
    if edited:
        images[0].findall("box")[0].set("label", "square")
        images[1].remove(images[1].findall("box")[1])
        box = images[2].findall("box")[0]
        for side in ("xtl", "xbr"):
            box.set(side, str(float(box.get(side, "0")) + 5))
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, NEW), strict=True))
        ElementTree.SubElement(images[3], "box", {"label": "disc", **corners})
    tree.write(path)


def label_studio(path: Path, edited: bool) -> None:
    """A person submits the prediction of the labels, edited or not. Uploaded files get a prefix."""
    tasks = json.loads(path.read_bytes())
    for number, task in enumerate(tasks):
        result = task["predictions"][0]["result"]
        name = task["data"]["image"].rpartition("=")[2]
        task["data"] = {"image": f"/data/upload/1/0123abcd-{name}"}
        if edited and number == 0:
            result[0]["value"]["rectanglelabels"] = ["square"]
        if edited and number == 1:
            result.pop(1)
        if edited and number == 2:
            result[0]["value"]["x"] += 100 * 5 / 160
        if edited and number == 3:
            value = {"x": 12.5, "y": 25, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["disc"]}
            result.append({**result[0], "id": "aB3", "value": value})
        task["annotations"] = [{"result": [], "was_cancelled": False}, {"result": result, "was_cancelled": False}]
    path.write_text(json.dumps(tasks))


def fiftyone(path: Path, edited: bool) -> None:
    content = json.loads(path.read_bytes())
    images = list(content["labels"].values())
    if edited:
        images[0][0]["label"] = 1  # an index in `classes`
        images[1].pop(1)
        images[2][0]["bounding_box"][0] += 5 / 160
        images[3].append({"label": "disc", "bounding_box": [0.125, 0.25, 0.25, 0.5]})
    path.write_text(json.dumps({"classes": content["classes"], "labels": content["labels"]}))


EDITS: dict[str, Callable[[Path, bool], None]] = {
    "coco": coco,
    "cvat": cvat,
    "label_studio": label_studio,
    "fiftyone": fiftyone,
}


def export(tool: str, voc_root: Path, folder: Path, *more: str) -> Path:
    path = folder / f"labels.{tool}"
    outcome = detpipe(
        "labels", "export", *drawn.voc(voc_root), f"tool={tool}", f"run_dir={folder}", f"out={path}", *more
    )
    assert outcome.status == 0, outcome.err
    return path


def diff(path: Path, voc_root: Path, folder: Path) -> Outcome:
    out = folder / "corrections.json"
    return detpipe("labels", "diff", str(path), *drawn.voc(voc_root), f"run_dir={folder}", f"out={out}")


def found(path: Path, voc_root: Path, folder: Path) -> Corrections:
    outcome = diff(path, voc_root, folder)
    assert outcome.status == 0, outcome.err
    return read_corrections(folder / "corrections.json")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_edited_comes_back(tool: str, voc_root: Path, tmp_path: Path) -> None:
    path = export(tool, voc_root, tmp_path)
    EDITS[tool](path, True)
    corrections = found(path, voc_root, tmp_path)
    splits = load_splits(VocSource(root=str(voc_root)))
    assert corrections.dataset == labels_digest(splits)
    truth = splits[Split.train].measured_truth
    assert truth is not None
    x1, y1, x2, y2 = truth["train_2"].boxes[0].tolist()
    rounded = [
        (one.image, one.action, one.object, one.label, None if one.box is None else [round(x, 1) for x in one.box])
        for one in corrections.corrections
    ]
    assert rounded == [
        ("train_0", Action.change, 0, "square", None),
        ("train_1", Action.remove, 1, None, None),
        ("train_2", Action.change, 0, None, [x1 + 5, y1, x2 + 5, y2]),
        ("train_3", Action.add, None, "disc", NEW),
    ]


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_not_edited_gives_no_corrections(tool: str, voc_root: Path, tmp_path: Path) -> None:
    path = export(tool, voc_root, tmp_path)
    EDITS[tool](path, False)
    assert found(path, voc_root, tmp_path).corrections == []


@pytest.mark.parametrize("tool", TOOLS)
def test_without_keys_objects_are_found_by_their_places(tool: str, voc_root: Path, tmp_path: Path) -> None:
    path = export(tool, voc_root, tmp_path)
    EDITS[tool](path, True)
    path.write_text(re.sub(r"[0-9a-f]{8}/(train|test)/(\w+)/\d", "gone", path.read_text()))
    actions = [(one.image, one.action, one.object) for one in found(path, voc_root, tmp_path).corrections]
    assert actions == [
        ("train_0", Action.change, 0),
        ("train_1", Action.remove, 1),
        ("train_2", Action.change, 0),
        ("train_3", Action.add, None),
    ]


def audited(voc_root: Path, folder: Path) -> None:
    wrong = Suspect(
        image="train_1",
        split="train",
        kind=SuspectKind.wrong_class,
        score=0.75,
        object=1,
        box=(1, 1, 5, 5),
        label="square",
        suggestion=Suggestion(action=Action.change, label="disc"),
    )
    missing = Suspect(
        image="train_2",
        split="train",
        kind=SuspectKind.missing,
        score=0.5,
        object=None,
        box=(1, 2, 30, 40),
        label="disc",
        suggestion=Suggestion(action=Action.add, label="disc", box=(1, 2, 30, 40)),
    )
    write_audit(folder / "audit.json", labels_digest(load_splits(VocSource(root=str(voc_root)))), [wrong, missing])


def test_suspects_go_with_the_labels(voc_root: Path, tmp_path: Path) -> None:
    audited(voc_root, tmp_path)
    tasks = json.loads(export("label_studio", voc_root, tmp_path, "only_suspects=true").read_bytes())
    assert [task["data"]["detpipe_id"] for task in tasks] == ["train/train_1", "train/train_2"]
    first, second = (task["predictions"] for task in tasks)
    assert [(one["model_version"], one["score"]) for one in first] == [("labels", 0.25)]
    assert [one["score"] for one in first[0]["result"]] == [1, 0.25]
    assert [(one["model_version"], one["score"], len(one["result"])) for one in second] == [
        ("labels", 0.5, 2),
        ("labels and missing ones", 0.5, 3),
    ]
    rows = json.loads(export("coco", voc_root, tmp_path).read_bytes())["annotations"]
    assert [(one["suspect"], one["probability"]) for one in rows if "suspect" in one] == [("wrong_class", 0.75)]
    text = export("cvat", voc_root, tmp_path).read_text()
    assert text.count("wrong_class") == 1
    assert json.loads((tmp_path / "labels_labels.json").read_bytes())[0]["name"] == "disc"
    content = json.loads(export("fiftyone", voc_root, tmp_path).read_bytes())
    assert [name for name, some in content["missing"].items() if some] == ["train_2"]
    assert content["missing"]["train_2"][0]["confidence"] == 0.5


def test_detections_of_the_run_are_predictions(finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    words = ("tool=label_studio", f"run_dir={finished_run}", f"out={path}", "min_score=0")
    assert (outcome := detpipe("labels", "export", *words)).status == 0, outcome.err
    detections = json.loads((finished_run / "detections.json").read_bytes())
    written = [
        one
        for task in json.loads(path.read_bytes())
        for one in task["predictions"]
        if one["model_version"] == "detections"
    ]
    assert sum(len(one["result"]) for one in written) == len(detections) > 0
    assert (tmp_path / "tasks_interface.xml").read_text().count("<Label value=") == 2


def test_images_that_a_tool_has_renamed_are_found_by_the_keys_of_their_objects(voc_root: Path, tmp_path: Path) -> None:
    """FiftyOne leaves out folders and numbers equal names: "a/x" may be called "x", and "x" then "x-2"."""
    path = export("fiftyone", voc_root, tmp_path)
    content = json.loads(path.read_bytes())
    labels = content["labels"]
    labels["train_0"], labels["train_1"] = labels["train_1"], labels["train_0"]
    labels["train_2-2"] = labels.pop("train_2")
    labels["train_2"] = []  # of another image: its objects were removed
    labels["train_1"].pop(1)
    path.write_text(json.dumps(content))
    outcome = diff(path, voc_root, tmp_path)
    corrections = read_corrections(tmp_path / "corrections.json").corrections
    assert corrections == [Correction(image="train_0", action=Action.remove, object=1, split="train")]
    assert "left out: train_2" in outcome.err


def test_a_name_without_its_folder_must_be_the_only_one(tmp_path: Path) -> None:
    """Label Studio exports "a/x.jpg" as "images/01234567__x.jpg", without keys."""
    records: list[ImageRecord] = []
    boxes: dict[ImageId, GroundTruth] = {}
    for name in ("x.jpg", "a/x.jpg", "b/y 1.jpg"):
        records.append(ImageRecord(name, tmp_path / name, (20, 40)))
        boxes[name] = GroundTruth.from_boxes([[1, 2, 30, 15]], [1])
    splits = {Split.train: Dataset("photos", ("cat",), (1,), tuple(records), boxes)}
    names = ["images/01234567__x.jpg", "images/01234568__y 1.jpg", "/data/local-files/?d=images/a/x.jpg"]
    found = diff_labels(splits, "0", [EditedImage(name=one, key=None, objects=[]) for one in names], tolerance=0.5)
    assert found.unknown == names[:1]
    assert [one.image for one in found.corrections] == ["a/x.jpg", "b/y 1.jpg"]


def test_a_copied_box_is_a_new_object(voc_root: Path, tmp_path: Path) -> None:
    path = export("cvat", voc_root, tmp_path)
    tree = ElementTree.parse(path)
    image = next(tree.getroot().iter("image"))
    copy = ElementTree.fromstring(ElementTree.tostring(image.findall("box")[0]))
    copy.attrib |= dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, NEW), strict=True))
    image.insert(0, copy)
    tree.write(path)
    assert found(path, voc_root, tmp_path).corrections == [
        Correction(image="train_0", action=Action.add, box=(20, 30, 60, 90), label="disc", split="train")
    ]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotations>&c;</annotations>'
TASK = '{"data": {"image": "train_0.jpg"}, "annotations": [{"result": [%s]}]}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "entities"),
        ("<annotations><image", "CVAT for images"),
        ("<annotation/>", "CVAT for images"),
        ("<annotations><track/></annotations>", "CVAT for video"),
        ("<annotations><image/></annotations>", "a name of each image"),
        ("<annotations><image name='train_0.jpg'><box xtl='1'/></image></annotations>", "a label of each box"),
        ("<annotations><image name='train_0.jpg'><box label='disc' xtl='nan'/></image></annotations>", "xtl"),
        ("", "empty file"),
        ("PK\3\4", "unpack"),
        ("[" * 200, "deep"),
        ("[1]", "list of tasks"),
        ("[{}]", "list of tasks"),
        ("[]", "images of the data set"),
        ('[{"data": {}, "annotations": [{"result": []}]}]', '"image"'),
        (f"[{TASK % 1}]", "task 0"),
        ('[{"data": {"image": "a.jpg"}, "annotations": 3}]', "task 0"),
        ('{"a": 1}', "images and annotations"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
        ('{"images": 1, "annotations": []}', "list of objects"),
        (
            '{"images": [{"id": 1, "file_name": "train_0.jpg"}], "annotations": [{"id": 4, "image_id": 1}]}',
            "annotation 4",
        ),
        ('{"labels": 4}', '"labels"'),
        ('{"labels": {"train_0": [{"label": "disc"}]}}', "bounding_box"),
        ('{"labels": {"train_0": [{"label": 7, "bounding_box": [0, 0, 1, 1]}]}}', "train_0"),
        ('{"labels": {"train_0": [{"label": "disc", "bounding_box": [0.5, 0, 0, 1]}]}}', "x1 < x2"),
        ('{"labels": {"elsewhere": []}}', "images of the data set"),
    ],
)
def test_other_content_is_one_sentence(content: str, said: str, voc_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "edited"
    path.write_text(content)
    outcome = diff(path, voc_root, tmp_path)
    last = outcome.err.strip().splitlines()[-1]
    assert (outcome.status, said in last, "edited" in last or "image train_0" in last) == (1, True, True), outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "corrections.json").exists()


def test_wrong_settings_are_named(voc_root: Path, tmp_path: Path) -> None:
    dataset = (*drawn.voc(voc_root), f"run_dir={tmp_path}")
    for words, said in (
        (("export",), "out=FILE"),
        (("export", f"out={tmp_path}"), "the folder"),
        (("export", f"out={tmp_path / 'a'}", "only_suspects=true"), "detpipe labels audit"),
        (("export", f"out={tmp_path / 'a'}", "min_score=2"), "min_score"),
        (("diff",), "edited=FILE"),
        (("diff", "edited=none.json"), "none.json"),
        (("diff", "edited=none.json", "tolerance=-1"), "tolerance"),
    ):
        outcome = detpipe("labels", *words[:1], *dataset, *words[1:])
        assert (outcome.status, said in outcome.err) == (1, True), outcome.err
    audited(voc_root, tmp_path)
    (tmp_path / "audit.json").write_text((tmp_path / "audit.json").read_text().replace('"dataset": "', '"dataset": "x'))
    outcome = detpipe("labels", "export", *dataset, f"out={tmp_path / 'a'}")
    assert (outcome.status, "audit of these labels" in outcome.err) == (1, True), outcome.err
