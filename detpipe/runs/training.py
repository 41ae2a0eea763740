"""The artefact of a training: done once, by the first of several processes, and what it was made of."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.create import check_weights
from detpipe.backbone.settings import BackboneConfig
from detpipe.datasets.image_file import file_digest
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.network.train_network import RunContext, training_key
from detpipe.runs.run_folder import dataset_digest
from detpipe.runs.training_images import Part
from detpipe.solver.initial_weights import check_start_weights
from detpipe.solver.ranks import Ranks, joined_ranks
from detpipe.solver.solver_config import SolverConfig
from detpipe.storage.interrupt import Interrupted
from detpipe.storage.manifest import Artefact, ArtefactError, State, plain

logger = logging.getLogger(__name__)


class TrainingCommand(Protocol):
    """The settings that all commands have that train by the solver."""

    backbone: BackboneConfig
    solver: SolverConfig
    precision: Precision
    device: Device
    seed: int
    overwrite: bool


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """A training that is ready to start.

    folder: of the artefact. stage: the command in the manifest. learned: the part of the key that says what is learned
    and how; solver, seed, device and precision are added. inputs: digests by name; those of weight files are added.
    train: does the training and, in the first process, saves the network; returns the solver's summary.
    """

    folder: Path
    stage: str
    learned: Mapping[str, Any]
    inputs: Mapping[str, str]
    train: Callable[[RunContext], dict[str, float]]

    def artefact(self, config: TrainingCommand, device: torch.device, *, bf16: bool) -> Artefact:
        """The artefact with its key."""
        settings = {
            **self.learned,
            "solver": config.solver,
            "seed": config.solver.seed(config.seed),
            "bf16": bf16,
            "device": device.type,
        }
        return Artefact(
            self.folder,
            stage=self.stage,
            settings=training_key(plain(settings)),
            inputs={**self.inputs, **weights_digest(config.backbone, config.solver)},
        )


def run_training(config: TrainingCommand, prepare: Callable[[], TrainingJob]) -> None:
    """Prepare a training and do it once; of several processes of torchrun the first writes.

    Raises Interrupted after a signal, ArtefactError where the folder holds another training, and as `check_starts`.
    """
    with joined_ranks() as ranks:
        device = resolve_device(config.device)
        bf16 = resolve_bf16(config.precision, device)
        job = prepare()
        complete(job.artefact(config, device, bf16=bf16), config, device, bf16, ranks, job.train)


def part_digests(train: Part, val: Part) -> dict[str, str]:
    """The digests of the images and objects of a training, as inputs of its artefact."""
    return {"train": dataset_digest(train.dataset), "val": dataset_digest(val.dataset)}


def complete(
    artefact: Artefact,
    config: TrainingCommand,
    device: torch.device,
    bf16: bool,
    ranks: Ranks,
    work: Callable[[RunContext], dict[str, float]],
) -> None:
    """Do the training, which gives its summary, unless it is done; keep the manifest true, and report.

    Logs and snapshots stand in the artefact's folder, under the key that it was begun with.
    Raises Interrupted after a signal, ArtefactError where the folder holds another training, and as `check_starts`.
    """
    check_starts(artefact, config)
    if begin(artefact, ranks, overwrite=config.overwrite) is not State.COMPLETE:
        begun = time.perf_counter()
        context = RunContext(
            solver=config.solver,
            folder=artefact.path,
            key=artefact.manifest.digest,
            seed=config.solver.seed(config.seed),
            device=device,
            bf16=bf16,
            ranks=ranks,
        )
        try:
            summary = work(context)
        except Interrupted:
            if ranks.is_first:
                artefact.pause(time.perf_counter() - begun)
            raise
        if ranks.is_first:
            artefact.finish(seconds=time.perf_counter() - begun, summary=summary)
    if ranks.is_first:
        report(artefact)


def check_starts(artefact: Artefact, config: TrainingCommand) -> None:
    """Raise before overwrite=true makes room by deleting what the training is to start from, or for what isn't there.

    ArtefactError, or FileNotFoundError for a snapshot.
    """
    if not config.overwrite:
        return
    solver = config.solver
    resumed = None if solver.resume in ("auto", "none") else solver.resume
    if resumed is not None and not Path(resumed).is_file():
        raise FileNotFoundError(
            f"solver.resume: expected auto, none or a snapshot, got {resumed}: there is no such file"
        )
    starts = {"backbone.weights": config.backbone.weights, "solver.weights": solver.weights, "solver.resume": resumed}
    for name, path in starts.items():
        if path and Path(path).resolve().is_relative_to(artefact.path.resolve()):
            raise ArtefactError(
                f"{name}: {path} lies in {artefact.path}, which overwrite=true deletes first; give another run_dir, or "
                "move the file"
            )


def begin(artefact: Artefact, ranks: Ranks, *, overwrite: bool) -> State:
    """What the first rank finds, and makes room for; the others are told. Where it refuses, all raise ArtefactError."""
    state = None
    try:
        if ranks.is_first:
            state = artefact.begin(overwrite=overwrite)
    finally:
        refused = ranks.any(ranks.is_first and state is None)
        done = ranks.any(state is State.COMPLETE)
    if refused:
        raise ArtefactError(f"{artefact.path}: rank 0 refused to make it; see the message of rank 0")
    if not ranks.is_first:
        artefact.manifest = artefact.found() or artefact.manifest
    return State.COMPLETE if done else state or State.PARTIAL


def weights_digest(backbone: BackboneConfig, solver: SolverConfig) -> dict[str, str]:
    """The digests of a person's own files, of weights and of a net of Caffe's; ImageNet's and none have no file.

    Raises FileNotFoundError or ValueError where weights can't be had.
    """
    check_weights(backbone)
    check_start_weights(solver.weights, "solver.weights")
    files = {"weights": Path(backbone.weights), "solver.weights": Path(solver.weights or "")}
    if backbone.prototxt is not None:
        files["prototxt"] = find_prototxt(backbone.prototxt)
    return {name: file_digest(path).hex() for name, path in files.items() if path.is_file()}


def report(artefact: Artefact) -> None:
    """Say what was made."""
    summary = artefact.manifest.summary
    logger.info(
        "%s: %d iterations in %.1f s, %.0f examples/s, %.1f %% of the time waiting for them -> %s",
        artefact.manifest.stage,
        summary["iterations"],
        artefact.manifest.seconds,
        summary["examples_per_second"],
        100 * summary["waiting"],
        artefact.path,
    )
