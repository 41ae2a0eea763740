"""A MultiBox and Fast R-CNN that is small enough for tests, on the net of two convolutions of tiny_multibox."""

from __future__ import annotations

from pathlib import Path

from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec, build_multibox_fast_rcnn
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.settings import MultiBoxTargetConfig
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from tests.heads.multibox import tiny as tiny_multibox


def head(**more: object) -> MultiBoxFastRcnnConfig:
    settings = {
        "maps": ["conv2"],
        "merge_width": 8,
        "pool_size": 2,
        "hidden": 8,
        "dropout": 0.0,
        "scales": [64],
        "freeze_stages": 0,
        "multibox": MultiBoxTargetConfig(priors=2),
        **more,
    }
    return MultiBoxFastRcnnConfig(**settings)  # type: ignore[arg-type]


def spec(folder: Path, **more: object) -> MultiBoxFastRcnnSpec:
    """Of discs and squares; the net's text is written into `folder`."""
    proposer = tiny_multibox.spec(folder)
    return MultiBoxFastRcnnSpec(
        classes=("disc", "square"),
        category_ids=(3, 9),
        backbone=proposer.backbone,
        head=head(**more),
        shapes=proposer.shapes,
    )


def network(one: MultiBoxFastRcnnSpec, seed: int = 0) -> MultiBoxFastRcnn:
    """Evaluation mode; boxes, confidences and classes differ from place to place."""
    made = build_multibox_fast_rcnn(one, seed=seed, pretrained=True).eval()
    for layer in made.predictor.outputs:
        layer.weight.data.mul_(30)
    made.head.linear.weight.data.mul_(20)
    assert made.box_regressor is not None
    made.box_regressor.linear.weight.data.mul_(20)
    return made
