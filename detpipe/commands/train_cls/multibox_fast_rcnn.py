"""`detpipe train-cls head=multibox_fast_rcnn`: where might things be, and what are they, learned together from images
with boxes -> classifier/, and multibox/, the part of it that proposes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from detpipe.backbone.create import map_strides, written_out
from detpipe.classify.classifier_folder import DESCRIPTION as CLASSIFIER
from detpipe.classify.classifier_folder import read_description
from detpipe.classify.multibox_fast_rcnn.folder import (
    KIND,
    MultiBoxFastRcnnSpec,
    build_multibox_fast_rcnn,
    load_multibox_fast_rcnn_spec,
    save_multibox_fast_rcnn,
)
from detpipe.classify.multibox_fast_rcnn.train import train_multibox_fast_rcnn
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnHead
from detpipe.heads.multibox.folder import MultiBoxSpec, build_multibox, save_multibox
from detpipe.heads.multibox.necks import PyramidNeck
from detpipe.heads.multibox.network import pyramid_shapes
from detpipe.heads.multibox.priors import Numbers, as_numbers
from detpipe.heads.multibox.settings import MultiBoxHead
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.device import resolve_bf16, resolve_device
from detpipe.network.train_network import Session, training_key
from detpipe.runs.annotated_images import objects_of, readable, true_targets
from detpipe.runs.training import Training, complete
from detpipe.runs.training_images import training_parts
from detpipe.solver.ranks import joined_ranks
from detpipe.storage.manifest import Artefact, ArtefactError, find_manifest, plain


def run(config: TrainCls, head: MultiBoxFastRcnnHead) -> None:
    """Train the network on the training images and their objects, and save it. The first rank writes."""
    refuse_another_multibox(config)
    with joined_ranks() as ranks:
        training = described(config, head)
        artefact = trained_artefact(config, training)
        complete(artefact, config, training.device, training.bf16, ranks, partial(train, config, training))


def refuse_another_multibox(config: TrainCls) -> None:
    """Raise ArtefactError where multibox/ is a training of its own, that this one would replace, or no folder."""
    path = config.folder.multibox
    if not path.is_dir() and (path.is_symlink() or path.exists()):
        raise ArtefactError(
            f"{path}: wanted a folder, or nothing, got {'a link to nothing' if path.is_symlink() else 'a file'}; "
            "head=multibox_fast_rcnn writes its proposing half there: move it away"
        )
    if find_manifest(config.folder.multibox) is not None:
        raise ArtefactError(
            f"{config.folder.multibox}: made by `detpipe train-multibox`, and head=multibox_fast_rcnn writes its own "
            "there: give another run_dir, or move it"
        )


def described(config: TrainCls, head: MultiBoxFastRcnnHead) -> Training[MultiBoxFastRcnnSpec]:
    """The images, the classes, the priors, where it runs. Raises ValueError where there is nothing to learn from."""
    parts = training_parts(config.data_source, config.sampling.val_share, config.seed)
    device = resolve_device(config.device)
    dataset = parts[0].dataset
    # Made in any case: this refuses a data set without objects.
    own = pyramid_shapes(
        *objects_of(true_targets(parts[0])),
        head.multibox,
        map_strides(config.backbone, head.maps),
        shorter=head.scales[-1],
        longest=head.max_side,
        seed=config.solver.seed(config.seed),
    )
    shapes = priors_of_start(config, head) or as_numbers(own)
    spec = MultiBoxFastRcnnSpec(dataset.classes, dataset.category_ids, written_out(config.backbone), head, shapes)
    return Training(spec, *parts, device, resolve_bf16(config.precision, device))


def priors_of_start(config: TrainCls, head: MultiBoxFastRcnnHead) -> Numbers | None:
    """The priors of the network of this kind that solver.weights starts from: what it has learned is how they move.

    None where it starts from no such network. Raises ValueError for one with another number of maps.
    """
    folder = Path(config.solver.weights).parent if config.solver.weights is not None else None
    if folder is None or not (folder / CLASSIFIER).is_file() or read_description(folder).get("kind") != KIND:
        return None
    start = load_multibox_fast_rcnn_spec(folder)
    if len(start.head.maps) != len(head.maps):
        raise ValueError(
            f"solver.weights: wanted a network of {len(head.maps)} maps, got one of {start.head.maps} in {folder}; "
            "give its head.* settings"
        )
    return start.shapes


def trained_artefact(config: TrainCls, training: Training[MultiBoxFastRcnnSpec]) -> Artefact:
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
        inputs=training.inputs(config),
    )


def train(config: TrainCls, training: Training[MultiBoxFastRcnnSpec], session: Session) -> dict[str, float]:
    """Train the network of the spec, which the first rank saves; returns the solver's summary."""
    network = build_multibox_fast_rcnn(training.spec, seed=session.seed, pretrained=True)
    images = [
        readable(true_targets(part), len(part.records), config.data_source.max_bad)
        for part in (training.train, training.val)
    ]
    summary = train_multibox_fast_rcnn(
        network,
        *images,
        head=training.spec.head,
        sampling=config.sampling,
        session=session,
    )
    if session.ranks.is_first:
        save_multibox_fast_rcnn(config.folder.classifier, network, training.spec)
        keep_multibox(config, network, training.spec)
    return summary


def keep_multibox(config: TrainCls, network: MultiBoxFastRcnn, spec: MultiBoxFastRcnnSpec) -> None:
    """The part of the network that proposes, as a MultiBox of its own, in multibox/."""
    head = MultiBoxHead(
        **vars(spec.head.multibox),
        maps=spec.head.maps,
        width=network.depth,
        scales=spec.head.scales,
        max_side=spec.head.max_side,
        flip=spec.head.flip,
        crop_share=spec.head.crop_share,
        crop_area=spec.head.crop_area,
        colour=spec.head.colour,
    )
    own = MultiBoxSpec(spec.backbone, head, spec.shapes)
    multibox = build_multibox(own, seed=0, pretrained=False)
    multibox.backbone.load_state_dict(network.backbone.state_dict())
    assert network.merge is not None
    assert isinstance(multibox.neck, PyramidNeck)
    multibox.neck.merge.load_state_dict(network.merge.state_dict())
    multibox.predictor.load_state_dict(network.predictor.state_dict())
    save_multibox(config.folder.multibox, multibox, own)
