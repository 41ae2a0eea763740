"""torchvision's detectors as proposers, with small random weights: what they find is what torchvision finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from detpipe.boxes import iou
from detpipe.parallel import ordered_map
from detpipe.proposals.methods import proposer_of
from detpipe.proposals.torchvision_detector import DetectorName, TorchvisionProposals
from detpipe.proposals.torchvision_network import CLASS_BIASES, _classes_of, load_detector
from detpipe.storage.torch_file import TorchFileError
from tests import drawn

IMAGE = drawn.draw(0)[0]
SSDLITE, FASTER = "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"


def detector(name: str, classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    return network.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ssd") / "ssdlite.pth"
    torch.save(detector(SSDLITE, 4).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def faster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faster") / "faster.pth"
    torch.save({"model": detector(FASTER, 3).state_dict(), "epoch": 3}, path)  # as torchvision's training script
    return path


def proposer(name: str, weights: Path, **settings: object) -> TorchvisionProposals:
    return TorchvisionProposals(name=DetectorName(name), weights=str(weights), **settings)


def test_final_boxes_are_those_of_torchvision(ssdlite: Path) -> None:
    network = detector(SSDLITE, 4)
    network.score_thresh, network.detections_per_img = 0.0, 500
    with torch.inference_mode():
        (want,) = network([torch.from_numpy(IMAGE.transpose(2, 0, 1).copy()) / 255])
    found = proposer(SSDLITE, ssdlite, min_score=0, nms_iou=1, max_proposals=500)(IMAGE)
    assert len(found) > 50
    boxes = want["boxes"].clamp(min=0).numpy()
    best = iou(found.boxes, boxes).argmax(axis=1)
    np.testing.assert_allclose(found.boxes, boxes[best], rtol=1e-3, atol=0.05)
    assert found.scores.max() == pytest.approx(float(want["scores"].max()), rel=1e-4)


def test_boxes_lie_in_the_image_without_near_duplicates(ssdlite: Path) -> None:
    found = proposer(SSDLITE, ssdlite, min_score=0, nms_iou=0.5)(IMAGE)
    height, width = IMAGE.shape[:2]
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()
    overlaps = iou(found.boxes, found.boxes)
    assert (overlaps[~np.eye(len(found), dtype=bool)] <= 0.51).all()
    assert len(proposer(SSDLITE, ssdlite, min_score=1)(IMAGE)) == 0
    assert len(proposer(SSDLITE, ssdlite, min_score=0, max_proposals=3)(IMAGE)) == 3


def test_boxes_of_the_region_proposal_network(faster: Path) -> None:
    network = detector(FASTER, 3)
    network.rpn._pre_nms_top_n["testing"] = network.rpn._post_nms_top_n["testing"] = 200
    with torch.inference_mode():
        images, _ = network.transform([torch.from_numpy(IMAGE.transpose(2, 0, 1).copy()) / 255])
        (want,), _ = network.rpn(images, network.backbone(images.tensors))
    want = want.numpy() * np.tile(np.array(IMAGE.shape[1::-1]) / images.image_sizes[0][::-1], 2)
    found = proposer(FASTER, faster, boxes="rpn", max_proposals=200, nms_iou=1)(IMAGE)
    assert len(found) > 20
    np.testing.assert_allclose(found.boxes[:5], want[:5], rtol=1e-3, atol=0.05)
    assert (np.diff(found.scores) <= 0).all()
    assert len(proposer(FASTER, faster, min_score=0)(IMAGE)) > 0  # final boxes


def test_safetensors_and_parallel_weights(ssdlite: Path, tmp_path: Path) -> None:
    state = torch.load(ssdlite, weights_only=True)
    save_file(state, tmp_path / "w.safetensors")
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.pt")
    want = proposer(SSDLITE, ssdlite, min_score=0)(IMAGE)
    for name in ("w.safetensors", "parallel.pt"):
        np.testing.assert_array_equal(proposer(SSDLITE, tmp_path / name, min_score=0)(IMAGE).boxes, want.boxes)


def test_threads_find_the_same(ssdlite: Path) -> None:
    one, images = proposer(SSDLITE, ssdlite, min_score=0), [drawn.draw(number)[0] for number in range(4)]
    alone, threads = [one(image).boxes for image in images], torch.get_num_threads()
    shared = list(ordered_map(one, images, workers=2, max_threads=one.max_threads))
    assert torch.get_num_threads() == threads
    for first, second in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(first, second.boxes)


@pytest.mark.parametrize("name", DetectorName)
def test_the_number_of_classes_is_that_of_the_weights(name: DetectorName) -> None:
    for classes in (2, 5):
        with torch.device("meta"):
            network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=classes)
        assert _classes_of(network.state_dict(), name, Path("w.pth")) == classes


def test_frozen_batch_norms_have_no_counter(tmp_path: Path) -> None:
    """As in torchvision's published weights, which also have no epsilon."""
    state = detector("fasterrcnn_resnet50_fpn", 2).state_dict()
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    save_file(state, tmp_path / "w.safetensors")
    network = load_detector(tmp_path / "w.safetensors", "fasterrcnn_resnet50_fpn")
    assert {one.eps for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)} == {0.0}


def test_a_description_makes_it_again_and_the_copy_is_used(ssdlite: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(ssdlite.read_bytes())
    one = proposer(SSDLITE, weights, min_score=0)
    assert one.inputs().keys() == {"w.pth"}
    assert proposer_of(json.loads(json.dumps(one.describe()))) == one
    one.keep(tmp_path / "kept")
    want = one(IMAGE)
    weights.unlink()
    kept = one.kept_in(tmp_path / "kept")
    kept.check()
    np.testing.assert_array_equal(kept(IMAGE).boxes, want.boxes)
    assert kept.kept_in(tmp_path / "nowhere") == kept


def test_weights_of_another_network_are_named(ssdlite: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ssdlite\.pth: .*retinanet_resnet50_fpn.*proposals\.name"):
        proposer("retinanet_resnet50_fpn", ssdlite).check()
    state = torch.load(ssdlite, weights_only=True)
    for change in ({"more": torch.zeros(3)}, {next(iter(state)): torch.zeros(3)}, {CLASS_BIASES[3]: torch.zeros(7)}):
        save_file({**state, **change}, tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match=r"w\.safetensors: expected the weights of ssdlite"):
            proposer(SSDLITE, tmp_path / "w.safetensors").check()


def test_other_files_and_settings_are_named(tmp_path: Path) -> None:
    torch.save(detector(SSDLITE, 2), tmp_path / "whole.pth")
    with pytest.raises(TorchFileError, match=r"whole\.pth"):
        proposer(SSDLITE, tmp_path / "whole.pth").check()
    with pytest.raises(ValueError, match=r"proposals\.weights=FILE"):
        TorchvisionProposals().check()
    with pytest.raises(FileNotFoundError):
        proposer(SSDLITE, tmp_path / "none.pth").check()
    with pytest.raises(ValueError, match=r"proposals\.boxes=rpn: expected a Faster R-CNN"):
        proposer(SSDLITE, tmp_path / "w.pth", boxes="rpn")
    with pytest.raises(ValueError, match=r"proposals\.nms_iou"):
        proposer(SSDLITE, tmp_path / "w.pth", nms_iou=2)
