"""One network for both steps by the command line, on drawn images: the run, its steps, and what uses its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from detpipe import Detector
from detpipe.classify.kinds import load_classifier
from detpipe.classify.settings import DetectConfig
from detpipe.commands import detect
from detpipe.heads.multibox.folder import load_multibox
from detpipe.storage.manifest import find_manifest, read_manifest
from detpipe.structures import Detections
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.commands.test_run import bytes_of
from tests.commands.tiny_networks import BACKBONE, COMMON, DETECTION, OWN_PRIORS, TRAINING, net_in

EXACT = DetectConfig(max_proposals=30, nms_iou=0.5, vote_iou=0.6)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The setting that names the tiny net."""
    return net_in(tmp_path_factory.mktemp("net"))


def run(voc_root: Path, net: str, folder: Path, *more: str) -> Outcome:
    return detpipe(
        *["run", *drawn.voc(voc_root), "experiment=multibox_fast_rcnn", *COMMON, *BACKBONE, net, *TRAINING],
        *[*OWN_PRIORS, *DETECTION, "proposals.max_proposals=30", *more, f"run_dir={folder}"],
    )


def train(voc_root: Path, net: str, folder: Path, *more: str) -> Outcome:
    return detpipe(
        *["train-cls", *drawn.voc(voc_root), "head=multibox_fast_rcnn", *COMMON, *BACKBONE, net, *TRAINING],
        *[*OWN_PRIORS, *more, f"run_dir={folder}"],
    )


def detected(dataset: list[str], folder: Path, *more: str) -> list[dict[str, object]]:
    outcome = detpipe("detect", *dataset, *COMMON, *DETECTION, *more, f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    found: list[dict[str, object]] = json.loads((folder / "detections.json").read_text())
    return found


@pytest.fixture(scope="module")
def one_network(voc_root: Path, net: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("one") / "run"
    outcome = run(voc_root, net, folder)
    assert outcome.status == 0, outcome.err
    return folder


def test_what_the_run_writes(one_network: Path) -> None:
    metrics = json.loads((one_network / "metrics.json").read_text())
    assert list(metrics["seconds"]) == ["propose", "train-cls", "detect", "eval"]
    assert json.loads((one_network / "classifier" / "classifier.json").read_text())["kind"] == "multibox_fast_rcnn"
    assert not (one_network / "crops.lmdb").exists()
    assert find_manifest(one_network / "multibox") is None  # it is a part of the classifier, not a training of its own
    assert json.loads((one_network / "detections.json").read_text())
    assert "val_recall" not in (one_network / "report.html").read_text()


def test_multibox_is_the_half_that_proposes(one_network: Path) -> None:
    whole, spec = load_classifier(one_network / "classifier")
    half, own = load_multibox(one_network / "multibox")
    assert (own.shapes, own.backbone) == (spec.shapes, spec.backbone)
    assert (own.multibox.crop_share, own.multibox.flip) == (spec.head.crop_share, spec.head.flip)
    state = {name.removeprefix("neck."): tensor for name, tensor in half.state_dict().items()}
    assert state.keys() == {
        name for name in whole.state_dict() if name.split(".")[0] in ("backbone", "merge", "predictor")
    }
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), whole.state_dict()[name].numpy())


def test_a_second_run_does_nothing(one_network: Path, voc_root: Path, net: str) -> None:
    before = bytes_of(one_network)
    times = {name: (one_network / name).stat().st_mtime_ns for name in before}
    outcome = run(voc_root, net, one_network)
    assert outcome.status == 0, outcome.err
    assert bytes_of(one_network) == before
    assert {name: (one_network / name).stat().st_mtime_ns for name in before} == times


PRESET = ("head.refine=1", "head.refine_weight=1", "head.foreground_weight=8", "head.multibox_weight=0.5")
"""What experiment=multibox_fast_rcnn changes in the head."""


