"""Settings by which networks that propose are trained on the drawn data set in seconds; nothing is learnt."""

from __future__ import annotations

from pathlib import Path

from tests.heads.multibox.tiny import NET

COMMON = ("device=cpu", "workers=0")

BACKBONE = ("backbone.name=caffe", "backbone.weights=none", "backbone.mean=[104,117,123]", "backbone.scale=0.016")

TRAINING = (
    "precision=float32",
    "sampling.val_share=0.3",
    "sampling.regions_per_image=16",
    "sampling.jittered=0",
    "solver.max_iter=2",
    "solver.batch_size=8",
    "solver.base_lr=1e-3",
    "solver.new_lr_mult=2",
    "solver.lr.warmup_iter=0",
    "solver.snapshot=1",
    "head.maps=[stride8]",
    "head.merge_width=8",
    "head.pool_size=2",
    "head.hidden=8",
    "head.scales=[64]",
    "head.freeze_stages=0",
    "head.freeze_depthwise=false",
)

OWN_PRIORS = ("head.multibox.priors=2",)

DETECTION = ("precision=float32", "detect.max_proposals=30", "detect.nms_iou=0.5", "detect.vote_iou=0.6")

PROPOSER = (
    "multibox.maps=[stride8]",
    "multibox.width=8",
    "multibox.scales=[64]",
    "multibox.priors=2",
    "multibox.freeze_stages=0",
    "multibox_solver.max_iter=2",
    "multibox_solver.batch_size=2",
)


def net_in(folder: Path) -> str:
    """Write the tiny net into a folder; the setting that names it."""
    path = folder / "tiny.prototxt"
    path.write_text(NET)
    return f"backbone.prototxt={path}"
