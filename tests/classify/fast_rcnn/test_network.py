"""A Fast R-CNN comes back from its folder, whole or compressed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.fast_rcnn.network import FastRcnnSpec, build_fast_rcnn
from detpipe.classify.kinds import load_classifier
from detpipe.heads.fast_rcnn.roi_pooling import Pooling
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.network_folder import NetworkFolderError

SPEC = FastRcnnSpec(
    classes=("cat", "dog"),
    category_ids=(3, 9),
    backbone=BackboneConfig(weights="none"),
    head=FastRcnnConfig(maps=["stride16"], merge_width=None, pooling=Pooling.pool, pool_size=2, hidden=8, scales=[64]),
)


@pytest.mark.parametrize("ranks", [(), (3,), (3, 2)])
def test_what_is_saved_comes_back(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    spec = replace(SPEC, svd_ranks=ranks)
    network = build_fast_rcnn(spec, seed=1, pretrained=True).eval()
    save_classifier(tmp_path, network, spec)
    loaded, found = load_classifier(tmp_path)
    assert found == spec
    images, regions = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8), torch.tensor([[0.0, 3, 3, 40, 50]])
    for own, other in zip(network(images, regions), loaded(images, regions), strict=True):
        assert own is not None
        assert other is not None
        torch.testing.assert_close(own, other, rtol=0, atol=0)
    assert [p.numel() for p in loaded.fc2.parameters()] == ([16, 16, 8] if len(ranks) == 2 else [64, 8])


def test_whole_weights_are_not_those_of_a_compressed_network(tmp_path: Path) -> None:
    save_classifier(tmp_path, build_fast_rcnn(SPEC, seed=1, pretrained=True), replace(SPEC, svd_ranks=(3,)))
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors"):
        load_classifier(tmp_path)
