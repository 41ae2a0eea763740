"""`detpipe train-cls`: of a database of images where `db.train` names one, else of a run folder's crops."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detpipe.classify.device import resolve_bf16, resolve_device
from detpipe.classify.image_classifier import ImageClassifierSpec, new_classifier, save_image_classifier
from detpipe.classify.image_db import ImagesReader
from detpipe.classify.train_images import train_images
from detpipe.classify.train_network import training_key
from detpipe.classify.view import ViewConfig
from detpipe.commands import train_cls
from detpipe.commands.image_database import check_labels, database_digest, training_classes
from detpipe.commands.train_cls import TrainCls, weights_digest
from detpipe.solver.interrupt import Interrupted
from detpipe.storage.manifest import Artefact, State, plain

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrainDatabases:
    """The databases of images of a training without detection."""

    train: str | None = None
    """A database that make-db or Caffe wrote; null trains on the run folder's crops."""
    val: str | None = None
    """Another one, tested on while training."""


@dataclass(kw_only=True)
class TrainImages(TrainCls):
    """Settings of `detpipe train-cls`: those of regions, and what takes their place for whole images."""

    db: TrainDatabases = field(default_factory=TrainDatabases)
    """Databases to train a plain classifier on."""
    view: ViewConfig = field(default_factory=ViewConfig)
    """What of their images the network sees."""

    def __post_init__(self) -> None:
        if self.db.train is None and self.db.val is not None:
            raise ValueError("db.val: goes with db.train; give both, or neither to train on crops")


def run(config: TrainImages) -> None:
    """Train a plain classifier on `db.train`, or a region classifier where there is none."""
    if config.db.train is None:
        train_cls.run(config)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("db.train: wanted one process, got several (torchrun); those train on crops alone as yet")
    train_path, val_path = Path(config.db.train), Path(config.db.val) if config.db.val is not None else None
    device = resolve_device(config.device)
    bf16 = resolve_bf16(config.precision, device)
    with ImagesReader(train_path) as reader:
        spec = ImageClassifierSpec(training_classes(reader), config.backbone, config.view)
        artefact = Artefact(
            config.folder.classifier,
            stage="train-cls",
            settings=training_key(
                plain(
                    {
                        "classifier": spec,
                        "head": config.head,
                        "solver": config.solver,
                        "seed": config.solver.seed(config.seed),
                        "bf16": bf16,
                        "device": device.type,
                    }
                )
            ),
            inputs={"train": database_digest(train_path), **weights_digest(config)},
        )
        if artefact.begin(overwrite=config.overwrite) is not State.COMPLETE:
            begun = time.perf_counter()
            try:
                summary = train(config, spec, reader, val_path, artefact.manifest.digest, device, bf16)
            except Interrupted:
                artefact.pause(time.perf_counter() - begun)
                raise
            artefact.finish(seconds=time.perf_counter() - begun, summary=summary)
    train_cls.report(config, artefact)


def train(
    config: TrainImages,
    spec: ImageClassifierSpec,
    reader: ImagesReader,
    val_path: Path | None,
    key: str,
    device: torch.device,
    bf16: bool,
) -> dict[str, float]:
    """Train the network of `spec` and save it; returns the solver's summary."""
    seed = config.solver.seed(config.seed)
    network = new_classifier(spec, dropout=config.head.dropout, seed=seed, pretrained=True)
    with ExitStack() as opened:
        val = reader
        # LMDB opens no database twice in a process.
        if val_path is not None and val_path.resolve() != reader.path.resolve():
            val = opened.enter_context(ImagesReader(val_path))
            check_labels(val, spec.classes)
        summary = train_images(
            network,
            reader,
            val if val_path is not None else None,
            view=config.view,
            head=config.head,
            solver=config.solver,
            folder=config.folder.classifier,
            key=key,
            seed=seed,
            device=device,
            bf16=bf16,
        )
    save_image_classifier(config.folder.classifier, network, spec)
    return summary
