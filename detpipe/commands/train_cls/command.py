"""`detpipe train-cls`: trains the kind of classifier that `head` and `db.train` ask for -> classifier/."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detpipe.classify.kinds import LearnsFrom, kind_of_head
from detpipe.commands.stage_settings import TrainCls, TrainImages
from detpipe.commands.train_cls import crops, fast_rcnn, image_database, multibox_fast_rcnn, stored_head
from detpipe.runs.training import TrainingJob, run_training

PREPARE: Mapping[LearnsFrom, Callable[[TrainCls], TrainingJob]] = {
    LearnsFrom.crops: crops.prepare,
    LearnsFrom.proposals: fast_rcnn.prepare,
    LearnsFrom.objects: multibox_fast_rcnn.prepare,
}
"""The trainings by the solver, by their training data. Heads on stored features have no solver."""


def run(config: TrainImages) -> None:
    """Train a classifier of whole images on `db.train`, or of regions where there is none."""
    if config.db.train is None:
        train_regions(config)
    else:
        image_database.run(config, config.db, config.view)


def train_regions(config: TrainCls) -> None:
    """Train the classifier of regions that the head asks for, from the training data of its kind."""
    learns_from = kind_of_head(config.head).learns_from
    if learns_from is LearnsFrom.features:
        stored_head.run(config)
    else:
        run_training(config, lambda: PREPARE[learns_from](config))
