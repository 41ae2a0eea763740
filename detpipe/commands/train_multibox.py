"""`detpipe train-multibox`: a network learns where things might be. Images with boxes -> multibox/."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from detpipe.backbone.create import map_strides, written_out
from detpipe.commands.stage_settings import Targets, TrainMultiBox
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
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.train_network import Session, training_key
from detpipe.runs.annotated_images import Target, objects_of, readable, true_targets
from detpipe.runs.stored_split import open_split
from detpipe.runs.training import Training, complete
from detpipe.runs.training_images import Part, training_parts
from detpipe.solver.ranks import joined_ranks
from detpipe.storage.manifest import Artefact, plain, read_manifest
from detpipe.structures import Float32Array, GroundTruth, Proposals


def run(config: TrainMultiBox) -> None:
    """Train the network on the training images and their objects, and save it. The first rank writes."""
    with joined_ranks() as ranks:
        training = described(config)
        artefact = trained_artefact(config, training)
        complete(artefact, config, training.device, training.bf16, ranks, partial(train, config, training))


def described(config: TrainMultiBox) -> Training[MultiBoxSpec]:
    """The images, the priors that their objects make or that it starts from, and where it runs.

    Raises ValueError for no objects.
    """
    labelled = config.targets is Targets.truth
    train, val = training_parts(config.data_source, config.val_share, config.seed, annotated=labelled)
    device = resolve_device(config.device)
    boxes, sizes = objects_of(targets_of(config, train))
    strides = map_strides(config.backbone, config.multibox.maps)
    # Made in any case: this refuses a data set without objects.
    own = make_shapes(config.multibox, strides, boxes, sizes, seed=config.solver.seed(config.seed))
    shapes = priors_of_start(config) or own
    spec = MultiBoxSpec(written_out(config.backbone), config.multibox, as_numbers(shapes))
    return Training(spec, train, val, device, resolve_bf16(config.precision, device))


def priors_of_start(config: TrainMultiBox) -> list[Float32Array] | None:
    """The priors of the MultiBox that solver.weights starts from, by map: what it has learned is how these move.

    None where it starts from no MultiBox. Raises ValueError for one of another form, whose priors are no start.
    """
    folder = Path(config.solver.weights).parent if config.solver.weights is not None else None
    if folder is None or not (folder / DESCRIPTION).is_file():
        return None
    spec = load_multibox_spec(folder)
    if spec.multibox.form is not config.multibox.form or len(spec.shapes) != config.multibox.n_maps:
        raise ValueError(
            f"solver.weights: wanted a MultiBox of the form {config.multibox.form.value} and {config.multibox.n_maps} "
            f"maps, got {spec.multibox.form.value} and {len(spec.shapes)} in {folder}; give its multibox.* settings"
        )
    return as_shapes(spec.shapes)


def targets_of(config: TrainMultiBox, part: Part) -> Iterator[Target]:
    """Each image with what it is to propose: its objects, or the run's proposals for it."""
    if config.targets is Targets.truth:
        yield from true_targets(part)
        return
    split = open_split(config.folder.proposals, part.split, part.dataset)
    for record, stored in split.read(part.records):
        if stored is not None:
            yield record, *as_targets(stored.proposals.top(config.target_boxes))


def as_targets(proposals: Proposals) -> tuple[GroundTruth, Float32Array]:
    """Proposals in place of objects, numbered by their labels, and the worth of each by its rank."""
    count = len(proposals)
    worth = (1 - np.arange(count, dtype=np.float32) / max(count, 1)).astype(np.float32)
    return GroundTruth.from_boxes(proposals.boxes, np.arange(1, count + 1)), worth


def trained_artefact(config: TrainMultiBox, training: Training[MultiBoxSpec]) -> Artefact:
    """The network's folder with its key."""
    settings = {
        "kind": "multibox",
        "network": training.spec,
        **training.settings(config),
        "targets": [config.targets, config.target_boxes] if config.targets is Targets.proposals else config.targets,
    }
    proposals = {} if config.targets is Targets.truth else {"proposals": read_manifest(config.folder.proposals).digest}
    return Artefact(
        config.folder.multibox,
        stage="train-multibox",
        settings=training_key(plain(settings)),
        inputs={**training.inputs(config), **proposals},
    )


def train(config: TrainMultiBox, training: Training[MultiBoxSpec], session: Session) -> dict[str, float]:
    """Train the network of the spec, which the first rank saves; returns the solver's summary."""
    max_bad = config.data_source.max_bad
    labelled = training.val.dataset.ground_truth is not None
    network = build_multibox(training.spec, seed=session.seed, pretrained=True)
    summary = train_multibox(
        network,
        readable(targets_of(config, training.train), len(training.train.records), max_bad),
        readable(true_targets(training.val) if labelled else (), len(training.val.records), max_bad),
        head=config.multibox,
        session=session,
    )
    if session.ranks.is_first:
        save_multibox(config.folder.multibox, network, training.spec)
    return summary
