"""Features of whole images from a backbone, by which images are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from detpipe.backbone.backbone import Backbone
from detpipe.classify.features.extractor import shown_size
from detpipe.network.image_per_core import image_per_core
from detpipe.network.scaled_image import Scaling
from detpipe.structures import Float32Array, Image

SIDE = 320
"""The shorter side of an image as the network sees it, in pixels."""


def image_features(backbone: Backbone, images: Iterable[Image], device: torch.device) -> Iterator[Float32Array]:
    """Yield the mean of the last feature map over each image (H, W, 3): (C,) float32, computed in float32.

    A backbone without maps gives its pooled features (feature_width,) of the image at the size of its input spec.
    """
    network = backbone.to(device).eval()
    maps = list(network.feature_maps)[-1:]

    def features(image: Image) -> Float32Array:
        size = (image.shape[0], image.shape[1])
        stride = network.feature_maps[maps[0]].stride if maps else 1
        pixels = Scaling(size, shown_size(size, SIDE, stride) if maps else network.spec.size).pixels(image)
        with torch.inference_mode():
            inputs = network.spec.to_input(torch.from_numpy(pixels)[None].to(device))
            pooled = network.forward_maps(inputs, maps)[maps[0]].mean(dim=(2, 3)) if maps else network(inputs)
        values: Float32Array = pooled[0].float().cpu().numpy()
        return values

    yield from image_per_core(features, images, device)
