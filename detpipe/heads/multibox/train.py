"""Training, validation and calibration of MultiBox on whole images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from detpipe import boxes as geometry
from detpipe.datasets.image_file import read_image
from detpipe.heads.multibox.loss import Targets, ignored_priors, multibox_loss
from detpipe.heads.multibox.network import MultiBox, best_boxes
from detpipe.heads.multibox.settings import MultiBoxConfig
from detpipe.heads.stored.platt import platt
from detpipe.metrics.proposal_recall import proposal_recall
from detpipe.network.annotated_batches import AnnotatedBatch, AnnotatedBatches, AnnotatedImage, padded
from detpipe.network.batch_order import evenly_spread
from detpipe.network.box_views import BoxViews
from detpipe.network.device import autocast
from detpipe.network.scaled_image import mean_colour
from detpipe.network.train_network import RunContext, train_network
from detpipe.solver.initial_weights import take_weights
from detpipe.structures import GroundTruth, Image, Proposals

VALIDATION_IMAGES = 32
"""Default limit of the validation images, evenly spread; it keeps validation short compared with training."""

VALIDATED_AT = (10, 50, 100)
"""Recall is reported for these numbers of boxes per image."""

VALIDATION_NMS = 0.7
"""IoU threshold of non-maximum suppression in validation; the same as the default of proposing."""

FOUND_IOU = 0.5
"""In calibration a box is correct if its IoU with an object is at least this."""

CALIBRATION_IMAGES = 200
"""Confidences are calibrated on at most this many training images."""


def train_multibox(
    network: MultiBox,
    train: Sequence[AnnotatedImage],
    val: Sequence[AnnotatedImage],
    *,
    head: MultiBoxConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place. Returns the solver's summary. Logs and snapshots go to context.folder.

    With several processes (context.ranks) each process takes its own images of every batch. The loss uses
    uncalibrated logits, also if the initial weights come from a calibrated network.

    Raises ValueError for no images, Interrupted after a signal.
    """
    context = uncalibrated_start(network, network.predictor.calibration, len(train), context)
    solver, device, bf16 = context.solver, context.device, context.bf16
    # Images without objects do not count in recall.
    val = list(filter(has_objects, val))
    fill = mean_colour(network.backbone.spec)
    make_batch = AnnotatedBatches(
        train,
        views(head),
        batch_size=solver.batch_size,
        multiple=multiple(head),
        fill=fill,
        seed=context.seed,
        part=context.ranks.part(solver.batch_size),
    )

    def loss(batch: AnnotatedBatch) -> Mapping[str, Tensor]:
        with autocast(device, bf16):
            output = network(torch.from_numpy(batch.images).to(device))
        targets = [Targets.of(*one, device) for one in zip(batch.truths, batch.weights, strict=True)]
        return multibox_loss(output, targets, head)

    images = VALIDATION_IMAGES if solver.test_iter is None else solver.test_iter * solver.batch_size
    summary = train_network(
        network,
        new_modules=network.new_modules,
        examples=len(train),
        data=f"{len(train):,} images",
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, head, device, bf16, images) if val else None,
        learning=head,
        context=context,
    )
    if head.calibrate:
        calibrate(network, train[:CALIBRATION_IMAGES], head, device, bf16)
    return summary


def uncalibrated_start(network: nn.Module, calibration: Tensor, examples: int, context: RunContext) -> RunContext:
    """Load the initial weights (solver.weights) and reset the calibration, so that training uses the plain logits.

    calibration: (A, 2), the network's own slopes and offsets from logits to calibrated logits; set to 1 and 0 in
    place. A training of 0 iterations keeps them, so it saves the network as it was loaded. examples: number of
    examples in one epoch. Returns `context` without solver.weights, so that they are not loaded again. Raises as
    `take_weights`.
    """
    if context.solver.weights is not None:
        take_weights(network, Path(context.solver.weights))
        context = replace(context, solver=replace(context.solver, weights=None))
    if context.solver.iterations(examples):
        calibration.copy_(calibration.new_tensor([1.0, 0.0]))
    return context


def has_objects(image: AnnotatedImage) -> bool:
    """Whether the image has an object that is neither difficult nor a crowd."""
    return not (image.truth.difficult | image.truth.crowd).all()


