"""Training of MultiBox: whole images and their objects, by the solver that trains everything here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from detpipe import boxes as geometry
from detpipe.datasets.image_file import read_image
from detpipe.heads.multibox.loss import Targets, multibox_loss, untaught_priors
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
from detpipe.network.uncalibrated_start import uncalibrated_start
from detpipe.structures import GroundTruth, Image, Proposals

VALIDATION_IMAGES = 32
"""Validation looks at no more than this many images, evenly spread, so that it stays a small part of the training."""

VALIDATED_AT = (10, 50, 100)
"""The numbers of boxes whose recall is watched."""

VALIDATION_NMS = 0.7
"""In validation a box that overlaps a better one by more than this is dropped, as in proposing by default."""

FOUND_IOU = 0.5
"""A box has found an object where it overlaps it by this."""

CALIBRATION_IMAGES = 200
"""Confidences are calibrated on no more than this many training images."""


def train_multibox(
    network: MultiBox,
    train: Sequence[AnnotatedImage],
    val: Sequence[AnnotatedImage],
    *,
    head: MultiBoxConfig,
    context: RunContext,
) -> dict[str, float]:
    """Train `network` in place; returns the solver's summary. Logs and snapshots go to the session's folder.

    Of several processes (session.ranks) each takes its own images of every batch. It learns from logits that were not
    calibrated, whatever it starts from.

    Raises ValueError for no images, Interrupted after a signal.
    """
    context = uncalibrated_start(network, network.predictor.calibration, len(train), context)
    solver, device, bf16 = context.solver, context.device, context.bf16
    # Recall is of objects: an image without any adds nothing to it.
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
        taught = [Targets.of(*one, device) for one in zip(batch.truths, batch.weights, strict=True)]
        return multibox_loss(output, taught, head)

    images = VALIDATION_IMAGES if solver.test_iter is None else solver.test_iter * solver.batch_size
    summary = train_network(
        network,
        new_modules=network.new_modules,
        examples=len(train),
        make_batch=make_batch,
        loss=loss,
        validate=validation(network, val, head, device, bf16, images) if val else None,
        learning=head,
        context=context,
    )
    if head.calibrate:
        calibrate(network, train[:CALIBRATION_IMAGES], head, device, bf16)
    return summary


def has_objects(image: AnnotatedImage) -> bool:
    """Whether any object of it counts."""
    return not (image.truth.difficult | image.truth.crowd).all()


def views(head: MultiBoxConfig) -> BoxViews:
    """How training images are shown."""
    return BoxViews(
        scales=tuple(head.scales),
        max_side=head.max_side,
        square=head.square,
        flip=head.flip,
        crop_share=head.crop_share,
        crop_area=head.crop_area,
        colour=head.colour,
    )


def multiple(head: MultiBoxConfig) -> int:
    """Sides of the input are padded to multiples of this, so that each map's cells are even parts of it."""
    return 1 if head.square else PYRAMID_MULTIPLE


PYRAMID_MULTIPLE = 64
"""The stride of the coarsest map of a backbone whose last stride is 32."""


def validation(
    network: MultiBox,
    val: Sequence[AnnotatedImage],
    head: MultiBoxConfig,
    device: torch.device,
    bf16: bool,
    images: int = VALIDATION_IMAGES,
) -> Callable[[], dict[str, float]]:
    """A function that gives val_recall_K and val_ar_K of the K best boxes, over evenly spread validation images.

    It looks at no more than `images` of them.
    """
    places = evenly_spread(len(val), images)

    def validate() -> dict[str, float]:
        truths: dict[int | str, GroundTruth] = {}
        found: dict[int | str, Proposals] = {}
        for place in map(int, places):
            pixels, truths[place] = views(head).plain(read_image(val[place].path), val[place].truth)
            found[place] = proposed(network, pixels, head, device, bf16, count=VALIDATED_AT[-1], nms_iou=VALIDATION_NMS)
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
    """The network's boxes on an image that is at its size already, in its pixels."""
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
    """Fit each prior's line from logit to chance: that its box overlaps an object by half (Platt 1999).

    Priors of one shape share a line: a convolution can't tell its cells apart. Of `whole` each prior has its own. Boxes
    on difficult objects and in crowds are neither right nor wrong, unless they found an object.
    """
    logits, right, kinds = [], [], []
    network.eval()
    for one in images:
        pixels, truth = views(head).plain(read_image(one.path), one.truth)
        taught = Targets.of(truth, one.weights_of(truth), device)
        batch, _ = padded([pixels], multiple(head), mean_colour(network.backbone.spec))
        with torch.inference_mode():
            with autocast(device, bf16):
                output = network(torch.from_numpy(batch).to(device))
            boxes = network.predictor.boxes(output)[0]
            found = (geometry.iou_tensors(boxes, taught.objects) >= FOUND_IOU).any(dim=1)
            solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            counts = found | ~(solid & untaught_priors(boxes, taught))
        logits.append(output.logits[0][counts].cpu())
        right.append(found[counts].cpu())
        kinds.append(output.kinds[counts].cpu())
    scores, hits, shapes = torch.cat(logits), torch.cat(right), torch.cat(kinds)
    for shape in range(len(network.predictor.calibration)):
        own = shapes == shape
        slope, offset = platt(scores[own].numpy(), hits[own].numpy())
        # The logits went through the line that is there: of a network that was calibrated before.
        before, shift = network.predictor.calibration[shape].tolist()
        network.predictor.calibration[shape] = torch.tensor([slope * before, slope * shift + offset])
