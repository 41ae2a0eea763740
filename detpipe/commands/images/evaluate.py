"""`detpipe eval`: evaluate a classifier on a database of images if `db` is set, else detections."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from detpipe.backbone.create import check_weights
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.network import (
    ImageClassifier,
    ImageClassifierSpec,
    shipped_classifier,
)
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.train import all_logits
from detpipe.classify.kinds import kind_in, load_classifier
from detpipe.commands import evaluate
from detpipe.commands.stage_settings import EvaluateImages
from detpipe.console import RESULT
from detpipe.metrics.classification import ClassificationMetrics, classification_metrics
from detpipe.network.device import resolve_device
from detpipe.report.classification_page import (
    ClassificationPage,
    calibration_figure,
    confusion_figure,
    write_classification_page,
)
from detpipe.report.curves import to_png
from detpipe.runs.image_database import check_labels, database_classes
from detpipe.solver.training_log import read_log
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.storage.manifest import plain, read_manifest
from detpipe.tracking.follower import following

logger = logging.getLogger(__name__)


def run(config: EvaluateImages) -> None:
    """Evaluate a classifier on `db`, or detections if `db` is not set."""
    if config.db is None:
        if config.backbone is not None:
            raise ValueError(
                "backbone: expected db=DB with it, got none; give db=DB, or leave backbone out to evaluate detections"
            )
        evaluate.run(config)
        return
    config.track.check()
    with following(config.track, config.folder.path, log=None, config=plain(config)):
        test(config, config.db)


def test(config: EvaluateImages, database: str) -> None:
    """Evaluate a classifier on a database, and write the results."""
    begun = time.perf_counter()
    with ImagesReader(Path(database)) as reader:
        network, classes, view = classifier(config, reader)
        device = resolve_device(config.device)
        # float32, whatever the precision of the training: an evaluation must be repeatable.
        logits = all_logits(network.to(device), reader, view, device, bf16=False)
        metrics = classification_metrics(logits, reader.labels, classes)
    write(config, metrics, time.perf_counter() - begun)


def classifier(config: EvaluateImages, reader: ImagesReader) -> tuple[ImageClassifier, tuple[str, ...], ViewConfig]:
    """Return the network, its classes in label order, and its crop.

    Raises ClassMismatchError if the database has other classes.
    """
    if config.backbone is None:
        read_manifest(config.folder.classifier)
        network, spec = load_classifier(config.folder.classifier)
        if not isinstance(spec, ImageClassifierSpec) or not isinstance(network, ImageClassifier):
            raise ClassifierError(
                f"{config.folder.classifier}: expected a classifier of whole images for db=, got "
                f"{kind_in(config.folder.classifier).description}; run `detpipe train-cls db.train=DB`, or give "
                "backbone=NAME for a network with its own classifier"
            )
        check_labels(reader, spec.classes)
        return network, spec.classes, spec.view
    check_weights(config.backbone)
    network = shipped_classifier(config.backbone)
    names = database_classes(reader.path)
    outputs = network.n_outputs()
    if names is not None and len(names) != outputs:
        raise ValueError(
            f"{reader.path}: expected the {outputs} classes of the network, got a database of {len(names)} classes; "
            "make it from a list with the network's labels"
        )
    # The weights have no class names, so the database's names are used.
    classes = names if names is not None else tuple(str(label) for label in range(outputs))
    check_labels(reader, classes)
    return network, classes, config.view


def write(config: EvaluateImages, metrics: ClassificationMetrics, seconds: float) -> None:
    """Write metrics.json, report.html, confusion.png and calibration.png in the run folder, and log the metrics."""
    folder = config.folder
    write_json(folder.metrics, metrics.to_json(seconds))
    own = config.backbone is None
    log_rows = read_log(folder.classifier / "log.jsonl") if own else ()
    write_classification_page(
        folder.report, ClassificationPage(subtitle=str(config.db), metrics=metrics, log_rows=log_rows)
    )
    for name, figure in (
        ("confusion", confusion_figure(metrics)),
        ("calibration", calibration_figure(metrics.calibration)),
    ):
        write_bytes(folder.path / f"{name}.png", to_png(figure))
    logger.log(RESULT, "\n%s", metrics.to_text())
    logger.log(RESULT, "eval: top-1 %.4f -> %s, %s", metrics.top1, folder.metrics, folder.report)
