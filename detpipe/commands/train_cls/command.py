"""`detpipe train-cls`: train the kind of classifier given by `head` and `db.train` -> classifier/."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detpipe.classify.kinds import LearnsFrom, kind_of_head
from detpipe.commands.stage_settings import TrainCls, TrainImages
from detpipe.commands.table import refuse_torchrun
from detpipe.commands.train_cls import crops, fast_rcnn, image_database, multibox_fast_rcnn, stored_head
from detpipe.heads.table import head_word
from detpipe.runs.training import TrainingJob, run_training

PREPARE: Mapping[LearnsFrom, Callable[[TrainCls], TrainingJob]] = {
    LearnsFrom.crops: crops.prepare,
    LearnsFrom.proposals: fast_rcnn.prepare,
    LearnsFrom.objects: multibox_fast_rcnn.prepare,
}
"""The trainings with the solver, by training data. Heads on stored features do not use the solver."""


def run(config: TrainImages) -> None:
    """Train a classifier of whole images if `db.train` is set, else of regions."""
    if config.db.train is None:
        train_regions(config)
    else:
        image_database.run(config, config.db, config.view)


def train_regions(config: TrainCls) -> None:
    """Train the classifier of regions given by `head`."""
    if not config.head.TORCHRUN:
        refuse_torchrun(f"detpipe train-cls: head={head_word(config.head)} trains on stored features")
    learns_from = kind_of_head(config.head).learns_from
    if learns_from is LearnsFrom.features:
        stored_head.run(config)
    else:
        run_training(config, lambda: PREPARE[learns_from](config))
