"""`detpipe train-cls`: what are they? crops.lmdb -> classifier/."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from detpipe.backbone.create import written_out
from detpipe.classify.crops.database import CropsReader
from detpipe.classify.crops.network import ClassifierSpec, build_classifier, crop_config, save_classifier
from detpipe.classify.crops.train import fine_tune, solve_box_regression
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.region_head import BoxRegression
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.train_network import Session, training_key
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.training import complete, weights_digest
from detpipe.solver.ranks import joined_ranks
from detpipe.storage.manifest import Artefact, plain, read_manifest


def run(config: TrainCls) -> None:
    """Fine-tune the backbone and a new head on the crops, and save the classifier. The first rank writes."""
    with joined_ranks() as ranks:
        device = resolve_device(config.device)
        bf16 = resolve_bf16(config.precision, device)
        spec = classifier_spec(config)
        artefact = trained_artefact(config, spec, device, bf16)
        complete(artefact, config, device, bf16, ranks, partial(train, config, spec))


def trained_artefact(config: TrainCls, spec: ClassifierSpec, device: torch.device, bf16: bool) -> Artefact:
    """The classifier's folder with its key."""
    crops = read_manifest(config.folder.crops)
    return Artefact(
        config.folder.classifier,
        stage="train-cls",
        settings=training_key(
            plain(
                {
                    "classifier": spec,
                    "head": config.head,
                    "solver": config.solver,
                    "fg_share": crops.settings["sampling"]["fg_share"],
                    "seed": config.solver.seed(config.seed),
                    "bf16": bf16,
                    "device": device.type,
                }
            )
        ),
        inputs={"crops": crops.digest, **weights_digest(config.backbone, config.solver)},
    )


def train(config: TrainCls, spec: ClassifierSpec, session: Session) -> dict[str, float]:
    """Train the network of `spec`, which the first rank saves; returns the solver's summary."""
    network = build_classifier(spec, dropout=config.trained_head.dropout, seed=session.seed, pretrained=True)
    ridge = config.head.box_regression is BoxRegression.ridge
    fg_share = read_manifest(config.folder.crops).settings["sampling"]["fg_share"]
    with CropsReader(config.folder.crops) as crops, CropsReader(config.folder.val_crops) as val:
        summary = fine_tune(
            network,
            crops,
            val,
            head=replace(config.trained_head, box_loss_weight=0.0) if ridge else config.trained_head,
            fg_share=fg_share,
            session=session,
        )
        if ridge and session.ranks.is_first:
            solve_box_regression(network, crops, config.trained_head, device=session.device, bf16=session.bf16)
    if session.ranks.is_first:
        save_classifier(config.folder.classifier, network, spec)
        keep_proposer(config.folder, config.folder.classifier)
    return summary


def classifier_spec(config: TrainCls) -> ClassifierSpec:
    """The description of the classifier that these crops make."""
    settings = read_manifest(config.folder.crops).settings
    cut = crop_config(settings["crops"])
    return ClassifierSpec(
        classes=tuple(settings["classes"]),
        category_ids=tuple(settings["category_ids"]),
        backbone=replace(written_out(config.backbone), input_size=cut.size),
        crops=cut,
        box_regression=config.head.box_regression is not BoxRegression.none,
    )
