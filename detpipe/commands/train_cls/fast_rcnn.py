"""`detpipe train-cls head=fast_rcnn`: train Fast R-CNN on images and their proposals -> classifier/."""

from __future__ import annotations

from detpipe.backbone.create import written_out
from detpipe.backbone.trial import image_size, try_backbone
from detpipe.classify.classifier_folder import save_classifier
from detpipe.classify.fast_rcnn.batches import ProposedImage
from detpipe.classify.fast_rcnn.network import FastRcnnSpec, build_fast_rcnn
from detpipe.classify.fast_rcnn.train import train_fast_rcnn
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.network.train_network import RunContext
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.stored_split import open_split
from detpipe.runs.training import TrainingJob, part_datasets, part_digests
from detpipe.runs.training_images import Part, training_parts
from detpipe.storage.manifest import read_manifest


def prepare(config: TrainCls) -> TrainingJob:
    """Return the training of a backbone and a head. Raises ValueError without annotated training images."""
    assert isinstance(config.head, FastRcnnConfig)
    head = config.head
    train_part, val_part = training_parts(config.data_source, config.sampling.val_share, config.seed)
    dataset = train_part.dataset
    spec = FastRcnnSpec(
        classes=dataset.classes,
        category_ids=dataset.category_ids,
        backbone=written_out(config.backbone),
        head=head,
    )

    size = image_size(head.scales, head.max_side)
    try_backbone(spec.backbone, size, "head.scales", maps=head.maps, learning=head, batch=head.images_per_batch)

    def train(context: RunContext) -> dict[str, float]:
        network = build_fast_rcnn(spec, seed=context.seed, pretrained=True)
        images = [proposed_images(config, part) for part in (train_part, val_part)]
        summary = train_fast_rcnn(network, *images, head=head, sampling=config.sampling, context=context)
        if context.ranks.is_first:
            save_classifier(config.folder.classifier, network, spec)
            keep_proposer(config.folder, config.folder.classifier)
        return summary

    return TrainingJob(
        folder=config.folder.classifier,
        stage="train-cls",
        learned={"kind": spec.KIND, "classifier": spec, "sampling": config.sampling},
        inputs={"proposals": read_manifest(config.folder.proposals).digest, **part_digests(train_part, val_part)},
        train=train,
        datasets=part_datasets(train_part, val_part),
        source=config.data_source,
    )


def proposed_images(config: TrainCls, part: Part) -> list[ProposedImage]:
    """Return the images of a part with their objects and best proposals. Images unreadable in propose are left out."""
    truth = part.dataset.ground_truth
    assert truth is not None
    split = open_split(config.folder.proposals, part.split, part.dataset)
    return [
        ProposedImage(
            record.path,
            stored.image_digest,
            stored.image_size,
            stored.proposals.boxes[: config.sampling.max_proposals].copy(),
            truth[record.image_id],
            record.options,
        )
        for record, stored in split.read(part.records)
        if stored is not None
    ]
