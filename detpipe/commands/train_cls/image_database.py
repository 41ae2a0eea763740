"""`detpipe train-cls db.train=DB`: train a classifier of whole images on a database -> classifier/."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detpipe.backbone.create import written_out
from detpipe.backbone.trial import try_backbone
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.network import ImageClassifierSpec, build_image_classifier
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.train import train_images
from detpipe.commands.stage_settings import TrainCls, TrainDatabases
from detpipe.network.train_network import RunContext
from detpipe.runs.image_database import check_labels, database_digest, photo_form, training_classes
from detpipe.runs.training import TrainingJob, run_training


def run(config: TrainCls, db: TrainDatabases, view: ViewConfig) -> None:
    """Train a classifier on `db.train`, and validate it on `db.val` if that is set."""
    assert db.train is not None
    train_path, val_path = Path(db.train), Path(db.val) if db.val is not None else None
    with ImagesReader(train_path) as reader, opened_val(reader, val_path) as val:
        run_training(config, lambda: prepare(config, view, reader, val))


def prepare(config: TrainCls, view: ViewConfig, reader: ImagesReader, val: ImagesReader | None) -> TrainingJob:
    """Return the training of a backbone and a head. Raises ClassMismatchError if `val` has other labels."""
    head = config.trained_head
    classes = training_classes(reader)
    resize, grey = photo_form(reader)
    spec = ImageClassifierSpec(
        classes=classes, backbone=written_out(config.backbone), view=view, resize=resize, grey=grey
    )
    try_backbone(spec.backbone, None, "backbone.input_size", learning=head, batch=config.solver.batch_size)
    if val is not None:
        check_labels(val, spec.classes)

    def train(context: RunContext) -> dict[str, float]:
        network = build_image_classifier(spec, seed=context.seed, pretrained=True, dropout=head.dropout)
        summary = train_images(network, reader, val, view=view, head=head, context=context)
        if context.ranks.is_first:
            save_classifier(config.folder.classifier, network, spec)
        return summary

    return TrainingJob(
        folder=config.folder.classifier,
        stage="train-cls",
        learned={"kind": spec.KIND, "classifier": spec, "head": config.head},
        inputs={"train": database_digest(reader.path)},
        train=train,
    )


@contextmanager
def opened_val(train: ImagesReader, path: Path | None) -> Iterator[ImagesReader | None]:
    """Open the validation database for the block; None if `path` is None."""
    if path is None:
        yield None
    elif path.resolve() == train.path.resolve():  # LMDB cannot open a database twice in one process
        yield train
    else:
        with ImagesReader(path) as reader:
            yield reader
