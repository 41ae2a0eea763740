"""`detpipe labels audit` on drawn scenes with faults that are known, and what it says about input it can't use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from detpipe.classify.features.store import open_store
from detpipe.commands.labels.audit import object_ids
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.labels.suspects import Suspect, SuspectKind, read_audit
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import load_splits
from tests import drawn
from tests.command_line import Outcome, detpipe, process, start

IMAGES = 40
SEEN = (
    "backbone.weights=none",
    "features.image_sides=[192]",
    "precision=float32",
    "device=cpu",
    "workers=0",
    "width=0",
)
"""A network with random weights tells a red disc from a blue square."""
FAULTS = {
    "image_00": SuspectKind.missing,
    "image_01": SuspectKind.wrong_class,
    "image_02": SuspectKind.misplaced,
    "image_03": SuspectKind.spurious,
}


def scenes(root: Path, images: int = IMAGES) -> Path:
    """Discs and squares as a VOC folder. The first four images have one fault each."""
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    names = [f"image_{number:02}" for number in range(images)]
    for number, name in enumerate(names):
        image, truth = drawn.draw(number)
        drawn.write_jpeg(root / "JPEGImages" / f"{name}.jpg", image)
        write_voc_annotation(
            root / "Annotations" / f"{name}.xml", f"{name}.jpg", drawn.IMAGE_SIZE, truth, drawn.CLASSES
        )
    lists.joinpath("trainval.txt").write_text("\n".join(names[: images - images // 4]) + "\n")
    lists.joinpath("test.txt").write_text("\n".join(names[images - images // 4 :]) + "\n")
    return root


def spoil(root: Path) -> None:
    """Make the four faults, each on the first object of its image, the disc."""

    def drop(tree: ElementTree.Element, one: ElementTree.Element) -> None:
        tree.remove(one)

    def rename(_: ElementTree.Element, one: ElementTree.Element) -> None:
        name = one.find("name")
        assert name is not None
        name.text = "square"

    def shift(_: ElementTree.Element, one: ElementTree.Element) -> None:
        for corner in ("xmin", "xmax", "ymin", "ymax"):
            found = one.find(f"bndbox/{corner}")
            assert found is not None
            assert found.text is not None
            found.text = str(int(found.text) + (12 if corner[0] == "x" else 0))

    def invent(tree: ElementTree.Element, one: ElementTree.Element) -> None:
        # The square is moved to an empty corner, beside the square itself.
        copied = ElementTree.fromstring(ElementTree.tostring(one))
        for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), (44, 80, 78, 114), strict=True):
            found = copied.find(f"bndbox/{corner}")
            assert found is not None
            found.text = str(value)
        tree.append(copied)

    for name, change in zip(FAULTS, (drop, rename, shift, invent), strict=True):
        path = root / "Annotations" / f"{name}.xml"
        tree = ElementTree.parse(path)
        first = tree.getroot().find("object")
        assert first is not None
        change(tree.getroot(), first)
        tree.write(path)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes with faults. Read only."""
    root = scenes(tmp_path_factory.mktemp("scenes") / "voc")
    spoil(root)
    return root


