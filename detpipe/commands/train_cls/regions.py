"""`detpipe train-cls` in a run folder: the training that the head asks for."""

from __future__ import annotations

from detpipe.commands.stage_settings import TrainCls
from detpipe.commands.table import refuse_torchrun
from detpipe.commands.train_cls import crops as train_cls
from detpipe.commands.train_cls import fast_rcnn as train_fast_rcnn
from detpipe.commands.train_cls import multibox_fast_rcnn as train_multibox_fast_rcnn
from detpipe.commands.train_cls import stored_head as train_head
from detpipe.heads.fast_rcnn.settings import FastRcnnHead, MultiBoxFastRcnnHead
from detpipe.heads.region_head import RegionHead
from detpipe.heads.stored.feature_head import StoredHead


def run(config: TrainCls) -> None:
    """Fast R-CNN learns from images and proposals, R-CNN from crops, a head on a frozen network from the store.

    Raises ValueError where torchrun started several processes and the head can't share its work.
    """
    if not config.head.TORCHRUN:
        refuse_torchrun(f"detpipe train-cls: a {type(config.head).__name__} trains on stored features")
    match config.head:
        case MultiBoxFastRcnnHead():
            train_multibox_fast_rcnn.run(config, config.head)
        case FastRcnnHead():
            train_fast_rcnn.run(config, config.head)
        case StoredHead():
            train_head.run(config, config.backbone, config.head, config.precision)
        case _:
            train_cls.run(config)


def needs_crops(head: RegionHead) -> bool:
    """Whether the head learns from a database of crops."""
    return not isinstance(head, FastRcnnHead | StoredHead)


def needs_features(head: RegionHead) -> bool:
    """Whether the head learns from stored features."""
    return isinstance(head, StoredHead)


def proposes(head: RegionHead) -> bool:
    """Whether the head says where things might be, too: it is trained before there are proposals."""
    return isinstance(head, MultiBoxFastRcnnHead)
