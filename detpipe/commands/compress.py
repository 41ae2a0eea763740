"""`detpipe compress`: compress the two layers of a Fast R-CNN by truncated SVD -> a new run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from detpipe.classify.classifier_folder import ClassifierError, save_classifier
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.kinds import kind_in, load_classifier, load_spec
from detpipe.commands.detector_settings import LAYERS, Compress
from detpipe.console import RESULT
from detpipe.heads.fast_rcnn.network import FastRcnn
from detpipe.heads.fast_rcnn.truncated_svd import kept_share, rank_keeping, truncated
from detpipe.runs.detect_settings import carry_settings
from detpipe.runs.kept_dataset import carry_dataset
from detpipe.runs.run_folder import copy_proposals
from detpipe.runs.run_proposer import keep_proposer
from detpipe.storage.manifest import Artefact, ArtefactError, find_manifest, read_manifest

logger = logging.getLogger(__name__)

TIMED_REGIONS = 1000
REPEATS = 5


def run(config: Compress) -> None:
    """Compress the layers, save the detector with its proposals, and log size and time before and after."""
    old, new = config.folder.classifier, config.new_folder.classifier
    before, spec = read_manifest(old), check_classifier(config)
    find_manifest(config.folder.proposals)  # a damaged one is named before the work
    network, _ = load_classifier(old)
    assert isinstance(network, FastRcnn)
    check_ranks(network, config.ranks)
    ranks = config.ranks or [rank_keeping(layer_of(network, name), config.keep) for name in LAYERS]
    artefact = Artefact(
        new,
        stage="compress",
        settings={"ranks": ranks, "classes": spec.classes},
        inputs={"classifier": before.digest},
    )
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            making.summary = compress(network, spec, ranks, old, new)
            keep_proposer(config.folder, new)
            carry_settings(old, new)
    copy_proposals(config.folder, config.new_folder)
    carry_dataset(config.folder, config.new_folder)
    report(config, ranks, artefact.manifest.summary)


def check_classifier(config: Compress) -> FastRcnnSpec:
    """Return the description of the run's classifier, before its weights are read.

    Raises ClassifierError if it is not a Fast R-CNN, ArtefactError if it is compressed already.
    """
    folder = config.folder.classifier
    spec = load_spec(folder)
    if not isinstance(spec, FastRcnnSpec):
        raise ClassifierError(
            f"{folder}: expected a Fast R-CNN (head=fast_rcnn), got {kind_in(folder).description}; give the run_dir of "
            "a Fast R-CNN"
        )
    if spec.svd_ranks:
        raise ArtefactError(f"{folder}: is compressed already; compress the original")
    return spec


def check_ranks(network: FastRcnn, ranks: Sequence[int]) -> None:
    """Raise ValueError for a rank that is too large for its layer, before an earlier result is removed."""
    for name, rank in zip(LAYERS, ranks, strict=False):
        layer = layer_of(network, name)
        most = min(layer.in_features, layer.out_features)
        if rank > most:
            raise ValueError(f"ranks: expected a rank of 1 to {most} for {name}, or 0 to leave it, got {rank}")


def layer_of(network: FastRcnn, name: str) -> nn.Linear:
    """Return one of the two layers before compression."""
    layer = getattr(network, name)
    assert isinstance(layer, nn.Linear)
    return layer


def compress(network: FastRcnn, spec: FastRcnnSpec, ranks: Sequence[int], old: Path, new: Path) -> dict[str, float]:
    """Compress the layers in place, save the network, and return the numbers before and after."""
    numbers = {f"{name}_kept": round(kept_share(layer_of(network, name), rank), 4) if rank else 1.0
               for name, rank in zip(LAYERS, ranks, strict=True)}  # fmt: skip
    numbers |= {"parameters_before": head_parameters(network), "milliseconds_before": head_milliseconds(network)}
    for name, rank in zip(LAYERS, ranks, strict=True):
        if rank:
            setattr(network, name, truncated(layer_of(network, name), rank))
    numbers |= {"parameters": head_parameters(network), "milliseconds": head_milliseconds(network)}
    save_classifier(new, network, replace(spec, svd_ranks=tuple(ranks)), loaded_from=old)
    return numbers


def head_parameters(network: FastRcnn) -> int:
    """Return the number of parameters of the two layers."""
    return sum(tensor.numel() for name in LAYERS for tensor in getattr(network, name).parameters())


def head_milliseconds(network: FastRcnn) -> float:
    """Time TIMED_REGIONS pooled regions through all layers after the pooling: the fastest of REPEATS passes."""
    pooled = torch.zeros(TIMED_REGIONS, network.depth, network.pool_size, network.pool_size)
    regions = torch.zeros(TIMED_REGIONS, 5)
    times = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            begun = time.perf_counter()
            network.classify(pooled, regions)
            times.append(time.perf_counter() - begun)
    return round(1000 * min(times), 2)


def report(config: Compress, ranks: Sequence[int], numbers: dict[str, float]) -> None:
    """Log the result."""
    logger.log(
        RESULT,
        "compress: ranks %s keep %.1f %% and %.1f %% of the squared singular values; parameters: %.0f of %.0f; time of "
        "%d regions: %.1f ms (before: %.1f ms) -> %s\nto evaluate: detpipe detect run_dir=%s, "
        "then detpipe eval run_dir=%s",
        " and ".join(map(str, ranks)),
        100 * numbers["fc1_kept"],
        100 * numbers["fc2_kept"],
        numbers["parameters"],
        numbers["parameters_before"],
        TIMED_REGIONS,
        numbers["milliseconds"],
        numbers["milliseconds_before"],
        config.new_folder.classifier,
        config.new_folder.path,
        config.new_folder.path,
    )
