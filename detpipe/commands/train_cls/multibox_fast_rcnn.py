"""`detpipe train-cls head=multibox_fast_rcnn`: train one network that proposes and classifies, on images with boxes.

It writes classifier/, and multibox/ with the proposing part.
"""

from __future__ import annotations

from pathlib import Path

from detpipe.backbone.create import map_strides, written_out
from detpipe.backbone.trial import image_size, try_backbone
from detpipe.classify.classifier_folder import DESCRIPTION as CLASSIFIER
from detpipe.classify.classifier_folder import read_kind, read_spec, save_classifier
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec, build_multibox_fast_rcnn
from detpipe.classify.multibox_fast_rcnn.train import train_multibox_fast_rcnn
from detpipe.commands.stage_settings import TrainCls
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.folder import MultiBoxSpec, build_multibox, save_multibox
from detpipe.heads.multibox.necks import PyramidNeck
from detpipe.heads.multibox.network import pyramid_shapes
from detpipe.heads.multibox.priors import Numbers, as_numbers
from detpipe.heads.multibox.settings import MultiBoxConfig
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.train_network import RunContext
from detpipe.runs.annotated_images import objects_of, readable, true_targets
from detpipe.runs.training import TrainingJob, part_datasets, part_digests
from detpipe.runs.training_images import Part, training_parts
from detpipe.storage.manifest import ArtefactError, find_manifest


def prepare(config: TrainCls) -> TrainingJob:
    """Return the training of the network. Raises ValueError without objects, ArtefactError if multibox/ is in use."""
    assert isinstance(config.head, MultiBoxFastRcnnConfig)
    head = config.head
    check_multibox_folder(config)
    size = image_size(head.scales, head.max_side)
    try_backbone(config.backbone, size, "head.scales", maps=head.maps, learning=head, batch=head.images_per_batch)
    train_part, val_part = training_parts(config.data_source, config.sampling.val_share, config.seed)
    spec = describe(config, head, train_part)

    def train(context: RunContext) -> dict[str, float]:
        network = build_multibox_fast_rcnn(spec, seed=context.seed, pretrained=True)
        images = [
            readable(true_targets(part), len(part.records), config.data_source.max_bad)
            for part in (train_part, val_part)
        ]
        summary = train_multibox_fast_rcnn(network, *images, head=head, sampling=config.sampling, context=context)
        if context.ranks.is_first:
            save_classifier(config.folder.classifier, network, spec)
            write_multibox(config, network, spec)
        return summary

    return TrainingJob(
        folder=config.folder.classifier,
        stage="train-cls",
        learned={"kind": spec.KIND, "classifier": spec, "sampling": config.sampling},
        inputs=part_digests(train_part, val_part),
        train=train,
        datasets=part_datasets(train_part, val_part),
        source=config.data_source,
    )


def check_multibox_folder(config: TrainCls) -> None:
    """Raise ArtefactError if multibox/ is the output of `detpipe train-multibox`, or not a folder."""
    path = config.folder.multibox
    if not path.is_dir() and (path.is_symlink() or path.exists()):
        raise ArtefactError(
            f"{path}: expected a folder, or nothing, got {'a broken link' if path.is_symlink() else 'a file'}; move it "
            "away, since head=multibox_fast_rcnn writes its proposing part there"
        )
    if find_manifest(path) is not None:
        raise ArtefactError(
            f"{path}: expected no output of `detpipe train-multibox`, since head=multibox_fast_rcnn writes its own "
            "there, got one; give another run_dir, or move it"
        )


def describe(config: TrainCls, head: MultiBoxFastRcnnConfig, part: Part) -> MultiBoxFastRcnnSpec:
    """Return the description of the network: classes, and priors from the training objects or from solver.weights.

    Raises ValueError without objects.
    """
    # Always computed, because it raises for a data set without objects.
    computed = pyramid_shapes(
        *objects_of(true_targets(part), head.tiles),
        head.multibox,
        map_strides(config.backbone, head.maps),
        shorter=head.scales[-1],
        longest=head.max_side,
        seed=config.solver.seed(config.seed),
    )
    return MultiBoxFastRcnnSpec(
        classes=part.dataset.classes,
        category_ids=part.dataset.category_ids,
        backbone=written_out(config.backbone),
        head=head,
        shapes=initial_priors(config, head) or as_numbers(computed),
    )


def initial_priors(config: TrainCls, head: MultiBoxFastRcnnConfig) -> Numbers | None:
    """Return the priors of the network in solver.weights: its weights predict deltas of these priors.

    None if solver.weights is not a network of this kind. Raises ValueError for another number of maps.
    """
    folder = Path(config.solver.weights).parent if config.solver.weights is not None else None
    if folder is None or not (folder / CLASSIFIER).is_file() or read_kind(folder) != MultiBoxFastRcnnSpec.KIND:
        return None
    start = read_spec(folder, MultiBoxFastRcnnSpec)
    if len(start.head.maps) != len(head.maps):
        raise ValueError(
            f"solver.weights: expected a network of {len(head.maps)} maps, got one of {start.head.maps} in {folder}; "
            "give its head.* settings"
        )
    return start.shapes


def write_multibox(config: TrainCls, network: MultiBoxFastRcnn, spec: MultiBoxFastRcnnSpec) -> None:
    """Save the proposing part of the network as a MultiBox in multibox/."""
    head = MultiBoxConfig(
        **vars(spec.head.multibox),
        maps=spec.head.maps,
        width=network.depth,
        scales=spec.head.scales,
        max_side=spec.head.max_side,
        flip=spec.head.flip,
        crop_share=spec.head.crop_share,
        crop_area=spec.head.crop_area,
        colour=spec.head.colour,
        tiles=spec.head.tiles,
    )
    multibox_spec = MultiBoxSpec(spec.backbone, head, spec.shapes)
    multibox = build_multibox(multibox_spec, seed=0, pretrained=False)
    multibox.backbone.load_state_dict(network.backbone.state_dict())
    assert network.merge is not None
    assert isinstance(multibox.neck, PyramidNeck)
    multibox.neck.merge.load_state_dict(network.merge.state_dict())
    multibox.predictor.load_state_dict(network.predictor.state_dict())
    save_multibox(config.folder.multibox, multibox, multibox_spec)
