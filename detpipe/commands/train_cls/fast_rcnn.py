"""`detpipe train-cls head=fast_rcnn`: what are they? Images and proposals -> classifier/, with no crops between."""

from __future__ import annotations

from functools import partial

from detpipe.backbone.create import written_out
from detpipe.classify.fast_rcnn.batches import ProposedImage
from detpipe.classify.fast_rcnn.folder import KIND, FastRcnnSpec, build_fast_rcnn, save_fast_rcnn
from detpipe.classify.fast_rcnn.train import train_fast_rcnn
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.fast_rcnn.settings import FastRcnnHead
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.train_network import Session, training_key
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.stored_split import open_split
from detpipe.runs.training import Training, complete
from detpipe.runs.training_images import Part, training_parts
from detpipe.solver.ranks import joined_ranks
from detpipe.storage.manifest import Artefact, plain, read_manifest


def run(config: TrainCls, head: FastRcnnHead) -> None:
    """Train backbone and head on the training images and their proposals, and save both. The first rank writes."""
    with joined_ranks() as ranks:
        training = described(config, head)
        artefact = trained_artefact(config, training)
        complete(artefact, config, training.device, training.bf16, ranks, partial(train, config, training))


def described(config: TrainCls, head: FastRcnnHead) -> Training[FastRcnnSpec]:
    """The images, the classes, and where it runs. Raises ValueError where there is nothing to learn from."""
    parts = training_parts(config.data_source, config.sampling.val_share, config.seed)
    device = resolve_device(config.device)
    classes = parts[0].dataset
    spec = FastRcnnSpec(classes.classes, classes.category_ids, written_out(config.backbone), head)
    return Training(spec, *parts, device, resolve_bf16(config.precision, device))


def trained_artefact(config: TrainCls, training: Training[FastRcnnSpec]) -> Artefact:
    """The classifier's folder with its key."""
    settings = {
        "kind": KIND,
        "classifier": training.spec,
        "sampling": config.sampling.key(),
        **training.settings(config),
    }
    return Artefact(
        config.folder.classifier,
        stage="train-cls",
        settings=training_key(plain(settings)),
        inputs={"proposals": read_manifest(config.folder.proposals).digest, **training.inputs(config)},
    )


def train(config: TrainCls, training: Training[FastRcnnSpec], session: Session) -> dict[str, float]:
    """Train the network of the spec, which the first rank saves; returns the solver's summary."""
    network = build_fast_rcnn(training.spec, seed=session.seed, pretrained=True)
    summary = train_fast_rcnn(
        network,
        proposed(config, training.train),
        proposed(config, training.val),
        head=training.spec.head,
        sampling=config.sampling,
        session=session,
    )
    if session.ranks.is_first:
        save_fast_rcnn(config.folder.classifier, network, training.spec)
        keep_proposer(config.folder, config.folder.classifier)
    return summary


def proposed(config: TrainCls, part: Part) -> list[ProposedImage]:
    """The images of a part with their objects and best proposals; unreadable ones, named by propose, are left out."""
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
        )
        for record, stored in split.read(part.records)
        if stored is not None
    ]
