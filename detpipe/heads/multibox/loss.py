"""What MultiBox learns from: F = F_conf + alpha F_loc (Erhan et al. 2014, section 3.2), over the matched priors.

G: objects of an image. P: priors. N: images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detpipe import boxes as geometry
from detpipe.heads.multibox.matching import BACKGROUND, bipartite, many_to_one, without
from detpipe.heads.multibox.network import Output, decode, encode
from detpipe.heads.multibox.settings import Confidence, Localization, MatchedBy, Matching, MultiBoxTargetConfig
from detpipe.structures import Float32Array, GroundTruth

UNTAUGHT_OVERLAP = 0.5
"""A prior that overlaps a difficult or cut object by this IoU, or lies in a crowd by this share, is not background."""

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al. 2017, section 5.1); quality has gamma alone (Li et al. 2020, "Generalized focal
loss")."""


@dataclass(frozen=True)
class Targets:
    """The objects of an image on the network's input.

    objects: (G, 4). worth: (G,), the confidence that each teaches: 1, or the score of a proposal that stands for an
    object. difficult, crowds: (D, 4), (C, 4), which are neither objects nor background.
    """

    objects: Tensor
    weight: Tensor
    difficult: Tensor
    crowds: Tensor

    @classmethod
    def of(cls, truth: GroundTruth, weight: Float32Array, device: torch.device) -> Targets:
        """Objects without an area teach nothing either: no move brings a prior onto them."""
        solid = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1)
        untaught = truth.difficult | truth.crowd
        taught = solid & ~untaught
        parts = (truth.boxes[taught], weight[taught], truth.boxes[untaught & ~truth.crowd], truth.boxes[truth.crowd])
        return cls(*(torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in parts))


def multibox_loss(output: Output, truths: Sequence[Targets], config: MultiBoxTargetConfig) -> dict[str, Tensor]:
    """ "loss" = "confidence_loss" + location_weight x "location_loss", both sums over the batch by matched prior.

    The M matched priors of the batch have one order here: image after image, in each by the prior's number, which is
    that of nonzero, of a mask's selection, and of masked_scatter.
    An image without objects has background alone; a batch without any is divided by 1.
    """
    with torch.no_grad():
        matches = torch.stack([match(output, place, one, config) for place, one in enumerate(truths)])
    image, prior = torch.nonzero(matches >= 0, as_tuple=True)
    matched = max(len(image), 1)
    objects = torch.cat([one.objects[own[own >= 0]] for one, own in zip(truths, matches, strict=True)])
    weight = torch.cat([one.weight[own[own >= 0]] for one, own in zip(truths, matches, strict=True)])
    location, overlap = location_loss(output, image, prior, objects, config)
    quality = overlap * weight if config.confidence is Confidence.quality else weight
    confidence = confidence_loss(output.logits, matches, quality, config)
    losses = {"confidence_loss": confidence / matched, "location_loss": location / matched}
    return {"loss": losses["confidence_loss"] + config.location_weight * losses["location_loss"], **losses}


def match(output: Output, place: int, truth: Targets, config: MultiBoxTargetConfig) -> Tensor:
    """Which object each prior of one image answers for: (P,) int64, BACKGROUND or IGNORED where none."""
    priors, objects = output.priors, truth.objects
    if config.matching is Matching.many_to_one:
        found = many_to_one(
            geometry.iou_tensors(objects, priors),
            positive=config.positive_iou,
            negative=config.negative_iou,
            at_least=config.at_least,
        )
    else:
        found = bipartite(matching_cost(output, place, objects, config))
    return without(found, untaught_priors(priors, truth))


def matching_cost(output: Output, place: int, objects: Tensor, config: MultiBoxTargetConfig) -> Tensor:
    """What it costs that a prior answers for an object: (G, P).

    By prior: the squared distance of their corners, in sides of the input. By prediction: what the object adds to F
    (eq. 4 of 2014): alpha / 2 |l - g|^2 - log c + log(1 - c), which is minus the logit.
    """
    sides = objects.new_tensor([output.input_size[1], output.input_size[0]] * 2)
    if config.matched_by is MatchedBy.prior:
        near: Tensor = torch.cdist(objects / sides, output.priors / sides).square()
        return near
    predicted = decode(output, by_corners=config.by_corners)[place]
    distance: Tensor = torch.cdist(objects / sides, predicted / sides).square()
    return config.location_weight / 2 * distance - output.logits[place]


def untaught_priors(priors: Tensor, truth: Targets) -> Tensor:
    """(P,) bool: the prior lies on a difficult object (by IoU) or in a crowd (by its own share)."""
    touched: Tensor = (geometry.iou_tensors(priors, truth.difficult) >= UNTAUGHT_OVERLAP).any(dim=1)
    if len(truth.crowds):
        in_crowds = geometry.overlap_of_first_tensors(priors, truth.crowds)
        touched = touched | (in_crowds >= UNTAUGHT_OVERLAP).any(dim=1)
    return touched


def location_loss(
    output: Output, image: Tensor, prior: Tensor, objects: Tensor, config: MultiBoxTargetConfig
) -> tuple[Tensor, Tensor]:
    """F_loc of the matched priors (M,), summed, and the IoU (M,) of each predicted box with its object.

    M = 0 gives 0 and (0,).
    """
    own = output._replace(moves=output.moves[image, prior], priors=output.priors[prior])
    boxes = decode(own, by_corners=config.by_corners)
    with torch.no_grad():
        overlap = geometry.paired_iou_tensors(boxes, objects)
    if config.localization is Localization.giou:
        return generalized_box_iou_loss(boxes, objects, reduction="sum"), overlap
    wanted = encode(own.priors, objects, output.input_size, by_corners=config.by_corners)
    if config.localization is Localization.squared:
        return (own.moves - wanted).square().sum() / 2, overlap
    return F.smooth_l1_loss(own.moves, wanted, reduction="sum", beta=1 / 9), overlap


def confidence_loss(logits: Tensor, matches: Tensor, taught: Tensor, config: MultiBoxTargetConfig) -> Tensor:
    """F_conf, summed over matched and background priors: (N, P), (N, P), (M,) -> ().

    taught: the confidence that each matched prior should have, row by row.
    """
    matched = matches >= 0
    target = torch.zeros_like(logits).masked_scatter(matched, taught.to(logits.dtype))
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if config.confidence is not Confidence.cross_entropy:
        losses = losses * (target - logits.sigmoid()).abs().pow(FOCAL_GAMMA)
    if config.confidence is Confidence.focal:
        losses = losses * torch.where(matched, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    background = matches == BACKGROUND
    if config.negatives is None:
        return losses[matched | background].sum()
    hard = [
        own[match == BACKGROUND].sort(descending=True).values[: config.negatives * max(int((match >= 0).sum()), 1)]
        for own, match in zip(losses, matches, strict=True)
    ]
    return losses[matched].sum() + torch.cat(hard).sum()
