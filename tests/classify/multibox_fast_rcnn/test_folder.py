"""The folder of a MultiBox and Fast R-CNN: what is saved comes back, and broken ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.fast_rcnn.folder import load_fast_rcnn
from detpipe.classify.multibox_fast_rcnn.folder import (
    load_multibox_fast_rcnn,
    load_multibox_fast_rcnn_spec,
    save_multibox_fast_rcnn,
)
from detpipe.heads.multibox.settings import Confidence, Localization, MatchedBy, Matching, MultiBoxTargets
from detpipe.network.network_folder import NetworkFolderError
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn
from tests.classify.multibox_fast_rcnn.tiny import spec

TARGETS = MultiBoxTargets(
    priors=2,
    matching=Matching.bipartite,
    matched_by=MatchedBy.prediction,
    localization=Localization.squared,
    confidence=Confidence.cross_entropy,
    negatives=3,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder that a test may spoil."""
    one, folder = spec(tmp_path / "net"), tmp_path / "saved"
    folder.mkdir()
    save_multibox_fast_rcnn(folder, tiny_multibox_fast_rcnn.network(one), one)
    return folder


@pytest.mark.parametrize("targets", [MultiBoxTargets(priors=2), TARGETS])
def test_what_is_saved_comes_back(tmp_path: Path, targets: MultiBoxTargets) -> None:
    one = spec(tmp_path / "net", multibox=targets)
    network = tiny_multibox_fast_rcnn.network(one, seed=1)
    save_multibox_fast_rcnn(tmp_path, network, one)
    (tmp_path / "net" / "tiny.prototxt").unlink()  # the folder has its own
    loaded, found = load_multibox_fast_rcnn(tmp_path)
    assert found == one
    assert found.proposes
    assert not loaded.training
    images = torch.randint(0, 256, (1, 64, 80, 3), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = [each.predict(each.feature_maps(images), (64, 80)) for each in (network, loaded)]
        proposed = [each.propose(out, 0, (64, 80), 9) for each, out in zip((network, loaded), outputs, strict=True)]
        classes = [
            each.classify(each.pool(each.feature_maps(images), torch.nn.functional.pad(boxes, (1, 0))))
            for each, (boxes, _) in zip((network, loaded), proposed, strict=True)
        ]
    torch.testing.assert_close(proposed[0], proposed[1], rtol=0, atol=0)
    torch.testing.assert_close(classes[0], classes[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "fast_rcnn"}, "wanted what head=multibox_fast_rcnn trains, got one of the kind fast_rcnn"),
        ({"head": 3}, "wanted a MultiBox and Fast R-CNN's"),
        ({"head": {"multibox": {"matching": "none"}}}, "wanted a MultiBox and Fast R-CNN's"),
        ({"shapes": [[1, 2]]}, "wanted a MultiBox and Fast R-CNN's"),
        ({"shapes": "x"}, "wanted a MultiBox and Fast R-CNN's"),
        ({"shapes": []}, "wanted shapes of priors for 2 maps"),
        ({"classes": None}, "wanted a MultiBox and Fast R-CNN's"),
        ({"backbone": {"name": 5, "depth": 3}}, "wanted a MultiBox and Fast R-CNN's"),
    ],
)
def test_a_damaged_description_is_named(saved: Path, change: dict[str, object], words: str) -> None:
    path = saved / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ClassifierError, match=words) as raised:
        load_multibox_fast_rcnn(saved)
    assert str(path) in str(raised.value)


def test_no_json(saved: Path) -> None:
    (saved / "classifier.json").write_text("{")
    with pytest.raises(ClassifierError, match=r"classifier\.json"):
        load_multibox_fast_rcnn_spec(saved)


def test_weights_of_another_network_or_none(saved: Path, tmp_path: Path) -> None:
    other = spec(tmp_path / "other_net", hidden=5)
    weights = (saved / "weights.safetensors").read_bytes()
    save_multibox_fast_rcnn(tmp_path, tiny_multibox_fast_rcnn.network(other), other)
    for content in ((tmp_path / "weights.safetensors").read_bytes(), weights[:200], b""):
        (saved / "weights.safetensors").write_bytes(content)
        with pytest.raises(NetworkFolderError, match="wanted this network's weights"):
            load_multibox_fast_rcnn(saved)


def test_it_is_not_taken_for_a_fast_rcnn_on_proposals(saved: Path) -> None:
    with pytest.raises(ClassifierError, match="head=fast_rcnn trains, got one of the kind multibox_fast_rcnn"):
        load_fast_rcnn(saved)
