"""Whole graphs of small detectors: the same detections under onnxruntime as of the detector itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.input_spec import InputSpec
from detpipe.backbone.settings import BackboneConfig
from detpipe.class_path import load_class
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.crops.network import RcnnSpec
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.detect import scored_regions, select_detections
from detpipe.classify.export.description import GraphForm
from detpipe.classify.export.graph_file import Agreement, Run, compare, write_onnx
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.features.geometry import COLUMNS
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.features.settings import FeatureConfig
from detpipe.classify.kinds import KINDS
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec
from detpipe.classify.settings import DetectConfig, Duplicates, FastRcnnScoringConfig, FeatureScoringConfig
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig, MultiBoxFastRcnnConfig, Pooling
from detpipe.heads.multibox.priors import as_numbers, centred
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.image_attention import new_attention
from detpipe.heads.stored.linear_svm import LinearSvmHead
from detpipe.heads.stored.two_layers import TwoLayersHead
from detpipe.structures import Detections, Float32Array, Image
from tests.classify import tiny
from tests.classify.export.running import smooth, some_boxes

pytest.importorskip("onnxruntime")

NAMES = {"classes": ("a", "b"), "category_ids": (1, 2), "backbone": BackboneConfig()}
IMAGES = [(smooth(131, 177), some_boxes(30, 131, 177)), (smooth(64, 48), some_boxes(3, 64, 48))]
CANVAS = (136, 184)
NO_BOXES = np.zeros((0, 4), dtype=np.float32)


class Pyramid(Backbone):
    """Two maps, of strides 4 and 8: regions from 112 pixels up are pooled from the coarse one."""

    def __init__(self) -> None:
        maps = {"fine": FeatureMap(4, 8), "coarse": FeatureMap(8, 6)}
        super().__init__(InputSpec((32, 32), (127.0, 120.0, 110.0), (64.0, 60.0, 50.0)), 6, maps)
        self.fine, self.coarse = nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.Conv2d(8, 6, 3, stride=2, padding=1)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("fine", self.fine), ("coarse", self.coarse)]

    def forward(self, x: Tensor) -> Tensor:
        return self.coarse(self.fine(x).relu()).mean(dim=(2, 3))

    def forward_maps(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        fine = self.fine(x).relu()
        maps = {"fine": fine, "coarse": self.coarse(fine)}
        return {name: maps[name] for name in names}


def drawn_pyramid() -> Pyramid:
    torch.manual_seed(0)
    return Pyramid()


def confident(network: FastRcnn) -> FastRcnn:
    """With larger weights in its last layers, so that results differ from region to region."""
    with torch.no_grad():
        network.head.linear.weight.mul_(100)
        if network.box_regressor is not None:
            network.box_regressor.linear.weight.mul_(30)
        if network.attention is not None and network.best is not None:
            generator = torch.Generator().manual_seed(5)
            for layer in network.attention.layers:
                for end in (layer.joined, layer.output):
                    end.weight.normal_(std=0.1, generator=generator)
            network.best.weight.mul_(30)
            network.best.bias.zero_()
    return network.eval()


ATTENTION = {"attention": 2, "attention_heads": 2, "attention_width": 8, "attention_hidden": 12}
HEAD = {"maps": ["fine", "coarse"], "merge_width": 8, "pool_size": 3, "hidden": 16, "scales": [96], "max_side": 160}


def fast_rcnn(**more: object) -> tuple[nn.Module, RegionSpec]:
    head = FastRcnnConfig(**(HEAD | more))  # type: ignore[arg-type]
    network = confident(FastRcnn(drawn_pyramid(), 2, head, seed=0))
    return network, FastRcnnSpec(head=head, **NAMES)  # type: ignore[arg-type]


def multibox(**more: object) -> tuple[nn.Module, RegionSpec]:
    head = MultiBoxFastRcnnConfig(**(HEAD | {"refine": 1} | more))  # type: ignore[arg-type]
    sizes = [[[12.0, 12], [24, 30]], [[50, 60]], []]
    shapes = [centred(np.array(one, dtype=np.float32).reshape(-1, 2)) for one in sizes]
    network = MultiBoxFastRcnn(drawn_pyramid(), 2, head, shapes, seed=0)
    with torch.no_grad():
        for output in network.predictor.outputs:
            if isinstance(output, nn.Conv2d):
                output.weight.mul_(20)
    spec = MultiBoxFastRcnnSpec(head=head, shapes=as_numbers(shapes), **NAMES)  # type: ignore[arg-type]
    return confident(network), spec


def rcnn() -> tuple[nn.Module, RegionSpec]:
    spec = RcnnSpec(crops=CropConfig(size=tiny.SIDE), box_regression=True, **NAMES)  # type: ignore[arg-type]
    return tiny.confident(tiny.classifier()), spec


def stored(*, crops: bool) -> tuple[nn.Module, RegionSpec]:
    """An SVM on the maps of the image, mirrored too, and perhaps on crops."""
    features = FeatureConfig(crops=crops, image_sides=[64, 96], mirrored=True)
    width, generator = 6 * crops + 2 * (4 * (8 + 6) + 6), torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    head = LinearSvmHead(
        mean=torch.zeros(width),
        scale=torch.ones(width),
        weight=drawn(2, width),
        bias=drawn(2),
        slope=torch.ones(2),
        offset=torch.zeros(2),
        box_weight=drawn(2, width, 4) * 0.05,
        box_bias=torch.zeros(2, 4),
    )
    spec = FeatureClassifierSpec(
        crops=CropConfig(size=16),
        box_regression=True,
        features=features,
        head="svm",
        extraction={"bf16": False},
        **NAMES,  # type: ignore[arg-type]
    )
    return FeatureClassifier(drawn_pyramid(), head).eval(), spec


def stored_with_attention() -> tuple[nn.Module, RegionSpec]:
    """Two networks of two layers with attention on the maps of the image, mirrored too."""
    network, spec = stored(crops=False)
    assert isinstance(network, FeatureClassifier)
    width, hidden, generator = len(network.head.mean), 12, torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    attention = {}
    for number in range(2):
        layers = new_attention(hidden, 2, seed=number)
        for layer in layers.layers:
            layer.joined.weight.data.normal_(std=0.3, generator=generator)
            layer.output.weight.data.normal_(std=0.3, generator=generator)
        attention |= {f"attention.{number}.{name}": one for name, one in layers.state_dict().items()}
    head = TwoLayersHead(
        mean=torch.zeros(width),
        scale=torch.ones(width),
        hidden_weight=drawn(2, hidden, width + COLUMNS) * 0.3,
        hidden_bias=drawn(2, hidden),
        weight=drawn(2, 4, hidden),
        bias=torch.zeros(2, 4),
        delta_weight=drawn(2, 4, hidden) * 0.05,
        delta_bias=torch.zeros(2, 4),
        box_weight=torch.zeros(0, width, 4),
        box_bias=torch.zeros(0, 4),
        **attention,
    )
    return FeatureClassifier(network.backbone, head).eval(), replace(spec, head="two_layers")


@pytest.mark.parametrize(
    ("made", "config"),
    [
        (fast_rcnn(), DetectConfig(vote_iou=0.6)),
        pytest.param(
            fast_rcnn(pooling=Pooling.pool, box_regression=BoxRegression.none), DetectConfig(), marks=pytest.mark.slow
        ),
        pytest.param(
            fast_rcnn(refine=2),
            DetectConfig(fast_rcnn=FastRcnnScoringConfig(scales=[64, 96], flip=True)),
            marks=pytest.mark.slow,
        ),
        (multibox(), DetectConfig(nms_iou=0.5, vote_iou=0.75, max_proposals=50)),
        pytest.param(
            multibox(),
            DetectConfig(max_proposals=20, fast_rcnn=FastRcnnScoringConfig(flip=True)),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            fast_rcnn(refine=2, **ATTENTION),
            DetectConfig(fast_rcnn=FastRcnnScoringConfig(scales=[64, 96], flip=True, duplicates=Duplicates.both)),
            marks=pytest.mark.slow,
        ),
        (
            multibox(**ATTENTION),
            DetectConfig(max_proposals=50, fast_rcnn=FastRcnnScoringConfig(duplicates=Duplicates.learned)),
        ),
        pytest.param(multibox(**ATTENTION), DetectConfig(max_proposals=50), marks=pytest.mark.slow),
        pytest.param(
            fast_rcnn(box_regression=BoxRegression.none, **ATTENTION),
            DetectConfig(fast_rcnn=FastRcnnScoringConfig(duplicates=Duplicates.learned)),
            marks=pytest.mark.slow,
        ),
        (rcnn(), DetectConfig(max_proposals=20)),
        (stored(crops=False), DetectConfig(vote_iou=0.5, features=FeatureScoringConfig(refine=5))),
        pytest.param(stored(crops=True), DetectConfig(), marks=pytest.mark.slow),
        (stored_with_attention(), DetectConfig(vote_iou=0.5, features=FeatureScoringConfig(refine=5))),
    ],
    ids=[
        *("fast_rcnn", "pool", "views", "multibox", "multibox views"),
        *("attention, both", "multibox attention, learned", "multibox attention, nms", "attention without boxes"),
        *("rcnn", "stored", "stored with crops", "stored with attention"),
    ],
)
def test_detections_are_those_of_the_detector(
    made: tuple[nn.Module, RegionSpec], config: DetectConfig, tmp_path: Path
) -> None:
    network, spec = made
    kind = next(kind for kind in KINDS if kind.spec is type(spec))
    assert kind.export is not None
    assert kind.scorer is not None
    export = load_class(kind.export)(network, spec, config)
    model = export.model()
    assert {one.domain for one in model.opset_import} == {""}
    scorer = kind.scorer(network, spec, config, torch.device("cpu"), bf16=False)
    given = [(image, NO_BOXES if spec.PROPOSES else boxes[: config.max_proposals]) for image, boxes in IMAGES]
    wanted = [select_detections(*one, config) for one in scored_regions(scorer, given)]
    assert min(map(len, wanted)) > 0

    def check(graph: Run) -> Agreement:
        found = [graph(image, boxes) for image, (_, boxes) in zip([one for one, _ in IMAGES], IMAGES, strict=True)]
        if not spec.PROPOSES:
            assert len(graph(IMAGES[0][0], NO_BOXES)) == 0
        return compare(zip(wanted, found, strict=True))

    agreement = write_onnx(model, tmp_path / "one.onnx", check)
    assert agreement.share == 1
    assert agreement.pixels < 0.1
    canvas = [(on_canvas(image), boxes) for image, boxes in given]
    wanted = [select_detections(*one, config) for one in scored_regions(scorer, canvas)]
    found = batch_of(export.model(GraphForm(CANVAS, 2)), canvas, config.max_detections)
    assert compare(zip(wanted, found, strict=True)).share == 1


def on_canvas(image: Image) -> Image:
    """The image in the corner of a grey one of CANVAS."""
    canvas = np.full((*CANVAS, 3), 114, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def batch_of(model: onnx.ModelProto, given: Sequence[tuple[Image, Float32Array]], most: int) -> list[Detections]:
    """The detections of a graph that takes all the images at once, and leaves the rows after them 0."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    proposals = np.zeros((len(given), max(len(boxes) for _, boxes in given), 4), np.float32)
    for place, (_, boxes) in enumerate(given):
        proposals[place, : len(boxes)] = boxes
    values = {"image": np.stack([image for image, _ in given]), "proposals": proposals}
    found = session.run(None, {one.name: values[one.name] for one in session.get_inputs()})
    shapes = [(len(given), most, 4), (len(given), most), (len(given), most)]
    assert [one.shape for one in session.get_outputs()] == list(map(list, shapes))
    assert [one.shape for one in found] == shapes
    counts = [int((labels > 0).sum()) for labels in found[2]]
    assert all(not one[place, count:].any() for one in found for place, count in enumerate(counts))
    return [Detections(*(one[place, :count] for one in found)) for place, count in enumerate(counts)]
