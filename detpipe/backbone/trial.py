"""A trial of a backbone with its settings, before any expensive work is done or anything is removed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from detpipe.backbone.backbone import Backbone, meta_copy
from detpipe.backbone.create import check_weights, create_from_seed
from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.backbone.settings import CAFFE, BackboneConfig

logger = logging.getLogger(__name__)


def try_backbone(
    config: BackboneConfig,
    size: tuple[int, int] | None,
    setting: str,
    *,
    maps: Sequence[str] = (),
    learning: FineTuningConfig | None = None,
    stages: str = "head.freeze_stages",
    batch: int = 2,
) -> None:
    """Create the network with its weights, freeze it, and run it once on the meta device, which computes only shapes.

    size: (height, width) of the images in pixels; None: the network's own input size. setting, stages: the names of the
    settings of the size and of the number of frozen stages. maps: the feature maps that are used; none: the pooled
    features. learning: how it is trained; None: it is not trained. batch: number of images in a batch.

    Raises ImportError for a missing package; FileNotFoundError or ValueError for a wrong name, weights that can't be
    loaded, maps and stages that the network lacks, and a network that does not take images of this size.
    """
    check_weights(config)
    if size is None and config.input_size is not None:
        size = (config.input_size, config.input_size)
    # A Caffe net is built for its input size. Other networks have their own size until it is replaced.
    is_square = size is not None and size[0] == size[1]
    built = replace(config, input_size=size[0] if size is not None and is_square and config.name == CAFFE else None)
    try:
        backbone = create_from_seed(built, 0, log=False)
    except (ImportError, OSError, ValueError):
        raise
    except Exception as error:  # a library's network may raise anything
        raise ValueError(
            f"backbone.name={config.name}: expected a network that detpipe can use, got an error ({_text(error)}); "
            "choose another network"
        ) from error
    own = backbone.spec.size
    height, width = size or own
    if maps:
        _check_maps(backbone, maps, config.name)
    if learning is not None:
        frozen = min(max(learning.freeze_stages, 0), len(backbone.stages))
        backbone.freeze(frozen, depthwise=learning.freeze_depthwise, batch_norm=learning.freeze_batch_norm)
    network = meta_copy(backbone).train(learning is not None)
    assert isinstance(network, Backbone)
    try:
        with torch.no_grad():
            images = torch.empty(batch, 3, height, width, device="meta")
            _ = network.forward_maps(images, maps) if maps else network(images)
    except Exception as error:  # a library's network may raise anything
        remedy = f"the network was made for {own[0]} x {own[1]}; set {setting}={own[0]}, or choose another network"
        if maps or own == (height, width):
            remedy = "choose a network that takes images of any size, such as torchvision/resnet50"
        raise ValueError(
            f"backbone.name={config.name}: expected a network that takes images of {height} x {width} pixels "
            f"({setting}) in batches of {batch}, got an error ({_text(error)}); {remedy}"
        ) from error
    logger.debug("backbone.name=%s: takes %d x %d pixels (%s)", config.name, height, width, setting)
    if learning is not None:
        _check_stages(backbone, learning.freeze_stages, config.name, stages)


def image_size(scales: Sequence[int], max_side: int, *, square: bool = False) -> tuple[int, int]:
    """(height, width) of a scaled image of about 3 : 4, or of a square one. scales, max_side: settings of the head.

    Like most widths of images, the width is not a multiple of a power of 2.
    """
    short = min(scales[-1], max_side)
    return (short, short) if square else (short, min(short * 4 // 3 + 1, max_side))


def _check_maps(backbone: Backbone, maps: Sequence[str], name: str) -> None:
    unknown = [one for one in maps if one not in backbone.feature_maps]
    if unknown:
        known = ", ".join(backbone.feature_maps) or "none"
        raise ValueError(
            f"backbone.name={name}: expected a network with the feature maps {', '.join(maps)} (head.maps or "
            f"multibox.maps), got one with {known}; choose other maps or another network"
        )


def _check_stages(backbone: Backbone, stages: int, name: str, setting: str) -> None:
    names = [stage for stage, _ in backbone.stages]
    if not 0 <= stages <= len(names):
        raise ValueError(
            f"{setting}: expected 0 to {len(names)}, because backbone.name={name} has the stages "
            f"{', '.join(names)}, got {stages}; set {setting}={len(names)} or less"
        )


def _text(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
