"""`train-multibox` and `propose proposals=multibox` by the command line, on the drawn data set."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import pytest

from detpipe.commands import train_multibox
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.commands.test_run import bytes_of
from tests.commands.tiny_networks import BACKBONE, COMMON, DETECTION, TRAINING
from tests.heads.multibox.tiny import NET

TINY = (
    "device=cpu",
    "workers=0",
    "precision=float32",
    "backbone.name=caffe",
    "backbone.weights=none",
    "backbone.mean=[104,117,123]",
    "backbone.scale=0.016",
    "multibox.maps=[stride8]",
    "multibox.width=8",
    "multibox.scales=[64]",
    "multibox.priors=2",
    "multibox.freeze_stages=0",
    "solver.max_iter=2",
    "solver.batch_size=2",
    "solver.snapshot=1",
    "val_share=0.3",
)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the tiny net."""
    path = tmp_path_factory.mktemp("net") / "tiny.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def trained(voc_root: Path, net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("multibox") / "run"
    outcome = train(voc_root, net, folder)
    assert outcome.status == 0, outcome.err
    return folder


def train(voc_root: Path, net: Path, folder: Path, *more: str) -> Outcome:
    return detpipe(
        "train-multibox", *drawn.voc(voc_root), *TINY, f"backbone.prototxt={net}", *more, f"run_dir={folder}"
    )


def test_what_is_written(trained: Path) -> None:
    folder = trained / "multibox"
    manifest = read_manifest(folder)
    assert manifest.complete
    assert manifest.stage == "train-multibox"
    assert manifest.summary["iterations"] == 2
    assert {path.name for path in folder.iterdir()} >= {"weights.safetensors", "multibox.json", "net.prototxt"}
    stored = json.loads((folder / "multibox.json").read_text())
    assert sum(map(len, stored["shapes"])) == 2
    assert stored["multibox"]["form"] == "pyramid"


def test_its_network_proposes(trained: Path, voc_root: Path, tmp_path: Path) -> None:
    outcome = detpipe(
        *["propose", *drawn.voc(voc_root), "workers=0", "device=cpu", "proposals=multibox"],
        *[f"proposals.weights={trained / 'multibox'}", "proposals.max_proposals=30", f"run_dir={tmp_path}"],
    )
    assert outcome.status == 0, outcome.err
    recall = json.loads((tmp_path / "recall.json").read_text())
    assert recall
    manifest = read_manifest(tmp_path / "proposals.lmdb")
    assert manifest.settings["proposals"]["method"] == "MultiBoxProposals"
    assert "weights.safetensors" in str(manifest.inputs)
    assert manifest.summary["images"] == 14


def test_run_takes_a_network_that_was_trained_before(trained: Path, voc_root: Path, net: Path, tmp_path: Path) -> None:
    """Its solver had settings that `detpipe run` lacks. It is the same run folder: nothing is trained again."""
    run = drawn.copy(trained, tmp_path / "run")
    before = (run / "multibox" / "weights.safetensors").read_bytes()
    outcome = detpipe(
        *["run", *drawn.voc(voc_root), "head=fast_rcnn", *COMMON, *BACKBONE, f"backbone.prototxt={net}", *TRAINING],
        *[*DETECTION, "proposals=multibox", f"proposals.weights={run / 'multibox'}", f"run_dir={run}"],
    )
    assert outcome.status == 0, outcome.err
    assert (run / "multibox" / "weights.safetensors").read_bytes() == before
    assert (run / "metrics.json").is_file()


def test_a_folder_without_a_network_is_named(voc_root: Path, tmp_path: Path) -> None:
    propose = ["propose", *drawn.voc(voc_root), "workers=0", "proposals=multibox", f"run_dir={tmp_path / 'run'}"]
    outcome = detpipe(*propose, f"proposals.weights={tmp_path}")
    assert outcome.status == 1
    assert f"proposals.weights: {tmp_path}: expected a trained MultiBox" in outcome.err
    assert not (tmp_path / "run" / "proposals.lmdb").exists()
    (tmp_path / "multibox").mkdir()
    assert f"did you mean {tmp_path / 'multibox'}?" in detpipe(*propose, f"proposals.weights={tmp_path}").err
    outcome = detpipe(*propose)
    assert outcome.status == 1
    assert "give proposals.weights=DIR" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_second_run_does_nothing(trained: Path, voc_root: Path, net: Path, tmp_path: Path) -> None:
    folder = drawn.copy(trained, tmp_path / "run")
    before = bytes_of(folder)
    outcome = train(voc_root, net, folder)
    assert outcome.status == 0, outcome.err
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("multibox.location_weight=2", "location_weight: 1.0 -> 2.0"),
        ("solver.max_iter=3", "solver.max_iter: 2 -> 3"),
        ("seed=1", "seed: 0 -> 1"),
    ],
)
def test_another_setting_is_refused_by_name(
    trained: Path, voc_root: Path, net: Path, override: str, named: str
) -> None:
    outcome = train(voc_root, net, trained, override)
    assert outcome.status == 1
    assert named in outcome.err


