"""`detpipe train-multibox`: train MultiBox, a network that proposes boxes, on images with boxes -> multibox/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from detpipe.backbone.create import map_strides, written_out
from detpipe.backbone.trial import image_size, try_backbone
from detpipe.commands.stage_settings import TargetSource, TrainMultiBox
from detpipe.heads.multibox.folder import (
    DESCRIPTION,
    MultiBoxSpec,
    build_multibox,
    load_multibox_spec,
    save_multibox,
)
from detpipe.heads.multibox.network import make_shapes
from detpipe.heads.multibox.priors import as_numbers, as_shapes
from detpipe.heads.multibox.train import train_multibox
from detpipe.network.train_network import RunContext
from detpipe.runs.annotated_images import Target, objects_of, readable, true_targets
from detpipe.runs.stored_split import open_split
from detpipe.runs.training import TrainingJob, part_datasets, part_digests, run_training
from detpipe.runs.training_images import Part, training_parts
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Float32Array, GroundTruth, Proposals


def run(config: TrainMultiBox) -> None:
    """Train the network on the training images and their objects, and save it. Rank 0 writes."""
    run_training(config, lambda: prepare(config))


def prepare(config: TrainMultiBox) -> TrainingJob:
    """Return the training. Its priors are computed from the training objects or taken from solver.weights.

    Raises ValueError if there are no objects.
    """
    size = image_size(config.multibox.scales, config.multibox.max_side, square=config.multibox.square)
    try_backbone(
        config.backbone, size, "multibox.scales", maps=config.multibox.maps, learning=config.multibox,
        stages="multibox.freeze_stages",
    )  # fmt: skip
    given_priors = initial_priors(config)
    labelled, max_bad = config.targets is TargetSource.truth, config.data_source.max_bad
    train_part, val_part = training_parts(config.data_source, config.val_share, config.seed, annotated=labelled)
    boxes, sizes = objects_of(targets_of(config, train_part), config.multibox.tiles)
    strides = map_strides(config.backbone, config.multibox.maps)
    # Always computed, because it raises for a data set without objects.
    computed = make_shapes(config.multibox, strides, boxes, sizes, seed=config.solver.seed(config.seed))
    shapes = given_priors or computed
    spec = MultiBoxSpec(written_out(config.backbone), config.multibox, as_numbers(shapes))

    def train(context: RunContext) -> dict[str, float]:
        network = build_multibox(spec, seed=context.seed, pretrained=True)
        annotated = val_part.dataset.ground_truth is not None
        summary = train_multibox(
            network,
            readable(targets_of(config, train_part), len(train_part.records), max_bad),
            readable(true_targets(val_part) if annotated else (), len(val_part.records), max_bad),
            head=config.multibox,
            context=context,
        )
        if context.ranks.is_first:
            save_multibox(config.folder.multibox, network, spec)
        return summary

    proposals = {} if labelled else {"proposals": read_manifest(config.folder.proposals).digest}
    return TrainingJob(
        folder=config.folder.multibox,
        stage="train-multibox",
        learned={
            "kind": "multibox",
            "network": spec,
            "targets": config.targets if labelled else [config.targets, config.target_boxes],
        },
        inputs={**part_digests(train_part, val_part), **proposals},
        train=train,
        datasets=part_datasets(train_part, val_part),
        source=config.data_source,
    )


def initial_priors(config: TrainMultiBox) -> list[Float32Array] | None:
    """Return the priors of the MultiBox in solver.weights, by map: its weights predict deltas of these priors.

    None if solver.weights is not a MultiBox. Raises ValueError if its form or number of maps differs.
    """
    folder = Path(config.solver.weights).parent if config.solver.weights is not None else None
    if folder is None or not (folder / DESCRIPTION).is_file():
        return None
    spec = load_multibox_spec(folder)
    if spec.multibox.form is not config.multibox.form or len(spec.shapes) != config.multibox.n_maps:
        raise ValueError(
            f"solver.weights: expected a MultiBox of the form {config.multibox.form.value} and "
            f"{config.multibox.n_maps} maps, got {spec.multibox.form.value} and {len(spec.shapes)} in {folder}; "
            "give its multibox.* settings"
        )
    return as_shapes(spec.shapes)


def targets_of(config: TrainMultiBox, part: Part) -> Iterator[Target]:
    """Yield each image with its targets: its objects, or its proposals in the run folder."""
    if config.targets is TargetSource.truth:
        yield from true_targets(part)
        return
    split = open_split(config.folder.proposals, part.split, part.dataset)
    for record, stored in split.read(part.records):
        if stored is not None:
            yield record, *as_targets(stored.proposals.top(config.target_boxes))


def as_targets(proposals: Proposals) -> tuple[GroundTruth, Float32Array]:
    """Return proposals as targets (P boxes, labels 1..P), and their loss weights (P,), which decrease with rank."""
    count = len(proposals)
    weight = (1 - np.arange(count, dtype=np.float32) / max(count, 1)).astype(np.float32)
    return GroundTruth.from_boxes(proposals.boxes, np.arange(1, count + 1)), weight
