"""A MultiBox that is small enough for tests, a net of Caffe's of two convolutions, and drawn images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detpipe.backbone.settings import BackboneConfig
from detpipe.heads.multibox.folder import MultiBoxSpec, build_multibox, save_multibox
from detpipe.heads.multibox.network import MultiBox
from detpipe.heads.multibox.priors import as_numbers, centred
from detpipe.heads.multibox.settings import MultiBoxConfig
from detpipe.network.annotated_batches import AnnotatedImage
from tests import drawn

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 3, 64, 64] } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 4 kernel_size: 5
        stride: 4 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" convolution_param { num_output: 6 kernel_size: 3
        stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool" type: "Pooling" bottom: "conv2" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 10
        weight_filler { type: "xavier" } } }
"""


def head(**more: object) -> MultiBoxConfig:
    settings = {"maps": ["conv2"], "width": 8, "scales": [64], "freeze_stages": 0, "priors": 2, **more}
    return MultiBoxConfig(**settings)  # type: ignore[arg-type]


def spec(folder: Path, **more: object) -> MultiBoxSpec:
    """Squares of 30 on a map of stride 8, of 60 on one of 16; writes the net into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.prototxt").write_text(NET)
    backbone = BackboneConfig(
        name="caffe", prototxt=str(folder / "tiny.prototxt"), weights="none", mean=[104.0, 117.0, 123.0], scale=1 / 64
    )
    shapes = [centred(np.array([[side, side]], dtype=np.float32)) for side in (30, 60)]
    return MultiBoxSpec(backbone, head(**more), as_numbers(shapes))


def network(one: MultiBoxSpec, seed: int = 0) -> MultiBox:
    """Evaluation mode; predictions that differ from place to place."""
    made = build_multibox(one, seed=seed, pretrained=True).eval()
    for layer in made.predictor.outputs:
        layer.weight.data.mul_(30)
    return made


def saved(folder: Path, seed: int = 0, **more: object) -> Path:
    """The folder of a network that was never trained."""
    one = spec(folder.parent / f"net_{folder.name}", **more)
    folder.mkdir()
    save_multibox(folder, network(one, seed), one)
    return folder


def annotated(folder: Path, count: int = 2) -> list[AnnotatedImage]:
    """Drawn images with their discs and squares."""
    images = []
    for number in range(count):
        image, truth = drawn.draw(number)
        drawn.write_jpeg(folder / f"{number}.jpg", image)
        images.append(AnnotatedImage(folder / f"{number}.jpg", truth))
    return images
