"""A MultiBox and Fast R-CNN comes back from its folder with each form of the loss: regions and classes alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.kinds import load_classifier
from detpipe.heads.multibox.settings import Confidence, Localization, MatchedBy, Matching, MultiBoxTargetConfig
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn
from tests.classify.multibox_fast_rcnn.tiny import spec

TARGETS = MultiBoxTargetConfig(
    priors=2,
    matching=Matching.bipartite,
    matched_by=MatchedBy.prediction,
    localization=Localization.squared,
    confidence=Confidence.cross_entropy,
    negatives=3,
)


@pytest.mark.parametrize(
    ("targets", "attention"), [(MultiBoxTargetConfig(priors=2), 0), (TARGETS, 0), (MultiBoxTargetConfig(priors=2), 2)]
)
def test_what_is_saved_comes_back(tmp_path: Path, targets: MultiBoxTargetConfig, attention: int) -> None:
    one = spec(tmp_path / "net", multibox=targets, attention=attention)
    network = tiny_multibox_fast_rcnn.network(one, seed=1)
    save_classifier(tmp_path, network, one)
    (tmp_path / "net" / "tiny.prototxt").unlink()  # the folder has its own
    loaded, found = load_classifier(tmp_path)
    assert found == one
    images = torch.randint(0, 256, (1, 64, 80, 3), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = [each.predict(each.feature_maps(images), (64, 80)) for each in (network, loaded)]
        proposed = [each.propose(out, 0, (64, 80), 9) for each, out in zip((network, loaded), outputs, strict=True)]
        classes = [
            each.classify(each.pool(each.feature_maps(images), padded), padded)
            for each, (boxes, _) in zip((network, loaded), proposed, strict=True)
            for padded in [torch.nn.functional.pad(boxes, (1, 0))]
        ]
    torch.testing.assert_close(proposed[0], proposed[1], rtol=0, atol=0)
    torch.testing.assert_close(classes[0], classes[1], rtol=0, atol=0)
