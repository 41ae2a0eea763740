"""The folder of a Fast R-CNN: what is saved comes back, whole or compressed, and broken ones are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.fast_rcnn.folder import (
    FastRcnnSpec,
    build_fast_rcnn,
    load_fast_rcnn,
    save_fast_rcnn,
)
from detpipe.heads.fast_rcnn.settings import FastRcnnHead, Pooling
from detpipe.network.network_folder import NetworkFolderError

SPEC = FastRcnnSpec(
    ("cat", "dog"),
    (3, 9),
    BackboneConfig(weights="none"),
    FastRcnnHead(maps=["stride16"], merge_width=None, pooling=Pooling.pool, pool_size=2, hidden=8, scales=[64]),
)


@pytest.mark.parametrize("ranks", [(), (3,), (3, 2)])
def test_what_is_saved_comes_back(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    spec = replace(SPEC, svd_ranks=ranks)
    network = build_fast_rcnn(spec, seed=1, pretrained=True).eval()
    save_fast_rcnn(tmp_path, network, spec)
    loaded, found = load_fast_rcnn(tmp_path)
    assert found == spec
    images, regions = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8), torch.tensor([[0.0, 3, 3, 40, 50]])
    for own, other in zip(network(images, regions), loaded(images, regions), strict=True):
        assert own is not None
        assert other is not None
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    assert [p.numel() for p in loaded.fc2.parameters()] == ([16, 16, 8] if len(ranks) == 2 else [64, 8])


def test_the_seed_draws_all_that_is_new() -> None:
    first, second = (build_fast_rcnn(SPEC, seed=4, pretrained=True).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "images"}, "one of the kind images"),
        ({"head": {"maps": ["stride16"]}}, "wanted a Fast R-CNN's"),
        ({"svd_ranks": ["x"]}, "wanted a Fast R-CNN's"),
        ({"backbone": 3}, "wanted a Fast R-CNN's"),
    ],
)
def test_a_wrong_description(tmp_path: Path, change: dict[str, object], words: str) -> None:
    save_fast_rcnn(tmp_path, build_fast_rcnn(SPEC, seed=1, pretrained=True), SPEC)
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ClassifierError, match=words):
        load_fast_rcnn(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_description(tmp_path: Path, text: str) -> None:
    (tmp_path / "classifier.json").write_text(text)
    with pytest.raises(ClassifierError, match="wanted a classifier's description"):
        load_fast_rcnn(tmp_path)


def test_a_file_of_other_weights(tmp_path: Path) -> None:
    save_fast_rcnn(tmp_path, build_fast_rcnn(SPEC, seed=1, pretrained=True), replace(SPEC, svd_ranks=(3,)))
    with pytest.raises(NetworkFolderError, match="wanted this network's weights"):
        load_fast_rcnn(tmp_path)