def views(head: MultiBoxConfig) -> BoxViews:
    """The augmentation that `head` configures."""
    return BoxViews(
        scales=tuple(head.scales),
        max_side=head.max_side,
        square=head.square,
        flip=head.flip,
        crop_share=head.crop_share,
        crop_area=head.crop_area,
        colour=head.colour,
        tiles=head.tiles,
    )


def multiple(head: MultiBoxConfig) -> int:
    """Input sides are padded to a multiple of this, so that the cells of each feature map have equal size."""
    return 1 if head.square else PYRAMID_MULTIPLE


PYRAMID_MULTIPLE = 64
"""The stride of the coarsest map for a backbone with the last stride 32."""


def validation(
    network: MultiBox,
    val: Sequence[AnnotatedImage],
    head: MultiBoxConfig,
    device: torch.device,
    bf16: bool,
    images: int = VALIDATION_IMAGES,
) -> Callable[[], dict[str, float]]:
    """A function that returns val_recall_K and val_ar_K for the K top-scoring boxes per image.

    It uses at most `images` of the validation images, evenly spread.
    """
    indices = evenly_spread(len(val), images)

    def validate() -> dict[str, float]:
        truths: dict[int | str, GroundTruth] = {}
        found: dict[int | str, Proposals] = {}
        for i in map(int, indices):
            pixels, truths[i] = views(head).plain(read_image(val[i].path, val[i].options), val[i].truth)
            found[i] = proposed(network, pixels, head, device, bf16, count=VALIDATED_AT[-1], nms_iou=VALIDATION_NMS)
        n_classes = max((int(one.labels.max(initial=0)) for one in truths.values()), default=0)
        recalls = proposal_recall(truths, found, n_classes, VALIDATED_AT)
        numbers: dict[str, float] = {}
        for budget, recall in recalls.items():
            numbers |= {f"val_recall_{budget}": recall.recall_50, f"val_ar_{budget}": recall.ar}
        return numbers

    return validate


def proposed(
    network: MultiBox,
    pixels: Image,
    head: MultiBoxConfig,
    device: torch.device,
    bf16: bool,
    *,
    count: int,
    nms_iou: float,
) -> Proposals:
    """The network's best boxes for an image that already has its input size, in pixels of that image."""
    images, sizes = padded([pixels], multiple(head), mean_colour(network.backbone.spec))
    with torch.inference_mode():
        with autocast(device, bf16):
            output = network(torch.from_numpy(images).to(device))
        boxes, scores = best_boxes(
            network.predictor.boxes(output)[0], output.logits[0], sizes[0], count=count, nms_iou=nms_iou
        )
    return Proposals(boxes.cpu().numpy(), scores.cpu().numpy())


def calibrate(
    network: MultiBox, images: Sequence[AnnotatedImage], head: MultiBoxConfig, device: torch.device, bf16: bool
) -> None:
    """Calibrate confidences: the probability that a predicted box has IoU >= 0.5 with an object (Platt 1999).

    A slope and an offset of the logit are fitted for each prior shape, as a convolution treats all cells alike. With
    `whole` each prior has its own. Boxes on difficult objects and in crowds are not used, unless they are correct.
    """
    logits, correct, shape_index = [], [], []
    network.eval()
    for one in images:
        pixels, truth = views(head).plain(read_image(one.path, one.options), one.truth)
        targets = Targets.of(truth, one.weights_of(truth), device)
        batch, _ = padded([pixels], multiple(head), mean_colour(network.backbone.spec))
        with torch.inference_mode():
            with autocast(device, bf16):
                output = network(torch.from_numpy(batch).to(device))
            boxes = network.predictor.boxes(output)[0]
            found = (geometry.iou_tensors(boxes, targets.objects) >= FOUND_IOU).any(dim=1)
            solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            used = found | ~(solid & ignored_priors(boxes, targets))
        logits.append(output.logits[0][used].cpu())
        correct.append(found[used].cpu())
        shape_index.append(output.shape_index[used].cpu())
    scores, hits, shapes = torch.cat(logits), torch.cat(correct), torch.cat(shape_index)
    for shape in range(len(network.predictor.calibration)):
        own = shapes == shape
        slope, offset = platt(scores[own].numpy(), hits[own].numpy())
        # The logits already include the present calibration, so the two linear maps are composed.
        before, shift = network.predictor.calibration[shape].tolist()
        network.predictor.calibration[shape] = torch.tensor([slope * before, slope * shift + offset])
