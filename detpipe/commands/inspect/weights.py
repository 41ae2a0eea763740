"""`detpipe inspect weights`: statistics of the tensors in a file -> inspect_weights.*, inspect_filters.png."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import CAFFE, NONE, BackboneConfig
from detpipe.classify.kinds import load_spec
from detpipe.commands.inspect.settings import InspectWeights
from detpipe.console import RESULT
from detpipe.inspect.filters import filter_pictures, first_filters, is_filter_bank
from detpipe.inspect.tensor_statistics import TensorStatistics, histogram, tensor_statistics
from detpipe.inspect.weight_change import WeightChange, weight_change
from detpipe.inspect.weight_file import CAFFEMODEL, read_tensors
from detpipe.network.network_folder import stored_backbone
from detpipe.progress import progress
from detpipe.report.curves import to_png
from detpipe.report.drawing import image_to_png
from detpipe.report.mosaic import mosaic
from detpipe.report.weights_page import (
    BINS,
    MAX_PANELS,
    Histogram,
    WeightsPage,
    histograms_figure,
    weights_text,
    write_weights_page,
)
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.structures import Image

logger = logging.getLogger(__name__)

START = "start"
"""The value of `against` for the initial weights of a training."""
SIDE = 960
"""Largest width of the picture of filters, in pixels."""


def run(config: InspectWeights) -> None:
    """Read the weights, measure them, and write the results."""
    path = weights_file(config.run_dir if config.path is None else config.path)
    tensors = read_tensors(path, config.prototxt)
    change, against = None, ""
    if config.against is not None:
        against, before = other_weights(config.against, path.parent, config.prototxt)
        change = weight_change(tensors, before)
    # Before the tensors are measured: the name of a layer may be wrong.
    filters = drawn_filters(tensors, config, bgr=is_bgr(path) if config.bgr is None else config.bgr)
    measured = progress(tensors.items(), "weights", total=len(tensors), unit="tensors")
    statistics = {name: tensor_statistics(tensor) for name, tensor in measured}
    data = WeightsPage(
        subtitle=str(path),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        statistics=statistics,
        histograms=chosen_histograms(tensors, statistics),
        filters=filters,
        against=against,
        change=change,
    )
    write_all(config.folder.path, data)


def weights_file(name: str) -> Path:
    """Return the file, or the weights in a run folder or classifier folder.

    Raises FileNotFoundError if the folder has no weights.
    """
    path = Path(name)
    if not path.is_dir():
        return path  # the reader checks it
    for file in (path / "classifier" / "weights.safetensors", path / "weights.safetensors"):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"{path}: expected a file of weights, or a run folder with a trained classifier, got neither; give path=FILE"
    )


def other_weights(against: str, folder: Path, prototxt: str | None) -> tuple[str, Mapping[str, Tensor]]:
    """Return a description of the earlier weights, and their tensors by name. folder: the classifier, for START."""
    if against != START:
        other = weights_file(against)
        return str(other), read_tensors(other, prototxt)
    config = trained_backbone(folder)
    if config.weights == NONE:
        raise ValueError(
            f"against=start: expected a training with initial weights from a file, got random ones in {folder}; "
            "give against=FILE"
        )
    network = create_backbone(stored_backbone(folder, config))
    return f"weights {config.weights} of {config.name}", network.state_dict()


def trained_backbone(folder: Path) -> BackboneConfig:
    """Return the backbone of a classifier. Raises FileNotFoundError or ClassifierError."""
    description = folder / "classifier.json"
    if not description.is_file():
        raise FileNotFoundError(
            f"against=start: expected a run folder with a trained classifier, got {folder}; give path=RUN"
        )
    return load_spec(folder).backbone


def is_bgr(path: Path) -> bool:
    """Return whether the network takes BGR: Caffe nets do, also those trained here."""
    if (path.parent / "classifier.json").is_file():
        return trained_backbone(path.parent).name == CAFFE
    return path.suffix == CAFFEMODEL


def chosen_histograms(
    tensors: Mapping[str, Tensor], statistics: Mapping[str, TensorStatistics]
) -> dict[str, Histogram]:
    """Return histograms of evenly spaced tensors with two or more axes, or of all tensors if none has two axes."""
    names = [name for name, tensor in tensors.items() if tensor.ndim > 1] or list(tensors)
    indices = np.unique(np.linspace(0, len(names) - 1, min(MAX_PANELS, len(names))).round().astype(int)).tolist()
    return {names[i]: histogram(tensors[names[i]], statistics[names[i]], BINS) for i in indices}


def drawn_filters(tensors: Mapping[str, Tensor], config: InspectWeights, *, bgr: bool) -> tuple[str, Image] | None:
    """Return the name and picture of the filters; None without filters. Raises ValueError for a bad `layer`."""
    name = first_filters(tensors) if config.layer is None else config.layer
    if name is None:
        return None
    if name not in tensors or not is_filter_bank(tensors[name]):
        banks = [bank for bank, tensor in tensors.items() if is_filter_bank(tensor)]
        some = ", ".join(banks[:5]) + (", ..." if len(banks) > 5 else "") or "none here"
        raise ValueError(f"layer: expected a tensor of filters larger than 1 x 1 ({some}), got {name!r}")
    return name, mosaic(filter_pictures(tensors[name], config.filters, bgr=bgr), SIDE)


def write_all(folder: Path, data: WeightsPage) -> None:
    """Write the numbers, the pictures and the page, and log the paths."""
    json_file, png_file, html_file = (folder / f"inspect_weights.{kind}" for kind in ("json", "png", "html"))
    write_json(json_file, to_json(data.statistics, data.shapes, data.change, data.subtitle, data.against))
    write_bytes(png_file, to_png(histograms_figure(data.histograms)))
    files = [json_file, png_file, html_file]
    if data.filters is not None:
        files.append(folder / "inspect_filters.png")
        write_bytes(files[-1], image_to_png(data.filters[1]))
    write_weights_page(html_file, data)
    logger.log(RESULT, "\n%s", weights_text(data))
    bad = [name for name, one in data.statistics.items() if one.not_finite]
    if bad:
        logger.warning("%s: NaN or infinity in: %s", data.subtitle, ", ".join(bad))
    logger.log(RESULT, "weights: %d tensors -> %s", len(data.statistics), ", ".join(map(str, files)))


def to_json(
    statistics: Mapping[str, TensorStatistics],
    shapes: Mapping[str, tuple[int, ...]],
    change: WeightChange | None,
    path: str,
    against: str,
) -> dict[str, object]:
    """Return all numbers of the page."""
    tensors = {name: {"shape": list(shapes[name]), **one.to_json()} for name, one in statistics.items()}
    compared = {} if change is None else {"against": against, "change": change.to_json()}
    return {"path": path, "tensors": tensors, **compared}