def test_step_by_step_without_proposals(one_network: Path, voc_root: Path, net: str, tmp_path: Path) -> None:
    outcome = train(voc_root, net, tmp_path, *PRESET)
    assert outcome.status == 0, outcome.err
    detected(drawn.voc(voc_root), tmp_path)
    outcome = detpipe("eval", *drawn.voc(voc_root), *COMMON, f"run_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "proposals.lmdb").exists()
    for name in ("classifier/weights.safetensors", "detections.json"):
        assert (tmp_path / name).read_bytes() == (one_network / name).read_bytes()
    assert read_manifest(tmp_path / "classifier").digest == read_manifest(one_network / "classifier").digest
    refused = train(voc_root, net, tmp_path, *PRESET, "head.proposal_nms=0.5")
    assert refused.status == 1
    assert "head.proposal_nms: 0.7 -> 0.5" in refused.err


def test_a_folder_and_python_give_what_the_data_set_gave(one_network: Path, voc_root: Path, tmp_path: Path) -> None:
    """And a run folder by another name."""
    renamed, pictures = drawn.copy(one_network, tmp_path / "renamed"), tmp_path / "pictures"
    pictures.mkdir()
    for name in drawn.TEST:
        shutil.copy(voc_root / "JPEGImages" / f"{name}.jpg", pictures)
    stored = json.loads((one_network / "detections.json").read_text())
    assert detected([], renamed, f"source={pictures}", "show_floor=0.9") == stored
    shutil.rmtree(renamed / "proposals.lmdb")  # nor does it need what is there to be looked at
    shutil.rmtree(renamed / "multibox")
    detector = Detector.from_run(renamed, device="cpu", config=EXACT, precision="float32")
    for name in drawn.TEST:
        found = detector.predict(pictures / f"{name}.jpg")
        own = [one for one in stored if one["image_id"] == name]
        assert [one["category_id"] for one in own] == found.labels.tolist()
        np.testing.assert_allclose([one["score"] for one in own], found.scores, atol=1e-4)


def with_broken_image(root: Path) -> Path:
    """A test image of the folder, broken in a way that only the decoder finds out."""
    file = root / "JPEGImages" / "test_0.jpg"
    data = bytearray(cv2.imencode(".png", drawn.draw(10)[0])[1].tobytes())
    start = data.index(b"IDAT") + 4
    data[start : start + 2000] = bytes(2000)
    file.write_bytes(bytes(data))
    return file


def test_a_broken_image_is_named_though_the_first_run_was_killed(
    one_network: Path, voc_root: Path, tmp_path: Path
) -> None:
    root, folder = drawn.copy(voc_root, tmp_path / "drawn"), tmp_path / "run"
    shutil.copytree(one_network / "classifier", folder / "classifier")
    file = with_broken_image(root)
    done = []

    def two(found: Detections) -> bytes:
        """The first chunk is committed, the second one isn't."""
        done.append(found)
        if len(done) > 2:
            raise OSError("killed")
        return pack(found)

    pack = detect.packed
    dataset = [*drawn.voc(root), "dataset.max_bad=0.5"]
    with mock.patch.object(detect, "CHUNK", 2):
        with mock.patch.object(detect, "packed", two):
            assert detpipe("detect", *dataset, *COMMON, *DETECTION, f"run_dir={folder}").status != 0
        assert not (folder / "detections.json").exists()
        found = detected(dataset, folder)
    stored = json.loads((one_network / "detections.json").read_text())
    assert found == [one for one in stored if one["image_id"] != "test_0"]
    (bad,) = read_manifest(folder / "detections.json").bad
    assert bad.path == str(file)


def test_more_broken_images_than_max_bad(one_network: Path, voc_root: Path, tmp_path: Path) -> None:
    """Nothing is kept that the next run would believe: the files may be mended by then."""
    root, folder = drawn.copy(voc_root, tmp_path / "drawn"), tmp_path / "run"
    shutil.copytree(one_network / "classifier", folder / "classifier")
    file = with_broken_image(root)
    outcome = detpipe("detect", *drawn.voc(root), "dataset.max_bad=0.2", *COMMON, *DETECTION, f"run_dir={folder}")
    assert outcome.status == 1
    assert f"1 of 4 images can't be read, more than dataset.max_bad=0.2: {file}: " in outcome.err
    assert not (folder / "detections.json").exists()
    assert not (folder / "detections.lmdb").exists()
    detected([*drawn.voc(root), "dataset.max_bad=0.25"], folder)


@pytest.mark.parametrize("more", [(), ("overwrite=true",)])
def test_a_network_that_is_gone_leaves_the_detections(one_network: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    folder = drawn.copy(one_network, tmp_path / "run")
    drawn.write_jpeg(tmp_path / "one.jpg", drawn.draw(50)[0])
    (folder / "classifier" / "weights.safetensors").unlink()
    outcome = detpipe("detect", *COMMON, *DETECTION, f"source={tmp_path / 'one.jpg'}", *more, f"run_dir={folder}")
    assert outcome.status == 1
    assert "weights.safetensors: " in outcome.err
    assert (folder / "detections.json").read_bytes() == (one_network / "detections.json").read_bytes()
    assert read_manifest(folder / "detections.json").settings["source"] is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("detect.features.refine=5", "detect.features.refine needs head=svm or linear"),
        ("head.maps=[stride9]", "stride9"),
        ("proposals.weights=nowhere", "proposals.weights: nowhere: "),
        ("solver.weights=nowhere.pt", "solver.weights: no such file: nowhere.pt"),
    ],
)
def test_what_a_late_stage_would_refuse_is_refused_first(
    voc_root: Path, net: str, tmp_path: Path, word: str, said: str
) -> None:
    outcome = run(voc_root, net, tmp_path / "run", word)
    assert outcome.status == 1
    assert said in outcome.err
    assert not (tmp_path / "run" / "classifier").exists()


