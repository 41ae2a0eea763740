"""`detpipe train-cls head=softmax`: train R-CNN on a database of crops: crops.lmdb -> classifier/."""

from __future__ import annotations

from dataclasses import replace

from detpipe.backbone.create import written_out
from detpipe.backbone.trial import try_backbone
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.crops.database import CropsReader
from detpipe.classify.crops.network import RcnnSpec, build_rcnn
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.crops.train import fine_tune, solve_box_regression
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.region_head import BoxRegression
from detpipe.network.train_network import RunContext
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.training import TrainingJob
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import Manifest, read_manifest


def prepare(config: TrainCls) -> TrainingJob:
    """Return the training of a backbone and a softmax head on the crops. Raises ArtefactError without crops."""
    manifest, head = read_manifest(config.folder.crops), config.trained_head
    spec = describe(config, manifest)
    side = spec.crops.size
    try_backbone(spec.backbone, (side, side), "crops.size", learning=head, batch=config.solver.batch_size)
    fg_share = float(manifest.settings["sampling"]["fg_share"])

    def train(context: RunContext) -> dict[str, float]:
        network = build_rcnn(spec, seed=context.seed, pretrained=True, dropout=head.dropout)
        ridge = head.box_regression is BoxRegression.ridge
        with CropsReader(config.folder.crops) as crops, CropsReader(config.folder.val_crops) as val:
            trained_head = replace(head, box_loss_weight=0.0) if ridge else head
            summary = fine_tune(network, crops, val, head=trained_head, fg_share=fg_share, context=context)
            if ridge and context.ranks.is_first:
                solve_box_regression(network, crops, head, device=context.device, bf16=context.bf16)
        if context.ranks.is_first:
            save_classifier(config.folder.classifier, network, spec)
            keep_proposer(config.folder, config.folder.classifier)
        return summary

    return TrainingJob(
        folder=config.folder.classifier,
        stage="train-cls",
        learned={"kind": spec.KIND, "classifier": spec, "head": config.head, "fg_share": fg_share},
        inputs={"crops": manifest.digest},
        train=train,
    )


def describe(config: TrainCls, crops: Manifest) -> RcnnSpec:
    """Return the description of the classifier trained on these crops."""
    settings = crops.settings
    crop_config = from_json(settings["crops"], CropConfig, f"{config.folder.crops}: crops")
    return RcnnSpec(
        classes=tuple(settings["classes"]),
        category_ids=tuple(settings["category_ids"]),
        backbone=replace(written_out(config.backbone), input_size=crop_config.size),
        crops=crop_config,
        box_regression=config.head.box_regression is not BoxRegression.none,
    )
