"""The loss of MultiBox: F = F_conf + alpha F_loc (Erhan et al. 2014, section 3.2).

G: number of objects in an image. P: number of priors. N: number of images. M: number of matched priors in the batch.
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

IGNORE_OVERLAP = 0.5
"""A prior is ignored, not background, if its IoU with a difficult object or the share of it in a crowd is this high."""

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Parameters of the focal loss (Lin et al. 2017, section 5.1). The quality loss uses only gamma (Li et al. 2020,
"Generalized focal loss")."""


@dataclass(frozen=True)
class Targets:
    """The objects of an image, in pixels of the network's input.

    objects: (G, 4). weight: (G,), the target confidence of each: 1, or a proposal's score if proposals are used as
    objects. difficult: (D, 4), crowds: (C, 4); these are neither objects nor background.
    """

    objects: Tensor
    weight: Tensor
    difficult: Tensor
    crowds: Tensor

    @classmethod
    def of(cls, truth: GroundTruth, weight: Float32Array, device: torch.device) -> Targets:
        """Sort the objects of an image. Boxes without area are dropped, because no delta leads to them."""
        solid = (truth.boxes[:, 2:] > truth.boxes[:, :2]).all(axis=1)
        ignored = truth.difficult | truth.crowd
        used = solid & ~ignored
        parts = (truth.boxes[used], weight[used], truth.boxes[ignored & ~truth.crowd], truth.boxes[truth.crowd])
        return cls(*(torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in parts))


def multibox_loss(output: Output, truths: Sequence[Targets], config: MultiBoxTargetConfig) -> dict[str, Tensor]:
    """Returns "loss" = "confidence_loss" + location_weight x "location_loss", and these two.

    Both are sums over the batch divided by M, or by 1 if M = 0. In an image without objects all priors are background.
    Matched priors are ordered by image, then by prior index (the order of `nonzero`, boolean masks and
    `masked_scatter`).
    """
    with torch.no_grad():
        matches = torch.stack([match(output, index, one, config) for index, one in enumerate(truths)])
    image, prior = torch.nonzero(matches >= 0, as_tuple=True)
    matched = max(len(image), 1)
    objects = torch.cat([one.objects[own[own >= 0]] for one, own in zip(truths, matches, strict=True)])
    weight = torch.cat([one.weight[own[own >= 0]] for one, own in zip(truths, matches, strict=True)])
    location, overlap = location_loss(output, image, prior, objects, config)
    quality = overlap * weight if config.confidence is Confidence.quality else weight
    confidence = confidence_loss(output.logits, matches, quality, config)
    losses = {"confidence_loss": confidence / matched, "location_loss": location / matched}
    return {"loss": losses["confidence_loss"] + config.location_weight * losses["location_loss"], **losses}


def match(output: Output, index: int, truth: Targets, config: MultiBoxTargetConfig) -> Tensor:
    """Assign objects to the priors of image number `index`: (P,) int64, an object's index, BACKGROUND or IGNORED."""
    priors, objects = output.priors, truth.objects
    if config.matching is Matching.many_to_one:
        found = many_to_one(
            geometry.iou_tensors(objects, priors),
            positive=config.positive_iou,
            negative=config.negative_iou,
            at_least=config.at_least,
        )
    else:
        found = bipartite(matching_cost(output, index, objects, config))
    return without(found, ignored_priors(priors, truth))


def matching_cost(output: Output, index: int, objects: Tensor, config: MultiBoxTargetConfig) -> Tensor:
    """The cost of matching an object with a prior of image number `index`: (G, P).

    matched_by=prior: the squared distance of their corners, as a share of the input's sides. matched_by=prediction:
    what the match adds to F (Erhan et al. 2014, eq. 4): alpha / 2 |l - g|^2 - log c + log(1 - c). The last two terms
    are the negative logit.
    """
    sides = objects.new_tensor([output.input_size[1], output.input_size[0]] * 2)
    if config.matched_by is MatchedBy.prior:
        near: Tensor = torch.cdist(objects / sides, output.priors / sides).square()
        return near
    predicted = decode(output, by_corners=config.by_corners)[index]
    distance: Tensor = torch.cdist(objects / sides, predicted / sides).square()
    return config.location_weight / 2 * distance - output.logits[index]


def ignored_priors(priors: Tensor, truth: Targets) -> Tensor:
    """(P,) bool: the prior overlaps a difficult object (by IoU) or a crowd (by the share of its own area)."""
    ignored: Tensor = (geometry.iou_tensors(priors, truth.difficult) >= IGNORE_OVERLAP).any(dim=1)
    if len(truth.crowds):
        in_crowds = geometry.overlap_of_first_tensors(priors, truth.crowds)
        ignored = ignored | (in_crowds >= IGNORE_OVERLAP).any(dim=1)
    return ignored


def location_loss(
    output: Output, image: Tensor, prior: Tensor, objects: Tensor, config: MultiBoxTargetConfig
) -> tuple[Tensor, Tensor]:
    """F_loc, summed over the matched priors, and the IoU (M,) of each predicted box with its object.

    image, prior: (M,) int64, indices of the matched priors. objects: (M, 4). M = 0 gives 0 and (0,).
    """
    own = output._replace(deltas=output.deltas[image, prior], priors=output.priors[prior])
    boxes = decode(own, by_corners=config.by_corners)
    with torch.no_grad():
        overlap = geometry.paired_iou_tensors(boxes, objects)
    if config.localization is Localization.giou:
        return generalized_box_iou_loss(boxes, objects, reduction="sum"), overlap
    wanted = encode(own.priors, objects, output.input_size, by_corners=config.by_corners)
    if config.localization is Localization.squared:
        return (own.deltas - wanted).square().sum() / 2, overlap
    return F.smooth_l1_loss(own.deltas, wanted, reduction="sum", beta=1 / 9), overlap


def confidence_loss(logits: Tensor, matches: Tensor, confidence: Tensor, config: MultiBoxTargetConfig) -> Tensor:
    """F_conf, summed over matched and background priors: (N, P), (N, P), (M,) -> ().

    confidence: the target confidence of each matched prior. The target of background priors is 0.
    """
    matched = matches >= 0
    target = torch.zeros_like(logits).masked_scatter(matched, confidence.to(logits.dtype))
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