@pytest.fixture(scope="module")
def proposed_run(spoilt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with proposals alone. Read only."""
    folder = tmp_path_factory.mktemp("run") / "run"
    outcome = detpipe("propose", *drawn.voc(spoilt), *drawn.settings("propose"), f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def audited(proposed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run folder with a finished audit, and what the command said. Read only."""
    folder = drawn.copy(proposed_run, tmp_path_factory.mktemp("audited") / "run")
    return folder, audit(folder)


def audit(folder: Path, *more: str) -> Outcome:
    return detpipe("labels", "audit", *SEEN, *more, f"run_dir={folder}")


def test_each_of_the_four_faults_is_the_first_of_its_kind(audited: tuple[Path, Outcome]) -> None:
    folder, outcome = audited
    assert outcome.status == 0, outcome.err
    found = read_audit(folder / "audit.json").suspects
    first: dict[str, Suspect] = {}
    for one in found[: len(FAULTS)]:
        first[str(one.image)] = one
    assert {name: one.kind for name, one in first.items()} == FAULTS
    assert all(one.score > 0.5 for one in first.values())
    assert first["image_00"].suggestion.label == first["image_01"].suggestion.label == "disc"
    assert first["image_01"].label == "square"
    assert (first["image_00"].object, first["image_03"].object) == (None, 2)


def test_the_rest_is_less_probable_and_each_label_is_listed_once(audited: tuple[Path, Outcome]) -> None:
    found = read_audit(audited[0] / "audit.json").suspects
    assert all(one.score < 0.5 for one in found[len(FAULTS) :])
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    objects = [(one.split, one.image, one.object) for one in found if one.object is not None]
    assert len(objects) == len(set(objects))


def test_the_summary_counts_kinds_and_names_the_first_suspects(audited: tuple[Path, Outcome]) -> None:
    folder, outcome = audited
    assert "1 missing, 1 wrong class, 1 misplaced, 1 spurious" in outcome.out
    assert "train/image_03" in outcome.out
    assert str(folder / "audit.html") in outcome.out
    assert (folder / "audit.html").stat().st_size > 10_000
    assert not (folder / "audit" / "scores").exists()


def test_the_digest_is_that_of_the_labels(audited: tuple[Path, Outcome], spoilt: Path) -> None:
    splits = load_splits(VocSource(root=str(spoilt)))
    assert read_audit(audited[0] / "audit.json").dataset == labels_digest(splits)


def test_a_finished_audit_is_not_made_again(audited: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = drawn.copy(audited[0], tmp_path / "run")
    before = content(folder)
    outcome = audit(folder)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[1:-1] == audited[1].out.splitlines()[1:-1]
    assert content(folder) == before


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in OUTPUTS}


OUTPUTS = ("audit.json", "audit.html", "audit/features/features.npy")


def test_another_setting_is_refused_and_named(audited: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = drawn.copy(audited[0], tmp_path / "run")
    outcome = audit(folder, "folds=4")
    assert outcome.status == 1
    assert "folds" in outcome.err
    assert "overwrite=true" in outcome.err


def test_corrected_labels_reuse_the_features_of_other_images(
    audited: tuple[Path, Outcome], spoilt: Path, tmp_path: Path
) -> None:
    folder, root = drawn.copy(audited[0], tmp_path / "run"), drawn.copy(spoilt, tmp_path / "voc")
    shutil.copy(scenes(tmp_path / "right") / "Annotations" / "image_01.xml", root / "Annotations")
    outcome = audit(folder, *drawn.voc(root), "overwrite=true")
    assert outcome.status == 0, outcome.err
    summary = json.loads((folder / "audit" / "features" / "manifest.json").read_text())["summary"]
    assert summary["taken_over"] > 0.95 * summary["regions"]
    assert set(computed_images(audited[0], folder)) < set(computed_images(tmp_path / "none", folder))
    assert len(computed_images(audited[0], folder)) < IMAGES / 3
    assert "image_01" not in {str(one.image) for one in read_audit(folder / "audit.json").suspects if one.score > 0.5}


def test_features_of_the_run_are_reused_and_give_the_same_bytes(
    audited: tuple[Path, Outcome], proposed_run: Path, tmp_path: Path
) -> None:
    folder = drawn.copy(proposed_run, tmp_path / "run")
    seen = [word for word in SEEN if not word.startswith("width")]
    made = detpipe("features", *seen, "features.crops=false", "detect.max_proposals=50", f"run_dir={folder}")
    assert made.status == 0, made.err
    outcome = audit(folder)
    assert outcome.status == 0, outcome.err
    assert taken_over(folder) > 0
    assert taken_over(audited[0]) == 0
    for name in ("audit.json", "audit/features/features.npy"):
        assert (folder / name).read_bytes() == (audited[0] / name).read_bytes()


@pytest.mark.slow
def test_features_of_other_settings_are_not_reused(proposed_run: Path, tmp_path: Path) -> None:
    folder = drawn.copy(proposed_run, tmp_path / "run")
    seen = [word for word in SEEN if not word.startswith("width")]
    made = detpipe("features", *seen, "features.crops=false", "features.mirrored=true", f"run_dir={folder}")
    assert made.status == 0, made.err
    assert audit(folder).status == 0
    assert taken_over(folder) == 0


def taken_over(folder: Path) -> int:
    manifest = json.loads((folder / "audit" / "features" / "manifest.json").read_text())
    return int(manifest["summary"]["taken_over"])


def computed_images(before: Path, folder: Path) -> list[str]:
    """The images with features that the store of `before` lacks."""
    store = open_store(folder / "audit" / "features")
    known = set(open_store(before / "audit" / "features").keys) if before.is_dir() else set()
    return [str(name) for name, rows in store.spans.items() if not set(store.keys[rows]) <= known]


@pytest.mark.slow
def test_an_interrupted_audit_continues_and_ends_the_same(
    audited: tuple[Path, Outcome], proposed_run: Path, tmp_path: Path
) -> None:
    folder = drawn.copy(proposed_run, tmp_path / "run")
    for file in ("audit/features/done.json", "audit/scores"):
        running = start("labels", "audit", *SEEN, f"run_dir={folder}")
        deadline = time.monotonic() + 100
        while not (folder / file).exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGTERM)
        _, err = running.communicate(timeout=100)
        assert running.returncode == 130, err
        assert not (folder / "audit.json").exists()
    finished = process("labels", "audit", *SEEN, f"run_dir={folder}")
    assert finished.status == 0, finished.err
    assert (folder / "audit.json").read_bytes() == (audited[0] / "audit.json").read_bytes()


def test_a_damaged_scores_file_is_made_again(audited: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = drawn.copy(audited[0], tmp_path / "run")
    expected = (folder / "audit.json").read_bytes()
    manifest = json.loads((folder / "audit.manifest.json").read_text())
    manifest["complete"] = False
    (folder / "audit.manifest.json").write_text(json.dumps(manifest))
    (folder / "audit" / "scores").mkdir()
    for fold in range(5):
        (folder / "audit" / "scores" / f"{fold}.npy").write_bytes(b"\x93NUMPY")
    assert audit(folder).status == 0
    assert (folder / "audit.json").read_bytes() == expected


def test_objects_keep_the_annotation_ids_of_coco_and_voc_has_none(voc_root: Path, tmp_path: Path) -> None:
    drawn.write_coco(tmp_path, voc_root)
    images = str(voc_root / "JPEGImages")
    coco = CocoSource(
        train_json=str(tmp_path / "train.json"),
        train_images=images,
        test_json=str(tmp_path / "test.json"),
        test_images=images,
    )
    assert object_ids(coco, Split.train, drawn.CLASSES)[101] == ["3", "4"]
    assert object_ids(coco, Split.train, ("square",))[101] == ["4"]
    assert object_ids(VocSource(root=str(voc_root)), Split.test, drawn.CLASSES)["test_0"] == [None, None]


def test_a_run_without_proposals_is_told_so(spoilt: Path, tmp_path: Path) -> None:
    outcome = audit(tmp_path / "run", *drawn.voc(spoilt))
    assert outcome.status == 1
    assert "detpipe propose" in outcome.err


def test_a_run_without_a_data_set_is_told_so(tmp_path: Path) -> None:
    outcome = audit(tmp_path / "run")
    assert outcome.status == 1
    assert "dataset" in outcome.err


def test_a_head_that_trains_with_its_backbone_is_refused(proposed_run: Path) -> None:
    outcome = audit(proposed_run, "head=softmax")
    assert outcome.status == 1
    assert "head" in outcome.err


Change = Callable[[Path], None]


def one_image(root: Path) -> None:
    for name in ("trainval", "test"):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("image_00\n")


def without_labels(root: Path) -> None:
    for path in (root / "Annotations").glob("*.xml"):
        tree = ElementTree.parse(path)
        for one in tree.getroot().findall("object"):
            tree.getroot().remove(one)
        tree.write(path)


def rare_class(root: Path) -> None:
    path = root / "Annotations" / "image_05.xml"
    path.write_text(path.read_text().replace("disc", "ring"))


def audited_after(change: Change, tmp_path: Path, *more: str) -> tuple[Outcome, Path]:
    root = scenes(tmp_path / "voc", 12)
    change(root)
    folder = tmp_path / "run"
    proposed = detpipe("propose", *drawn.voc(root), *drawn.settings("propose"), *more, f"run_dir={folder}")
    assert proposed.status == 0, proposed.err
    return audit(folder, *drawn.voc(root), *more), folder


def test_one_image_alone_cannot_be_judged(tmp_path: Path) -> None:
    outcome, _ = audited_after(one_image, tmp_path)
    assert outcome.status == 1
    assert "at least 2 images" in outcome.err


def test_images_without_labels_give_no_suspects(tmp_path: Path) -> None:
    outcome, folder = audited_after(without_labels, tmp_path, "dataset.classes=[disc,square]")
    assert outcome.status == 0, outcome.err
    assert read_audit(folder / "audit.json").suspects == []


def test_a_class_without_labels_is_never_found(tmp_path: Path) -> None:
    outcome, folder = audited_after(lambda _: None, tmp_path, "dataset.classes=[disc,square,ring]")
    assert outcome.status == 0, outcome.err
    assert all(one.suggestion.label != "ring" for one in read_audit(folder / "audit.json").suspects)


def test_a_class_with_one_label_is_judged_with_the_others(tmp_path: Path) -> None:
    outcome, folder = audited_after(rare_class, tmp_path)
    assert outcome.status == 0, outcome.err
    # No head has seen a ring but in this image: it looks like a disc.
    rings = [one for one in read_audit(folder / "audit.json").suspects if one.label == "ring"]
    assert [one.suggestion.label for one in rings] == ["disc"]
    assert rings[0].kind is SuspectKind.wrong_class
