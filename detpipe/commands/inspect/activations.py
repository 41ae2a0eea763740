"""`detpipe inspect activations`: the scale of weights, activations and gradients -> inspect_activations.*."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detpipe.commands.inspect.network import StudiedNetwork, first_image, images_and_labels, studied_network
from detpipe.commands.inspect.settings import InspectActivations
from detpipe.console import RESULT
from detpipe.inspect.signal_scale import activation_scale, gradient_scale
from detpipe.inspect.signals import Signals, feature_maps, measure_signals
from detpipe.report.curves import to_png
from detpipe.report.drawing import image_to_png
from detpipe.report.mosaic import beside, heat, mosaic
from detpipe.report.signals_page import SignalsPage, signals_figure, signals_text, write_signals_page
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.structures import Image

logger = logging.getLogger(__name__)

FEW = 4
"""Number of layers whose maps are drawn if `layers` is empty."""
SIDE = 640
"""Width of the picture of a layer's maps, in pixels."""


def run(config: InspectActivations) -> None:
    """Run one forward and backward pass, and write the measured signals."""
    studied = studied_network(config)
    check_layers(studied.network, config.layers)
    images, labels, source = images_and_labels(config, studied)

    def loss() -> Tensor:
        with torch.random.fork_rng():  # dropout is the same in each pass
            torch.manual_seed(config.seed)
            return studied.loss(images, labels)

    signals = measure_signals(studied.network, loss)
    names = config.layers or some_layers(signals)
    maps = feature_maps(studied.network, loss, names)
    image = first_image(images)
    pictures = {name: drawn_maps(image, maps[name], config.maps) for name in names}
    write_all(config, studied, SignalsPage(subtitle=f"{studied.title}; {source}", signals=signals, maps=pictures))


def check_layers(network: nn.Module, names: Sequence[str]) -> None:
    """Raise ValueError for a name that no layer of the network has, before anything is measured."""
    known = [name for name, _ in network.named_modules() if name]
    unknown = [name for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f" (as {', '.join(known[:3])}, ...)"
        raise ValueError(f"layers: expected names of layers of the network, got {', '.join(unknown)}{hint}")


def some_layers(signals: Signals) -> list[str]:
    """Return up to FEW evenly spaced layers with maps larger than 1 x 1."""
    names = [layer.name for layer in signals.layers if len(layer.shape) == 4 and min(layer.shape[2:]) > 1]
    indices = np.unique(np.linspace(0, len(names) - 1, min(FEW, len(names))).round().astype(int)).tolist()
    return [names[index] for index in indices]


def drawn_maps(image: Image, maps: Tensor, most: int) -> Image:
    """Return the image with the first `most` of the maps (C, H, W) on its right."""
    return beside(image, mosaic([heat(channel.numpy()) for channel in maps[:most]], SIDE))


def write_all(config: InspectActivations, studied: StudiedNetwork, data: SignalsPage) -> None:
    """Write the numbers, the pictures and the page, and log the paths."""
    folder = config.folder.path
    json_file, png_file, html_file = (folder / f"inspect_activations.{kind}" for kind in ("json", "png", "html"))
    scales = {"activations": activation_scale(data.signals), "gradients": gradient_scale(data.signals)}
    content = {
        "network": studied.title,
        "training": config.is_training,
        "seed": config.seed,
        "scale": {name: None if scale is None else scale.to_json() for name, scale in scales.items()},
        **data.signals.to_json(),
    }
    write_json(json_file, content)
    write_bytes(png_file, to_png(signals_figure(data.signals)))
    write_signals_page(html_file, data)
    files = [json_file, png_file, html_file, *write_maps(folder / "inspect_maps", data)]
    logger.log(
        RESULT, "%s, in %s mode\n%s", data.subtitle, "training" if config.is_training else "test", signals_text(data)
    )
    logger.log(RESULT, "activations: %d layers -> %s", len(data.signals.layers), ", ".join(map(str, files)))


def write_maps(folder: Path, data: SignalsPage) -> list[Path]:
    """Write one numbered picture per layer, and delete only the pictures of an earlier call."""
    for old in folder.glob("[0-9][0-9]_*.png"):
        old.unlink()
    files = []
    for number, (name, image) in enumerate(data.maps.items(), start=1):
        clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[-80:]
        files.append(folder / f"{number:02}_{clean}.png")
        write_bytes(files[-1], image_to_png(image))
    return files
