"""`detpipe train-cls head=softmax`: R-CNN from a database of crops. crops.lmdb -> classifier/."""

from __future__ import annotations

from dataclasses import replace

from detpipe.backbone.create import written_out
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
    """The training of a backbone and a new softmax head on the crops. Raises ArtefactError where there are none."""
    made, head = read_manifest(config.folder.crops), config.trained_head
    spec = described(config, made)
    fg_share = float(made.settings["sampling"]["fg_share"])

    def train(context: RunContext) -> dict[str, float]:
        network = build_rcnn(spec, seed=context.seed, pretrained=True, dropout=head.dropout)
        ridge = head.box_regression is BoxRegression.ridge
        with CropsReader(config.folder.crops) as crops, CropsReader(config.folder.val_crops) as val:
            learned = replace(head, box_loss_weight=0.0) if ridge else head
            summary = fine_tune(network, crops, val, head=learned, fg_share=fg_share, context=context)
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
        inputs={"crops": made.digest},
        train=train,
    )


def described(config: TrainCls, crops: Manifest) -> RcnnSpec:
    """The description of the classifier that these crops make."""
    settings = crops.settings
    cut = from_json(settings["crops"], CropConfig, f"{config.folder.crops}: crops")
    return RcnnSpec(
        classes=tuple(settings["classes"]),
        category_ids=tuple(settings["category_ids"]),
        backbone=replace(written_out(config.backbone), input_size=cut.size),
        crops=cut,
        box_regression=config.head.box_regression is not BoxRegression.none,
    )
