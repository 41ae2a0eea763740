"""The loss of the logit "this region is the best box of its object": each object is matched with one region.

The matching minimises the cost of Carion et al. 2020 ("End-to-end object detection with transformers", section 3.1):
class probability, L1 distance and GIoU of the boxes after box regression. One region of an object then learns 1, all
others learn 0, so the network learns to find duplicates.

R: regions of an image. K: classes. G: objects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detpipe import boxes as geometry
from detpipe.heads.fast_rcnn.network import RegionOutputs
from detpipe.heads.multibox.matching import BACKGROUND, bipartite

CLASS_COST, L1_COST, GIOU_COST = 1.0, 5.0, 2.0
"""Weights of the parts of the cost, as in DETR. The L1 distance is a share of the image's sides."""

COVERS = 0.5
"""The smallest IoU of a box that covers an object (VOC)."""


def best_boxes_of(
    outputs: RegionOutputs, regions: Tensor, labels: Tensor, objects: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """The targets (R,) of one image: 1 for a region that is the best one of an object, else 0.

    regions: (R, 4), and objects (G, 4) in pixels of the input. labels: (G,) int64 in 1..K. image_size: (height, width).
    A matched region whose box has an IoU below COVERS with its object is not a best box. G = 0 gives 0 for all.
    """
    placed = placed_boxes(outputs, regions, labels)
    match = bipartite(matching_cost(outputs, placed, labels, objects, image_size))
    rows = torch.nonzero(match != BACKGROUND).squeeze(1)
    covers = geometry.paired_iou_tensors(placed[match[rows], rows], objects[match[rows]]) >= COVERS
    targets = torch.zeros(len(regions), device=regions.device)
    targets[rows[covers]] = 1
    return targets


def placed_boxes(outputs: RegionOutputs, regions: Tensor, labels: Tensor) -> Tensor:
    """The boxes (G, R, 4) of regions (R, 4) after box regression for the class of each object, (G,) int64 in 1..K."""
    placed = regions.expand(len(labels), -1, -1)
    if outputs.deltas is None:
        return placed
    return geometry.decode_tensors(placed, outputs.deltas.detach().float()[:, labels - 1].transpose(0, 1))


def matching_cost(
    outputs: RegionOutputs, placed: Tensor, labels: Tensor, objects: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """The cost (G, R) of each object and region: placed (G, R, 4), objects (G, 4), labels (G,). See `best_boxes_of`."""
    probabilities = outputs.logits.detach().float().softmax(dim=1)[:, labels].t()
    height, width = image_size
    sides = placed.new_tensor([width, height, width, height])
    distance = ((placed - objects[:, None]).abs() / sides).sum(dim=2)
    giou_loss: Tensor = generalized_box_iou_loss(placed, objects[:, None].expand_as(placed))
    return L1_COST * distance - CLASS_COST * probabilities + GIOU_COST * giou_loss


def best_box_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of logits (R,) and targets (R,), summed and divided by the sum of the targets, at least 1.

    No regions give 0.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return loss / targets.sum().clamp(min=1)
