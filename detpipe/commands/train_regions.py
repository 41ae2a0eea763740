"""`detpipe train-cls` in a run folder: the training that the head asks for."""

from __future__ import annotations

from detpipe.commands import train_cls, train_fast_rcnn
from detpipe.commands.train_cls import TrainCls
from detpipe.heads.fast_rcnn import FastRcnnHead
from detpipe.heads.region_head import RegionHead


def run(config: TrainCls) -> None:
    """Fast R-CNN learns from images and proposals, R-CNN from crops."""
    match config.head:
        case FastRcnnHead():
            train_fast_rcnn.run(config, config.head)
        case _:
            train_cls.run(config)


def needs_crops(head: RegionHead) -> bool:
    """Whether the head learns from a database of crops."""
    return not isinstance(head, FastRcnnHead)