def test_curve(one_network: Path, voc_root: Path, tmp_path: Path) -> None:
    folder = drawn.copy(one_network, tmp_path / "run")
    outcome = detpipe(
        *["curve", *drawn.voc(voc_root), *COMMON, *DETECTION, "budgets=[5,30]", "resamples=0"],
        f"run_dir={folder}",
    )
    assert outcome.status == 0, outcome.err
    curve = json.loads((folder / "curve.json").read_text())
    assert curve["method"] == "multibox"
    # Of all its boxes it is the detector's own measure: confidences count.
    ap = json.loads((folder / "metrics.json").read_text())["voc10"]["map"]
    assert [point["map"]["value"] for point in curve["points"] if point["budget"] == 30] == pytest.approx([ap])


@pytest.mark.slow
def test_export(one_network: Path, tmp_path: Path) -> None:
    """One file from image to detections. Its input is the image alone."""
    pytest.importorskip("onnxruntime")
    outcome = detpipe("export", f"run_dir={one_network}", f"out={tmp_path / 'out'}")
    assert outcome.status == 0, outcome.err
    told = json.loads((tmp_path / "out/detector.json").read_text())
    assert [one["name"] for one in told["inputs"]] == ["image"]
    assert (told["needs_boxes"], told["proposals"]) == (False, None)


def test_compress_refuses_it(one_network: Path, tmp_path: Path) -> None:
    outcome = detpipe("compress", f"run_dir={one_network}", f"out={tmp_path / 'out'}")
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    assert "head=fast_rcnn" in outcome.err
    assert "train it again" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_inspect_run(one_network: Path, tmp_path: Path) -> None:
    outcome = detpipe("inspect", "run", f"run_dir={one_network}", f"out={tmp_path}")
    assert outcome.status == 0, outcome.err
    numbers = json.loads((tmp_path / "inspect_run.json").read_text())
    assert numbers["numbers"].keys() >= {"class_loss", "location_loss"}
    assert numbers["training"].endswith("caffe, regions of 2 classes")


def test_a_multibox_of_its_own_is_not_replaced(one_network: Path, voc_root: Path, net: str, tmp_path: Path) -> None:
    shutil.copytree(one_network / "multibox", tmp_path / "multibox")
    manifest = json.loads((one_network / "classifier" / "manifest.json").read_text())
    (tmp_path / "multibox" / "manifest.json").write_text(json.dumps({**manifest, "stage": "train-multibox"}))
    outcome = train(voc_root, net, tmp_path)
    assert outcome.status == 1
    assert "expected no output of `detpipe train-multibox`" in outcome.err
    assert not (tmp_path / "classifier").exists()


def test_a_link_to_nothing_in_multiboxs_place_is_refused_first(voc_root: Path, net: str, tmp_path: Path) -> None:
    (tmp_path / "multibox").symlink_to(tmp_path / "nowhere")
    outcome = train(voc_root, net, tmp_path)
    assert (outcome.status, f"{tmp_path / 'multibox'}: expected a folder" in outcome.err) == (1, True)
    assert not (tmp_path / "classifier").exists()


def test_a_start_from_another_training_keeps_its_priors(
    one_network: Path, voc_root: Path, net: str, tmp_path: Path
) -> None:
    """Fewer objects make other priors; what was learned is how those of the start move."""
    root = drawn.copy(voc_root, tmp_path / "drawn")
    names = (root / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("".join(f"{name}\n" for name in names[:4]))
    weights = f"solver.weights={one_network / 'classifier' / 'weights.safetensors'}"
    outcome = train(root, net, tmp_path / "tuned", weights)
    assert outcome.status == 0, outcome.err
    outcome = train(root, net, tmp_path / "own")
    assert outcome.status == 0, outcome.err
    start, tuned, own = (
        json.loads((folder / "multibox" / "multibox.json").read_text())["shapes"]
        for folder in (one_network, tmp_path / "tuned", tmp_path / "own")
    )
    assert tuned == start != own

    other = train(root, net, tmp_path / "other", weights, "head.maps=[stride4,stride8]")
    assert other.status == 1
    assert "solver.weights: expected a network of 2 maps, got one of ['stride8']" in other.err


def test_images_without_objects_alone(voc_root: Path, net: str, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "drawn")
    for annotation in (root / "Annotations").glob("train*.xml"):
        text = annotation.read_text()
        annotation.write_text(text[: text.index("<object>")] + "</annotation>")
    outcome = train(root, net, tmp_path / "run", "dataset.classes=[disc,square]")
    assert outcome.status == 1
    assert "priors: expected objects to cluster, got none" in outcome.err
    assert "Traceback" not in outcome.err
