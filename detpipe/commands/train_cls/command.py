"""`detpipe train-cls`: of a database of images where `db.train` names one, else of a run folder's crops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from detpipe.backbone.create import written_out
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.network import ImageClassifierSpec, new_classifier, save_image_classifier
from detpipe.classify.images.train import train_images
from detpipe.commands.stage_settings import TrainImages
from detpipe.commands.train_cls import regions as train_regions
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.train_network import Session, training_key
from detpipe.runs.image_database import check_labels, database_digest, training_classes
from detpipe.runs.training import complete, weights_digest
from detpipe.solver.ranks import joined_ranks
from detpipe.storage.manifest import Artefact, plain


def run(config: TrainImages) -> None:
    """Train a plain classifier on `db.train`, or a region classifier where there is none. The first rank writes."""
    if config.db.train is None:
        train_regions.run(config)
        return
    train_path, val_path = Path(config.db.train), Path(config.db.val) if config.db.val is not None else None
    device = resolve_device(config.device)
    bf16 = resolve_bf16(config.precision, device)
    with joined_ranks() as ranks, ImagesReader(train_path) as reader, opened_val(reader, val_path) as val:
        spec = ImageClassifierSpec(training_classes(reader), written_out(config.backbone), config.view)
        if val is not None:
            check_labels(val, spec.classes)
        artefact = trained_artefact(config, spec, train_path, device, bf16)
        complete(artefact, config, device, bf16, ranks, partial(train, config, spec, reader, val))


@contextmanager
def opened_val(train: ImagesReader, path: Path | None) -> Iterator[ImagesReader | None]:
    """The database to test on, closed after the block; None where there is none."""
    if path is None:
        yield None
    elif path.resolve() == train.path.resolve():  # LMDB opens no database twice in a process
        yield train
    else:
        with ImagesReader(path) as reader:
            yield reader


def trained_artefact(
    config: TrainImages, spec: ImageClassifierSpec, train_path: Path, device: torch.device, bf16: bool
) -> Artefact:
    """The classifier's folder with its key."""
    settings = {
        "classifier": spec,
        "head": config.head,
        "solver": config.solver,
        "seed": config.solver.seed(config.seed),
        "bf16": bf16,
        "device": device.type,
    }
    return Artefact(
        config.folder.classifier,
        stage="train-cls",
        settings=training_key(plain(settings)),
        inputs={"train": database_digest(train_path), **weights_digest(config.backbone, config.solver)},
    )


def train(
    config: TrainImages, spec: ImageClassifierSpec, reader: ImagesReader, val: ImagesReader | None, session: Session
) -> dict[str, float]:
    """Train the network of `spec`, which the first rank saves; returns the solver's summary."""
    network = new_classifier(spec, dropout=config.trained_head.dropout, seed=session.seed, pretrained=True)
    summary = train_images(network, reader, val, view=config.view, head=config.trained_head, session=session)
    if session.ranks.is_first:
        save_image_classifier(config.folder.classifier, network, spec)
    return summary