@pytest.mark.parametrize("setting", ["backbone.weights", "solver.weights"])
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("gone.safetensors", "no such file|does not exist"),
        ("folder", r"expected a (\.caffemodel|(PyTorch )?file of weights), got"),
        ("text.safetensors", "text.safetensors: expected a safetensors file"),
        ("text.pt", "text.pt: "),
    ],
)
def test_weights_that_are_none_are_named_before_anything_is_deleted(
    trained: Path, voc_root: Path, net: Path, tmp_path: Path, setting: str, file: str, said: str
) -> None:
    folder = drawn.copy(trained, tmp_path / "run")
    before = bytes_of(folder)
    (tmp_path / "folder").mkdir()
    for name in ("text.safetensors", "text.pt"):
        (tmp_path / name).write_text("no weights")
    outcome = train(voc_root, net, folder, f"{setting}={tmp_path / file}", "overwrite=true")
    assert outcome.status == 1
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith(f"detpipe train-multibox: {setting}: ")
    assert re.search(said, last)
    assert str(tmp_path / file) in last
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["solver.weights=gone.pt"], "solver.weights: no such file"),
        (["solver.resume=gone.pt"], "solver.resume: expected auto, none or the path of a snapshot"),
        (["backbone.weights=gone.pth"], "gone.pth"),
        (["multibox.maps=[stride9]"], "stride9"),
        (["multibox.freeze_stages=99"], "multibox.freeze_stages"),
        (["backbone.name=torchvision/resnet51"], "resnet51"),
    ],
)
def test_what_cannot_be_is_told_before_the_data_are_read(
    words: list[str], said: str, voc_root: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("the data set was read")

    monkeypatch.setattr(train_multibox, "training_parts", read)
    outcome = train(voc_root, net, tmp_path, *words)
    assert outcome.status == 1
    assert said in outcome.err


def test_priors_of_another_form_are_told_before_the_data_are_read(
    trained: Path, voc_root: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_multibox, "training_parts", lambda *_, **__: pytest.fail("the data set was read"))
    weights = f"solver.weights={trained / 'multibox' / 'weights.safetensors'}"
    outcome = train(voc_root, net, tmp_path, weights, "multibox.form=grids", "multibox.maps=[stride8,stride4]")
    assert outcome.status == 1
    assert "solver.weights: expected a MultiBox of the form" in outcome.err or "feature maps" in outcome.err


@pytest.mark.parametrize("setting", ["solver.weights", "backbone.weights", "solver.resume"])
def test_what_it_starts_from_is_not_deleted(
    trained: Path, voc_root: Path, net: Path, tmp_path: Path, setting: str
) -> None:
    folder = drawn.copy(trained, tmp_path / "run")
    before = bytes_of(folder)
    file = folder / "multibox" / "weights.safetensors"
    outcome = train(voc_root, net, folder, f"{setting}={file}", "overwrite=true")
    assert outcome.status == 1
    assert (
        f"{setting}: expected a file outside {folder / 'multibox'}, which overwrite=true deletes first" in outcome.err
    )
    assert bytes_of(folder) == before
    outcome = train(voc_root, net, folder, "solver.resume=gone.pt", "overwrite=true")
    assert "solver.resume: expected auto, none or the path of a snapshot, got gone.pt" in outcome.err
    assert bytes_of(folder) == before


@pytest.mark.parametrize("preset", ["multibox_2014", "msc_multibox"])
def test_the_papers_presets(preset: str, voc_root: Path, net: Path, tmp_path: Path) -> None:
    outcome = train(voc_root, net, tmp_path, f"multibox={preset}", "multibox.hidden=16", "multibox.priors=5")
    assert outcome.status == 0, outcome.err
    counts = list(map(len, json.loads((tmp_path / "multibox" / "multibox.json").read_text())["shapes"]))
    assert counts == {"multibox_2014": [5], "msc_multibox": [*[11] * 5, 1]}[preset]


def test_proposals_stand_for_objects(proposed_copy: Path, voc_root: Path, net: Path) -> None:
    run = proposed_copy / "gaussian"
    outcome = train(voc_root, net, run, "targets=proposals", "target_boxes=5")
    assert outcome.status == 0, outcome.err
    assert read_manifest(run / "multibox").complete
    more = train(voc_root, net, run, "targets=proposals", "target_boxes=6")
    assert more.status == 1
    assert "targets" in more.err


def test_images_without_annotations_teach_by_proposals(voc_root: Path, net: Path, tmp_path: Path) -> None:
    coco = drawn.write_coco(tmp_path / "coco", voc_root)
    for file in (tmp_path / "coco").glob("*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({name: value for name, value in content.items() if name != "annotations"}))
    common = [*coco, "workers=0", "device=cpu", f"run_dir={tmp_path / 'run'}"]
    outcome = detpipe("propose", *common, "proposals=uniform", "proposals.max_proposals=20")
    assert outcome.status == 0, outcome.err
    words = ["train-multibox", *TINY, f"backbone.prototxt={net}", *common]
    outcome = detpipe(*words, "targets=proposals")
    assert outcome.status == 0, outcome.err
    assert read_manifest(tmp_path / "run" / "multibox").complete
    outcome = detpipe(*words, "overwrite=true")
    assert (outcome.status, "expected a train split with annotations" in outcome.err) == (1, True)


def test_a_start_from_proposals_keeps_their_priors(
    proposed_copy: Path, trained: Path, voc_root: Path, net: Path, tmp_path: Path
) -> None:
    """Objects make other priors than proposals do, of other numbers by map; what was learned is how those move."""
    run = proposed_copy / "gaussian"
    assert train(voc_root, net, run, "targets=proposals", "multibox.priors=5").status == 0
    weights = f"solver.weights={run / 'multibox' / 'weights.safetensors'}"
    outcome = train(voc_root, net, tmp_path / "tuned", weights, "multibox.priors=5")
    assert outcome.status == 0, outcome.err
    start, tuned, own = (
        json.loads((one / "multibox" / "multibox.json").read_text())["shapes"]
        for one in (run, tmp_path / "tuned", trained)
    )
    assert tuned == start != own

    other = train(voc_root, net, tmp_path / "other", weights, "multibox=msc_multibox")
    assert other.status == 1
    assert "expected a MultiBox of the form grids and 6 maps, got pyramid and 2" in other.err


def test_without_proposals_they_are_asked_for(voc_root: Path, net: Path, tmp_path: Path) -> None:
    outcome = train(voc_root, net, tmp_path, "targets=proposals")
    assert outcome.status == 1
    assert "proposals.lmdb" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_broken_image_is_left_out_and_named(voc_root: Path, net: Path, tmp_path: Path) -> None:
    """PNGs whose header and end are sound: only the decoder finds out."""
    root = drawn.copy(voc_root, tmp_path / "drawn")
    data = bytearray(cv2.imencode(".png", drawn.draw(5)[0])[1].tobytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 2000] = bytes(2000)
    file = root / "JPEGImages" / "train_5.jpg"
    file.write_bytes(bytes(data))
    strict = train(root, net, tmp_path / "strict")
    assert strict.status == 1
    assert "can't be read, more than dataset.max_bad=0.01" in strict.err
    assert str(file) in strict.err
    outcome = train(root, net, tmp_path / "run", "dataset.max_bad=0.5")
    assert outcome.status == 0, outcome.err
    assert f"left out: {file}: " in outcome.err
    assert read_manifest(tmp_path / "run" / "multibox").complete


def test_images_without_objects_alone(voc_root: Path, net: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "drawn")
    for file in (root / "Annotations").glob("*.xml"):
        text = file.read_text()
        file.write_text(text[: text.index("<object>")] + "</annotation>")
    outcome = train(root, net, tmp_path / "run")
    assert outcome.status == 1
    assert "priors: expected objects to cluster, got none" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run" / "multibox").exists()


def test_an_unfinished_training_goes_on(trained: Path, voc_root: Path, net: Path, tmp_path: Path) -> None:
    """As after a kill behind the first snapshot: the manifest says that it isn't done, and no weights are there."""
    folder = drawn.copy(trained, tmp_path / "run") / "multibox"
    for path in (folder / "snapshots").glob("*"):
        if "0000001" not in path.name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "weights.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["complete"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest))
    outcome = train(voc_root, net, tmp_path / "run")
    assert outcome.status == 0, outcome.err
    name = "weights.safetensors"
    assert (folder / name).read_bytes() == (trained / "multibox" / name).read_bytes()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("val_share=1", "val_share in"),
        ("target_boxes=0", "target_boxes >= 1"),
        ("multibox.maps=[a]", "choose other maps"),
    ],
)
def test_wrong_settings(override: str, words: str, voc_root: Path, net: Path, tmp_path: Path) -> None:
    outcome = train(voc_root, net, tmp_path, override)
    assert outcome.status == 1
    assert words in outcome.err
    assert "Traceback" not in outcome.err
