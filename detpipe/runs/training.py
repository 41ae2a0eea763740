"""Run a training once and write its artefact; with several processes, rank 0 writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from detpipe.backbone.caffe.presets import find_prototxt
from detpipe.backbone.create import check_weights
from detpipe.backbone.settings import BackboneConfig
from detpipe.console import RESULT
from detpipe.datasets.image_file import file_digest
from detpipe.datasets.source import DatasetSource
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.network.train_network import RunContext, training_key
from detpipe.plugins import package_versions
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.run_folder import RunFolder, dataset_digest
from detpipe.runs.training_images import Part
from detpipe.solver.initial_weights import check_start_weights
from detpipe.solver.ranks import Ranks, joined_ranks
from detpipe.solver.solver_config import SolverConfig
from detpipe.storage.interrupt import Interrupted
from detpipe.storage.manifest import Artefact, ArtefactError, State, plain
from detpipe.structures import Dataset
from detpipe.tracking.follower import following
from detpipe.tracking.tracker import NoTracker, Tracker

logger = logging.getLogger(__name__)


class TrainingCommand(Protocol):
    """The settings of every command that trains with the solver."""

    backbone: BackboneConfig
    solver: SolverConfig
    precision: Precision
    device: Device
    seed: int
    overwrite: bool
    track: Tracker


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """A training that is ready to start.

    folder: path of the artefact. stage: the command's name in the manifest. learned: the settings of model and data in
    the key; solver, seed, device and precision are added. inputs: digests by name; digests of weight files are added.
    datasets: the splits among the inputs, by name. source: the settings of this data set, for the run folder.
    train: trains the network, saves it in rank 0, and returns the solver's summary.
    """

    folder: Path
    stage: str
    learned: Mapping[str, Any]
    inputs: Mapping[str, str]
    train: Callable[[RunContext], dict[str, float]]
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    source: DatasetSource | None = None

    def artefact(self, config: TrainingCommand, device: torch.device, *, bf16: bool) -> Artefact:
        """Return the artefact with its key."""
        settings = plain(
            {
                **self.learned,
                "solver": config.solver,
                "seed": config.solver.seed(config.seed),
                "bf16": bf16,
                "device": device.type,
            }
        )
        return Artefact(
            self.folder,
            stage=self.stage,
            settings=training_key(settings),
            inputs={
                **self.inputs,
                **weights_digest(config.backbone, config.solver),
                **package_versions(settings),
            },
            explain=explainer(RunFolder(self.folder.parent), self.datasets),
        )


def run_training(config: TrainingCommand, prepare: Callable[[], TrainingJob]) -> None:
    """Prepare a training and run it, unless it is already done. Of the processes of torchrun, rank 0 writes.

    Raises Interrupted after a signal, ArtefactError if the folder has another training, and as `check_solver_files` and
    `check_starts`.
    """
    with joined_ranks() as ranks:
        device = resolve_device(config.device)
        bf16 = resolve_bf16(config.precision, device)
        check_solver_files(config.solver)
        config.track.check()
        begun = time.perf_counter()
        job = prepare()
        seconds = time.perf_counter() - begun
        logger.debug("%s: prepared in %.1f s; rank %d of %d", job.stage, seconds, ranks.rank, ranks.size)

        def work(context: RunContext) -> dict[str, float]:
            if ranks.is_first:
                remember(RunFolder(job.folder.parent), job.datasets.values())
                if job.source is not None:
                    keep_dataset(RunFolder(job.folder.parent), job.source)
            return job.train(context)

        complete(job.artefact(config, device, bf16=bf16), config, device, bf16, ranks, work)


def check_solver_files(solver: SolverConfig) -> None:
    """Raise ValueError or FileNotFoundError if a file that the training starts from is missing or unreadable.

    Called before the data set is read.
    """
    check_start_weights(solver.weights, "solver.weights")
    resumed = snapshot_of(solver)
    if resumed is not None and not Path(resumed).is_file():
        raise FileNotFoundError(
            f"solver.resume: expected auto, none or the path of a snapshot, got {resumed}; no such file exists"
        )


def snapshot_of(solver: SolverConfig) -> str | None:
    """The path in solver.resume; None for auto and none."""
    return None if solver.resume in ("auto", "none") else solver.resume


def part_digests(train: Part, val: Part) -> dict[str, str]:
    """Return the digests of the training and validation images and objects, as inputs of an artefact."""
    return {name: dataset_digest(dataset) for name, dataset in part_datasets(train, val).items()}


def part_datasets(train: Part, val: Part) -> dict[str, Dataset]:
    """Return the data sets of the training and validation images by the names of their inputs."""
    return {"train": train.dataset, "val": val.dataset}


def complete(
    artefact: Artefact,
    config: TrainingCommand,
    device: torch.device,
    bf16: bool,
    ranks: Ranks,
    work: Callable[[RunContext], dict[str, float]],
) -> None:
    """Run the training unless it is already done, update the manifest, and log the result.

    work: runs the training and returns its summary. Logs and snapshots are in the artefact's folder.
    Raises Interrupted after a signal, ArtefactError if the folder has another training, and as `check_starts`.
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
        tracker = config.track if ranks.is_first else NoTracker()
        try:
            with following(
                tracker, artefact.path.parent, log=artefact.path / "log.jsonl", config=artefact.manifest.settings
            ):
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
    """Check that overwrite=true does not delete the files that the training starts from.

    Raises ArtefactError if one of them is in the artefact's folder.
    """
    if not config.overwrite:
        return
    solver = config.solver
    starts = {
        "backbone.weights": config.backbone.weights,
        "solver.weights": solver.weights,
        "solver.resume": snapshot_of(solver),
    }
    for name, path in starts.items():
        if path and Path(path).resolve().is_relative_to(artefact.path.resolve()):
            raise ArtefactError(
                f"{name}: expected a file outside {artefact.path}, which overwrite=true deletes first, got {path}; "
                "give another run_dir, or move the file"
            )


def begin(artefact: Artefact, ranks: Ranks, *, overwrite: bool) -> State:
    """Begin the artefact in rank 0 and share its state. If rank 0 refuses, all ranks raise ArtefactError."""
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
    """Return the digests of the user's files of weights and of a Caffe net. "imagenet" and "none" have no file.

    Raises FileNotFoundError or ValueError if the weights are not available.
    """
    check_weights(backbone)
    files = {"weights": Path(backbone.weights), "solver.weights": Path(solver.weights or "")}
    if backbone.prototxt is not None:
        files["prototxt"] = find_prototxt(backbone.prototxt)
    return {name: file_digest(path).hex() for name, path in files.items() if path.is_file()}


def report(artefact: Artefact) -> None:
    """Log the result."""
    summary = artefact.manifest.summary
    logger.log(
        RESULT,
        "%s: %d iterations in %.1f s, %.0f examples/s, data loading: %.1f %% of the time -> %s",
        artefact.manifest.stage,
        summary["iterations"],
        artefact.manifest.seconds,
        summary["examples_per_second"],
        100 * summary["waiting"],
        artefact.path,
    )
