"""Fast R-CNN that starts from a store's head: the network and the two-layer head of a finished run, trained together.

    python benchmarks/from_the_store.py RUN ROOT [--steps 300] [--images 2] [--lr 1e-4] [--backbone-lr 5e-5] [--seed 0]

RUN: a folder of `detpipe run experiment=rcnn_frozen` on the data set ROOT in VOC's layout, which is only read. A step
looks at some training images, mirrored or not, and at all their stored regions: RoIAlign on the maps of the whole image
at both sizes, as the store has them, now with gradients; first stages, depthwise kernels and batch norms stay. Rates
rise for 20 steps and fall by a cosine. Printed: VOC10 mAP@0.5 on the test images before, halfway and after.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from detpipe.backbone.backbone import Backbone
from detpipe.classify.detect import select_detections
from detpipe.classify.features.extractor import RegionFeatures, shown_size
from detpipe.classify.features.geometry import mirrored_geometry
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.features.scorer import score_features
from detpipe.classify.features.store import FeatureStore, open_store
from detpipe.classify.kinds import load_classifier
from detpipe.classify.settings import DetectConfig
from detpipe.datasets import load_dataset
from detpipe.datasets.image_file import read_image
from detpipe.heads.bbox_regressor import TARGET_STD
from detpipe.heads.softmax import softmax_loss
from detpipe.heads.stored.two_layers import TwoLayersConfig, TwoLayersHead
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.device import autocast, resolve_bf16
from detpipe.network.scaled_image import Scaling
from detpipe.network.settings import Precision
from detpipe.structures import Dataset, ImageRecord

CPU = torch.device("cpu")
WARM_UP = 20
LEARNED = ("hidden_weight", "hidden_bias", "weight", "bias", "delta_weight", "delta_bias")


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--backbone-lr", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(options.seed)
    network, spec = load_classifier(options.run / "classifier")
    assert isinstance(network, FeatureClassifier)
    assert isinstance(spec, FeatureClassifierSpec)
    head, backbone = network.head, network.backbone
    assert isinstance(head, TwoLayersHead)
    stores = [open_store(options.run / "features" / split) for split in ("train", "test")]
    train, test = (load_dataset("voc", split, root=str(options.root)) for split in ("train", "test"))
    print(f"as stored: mAP {mean_ap(backbone, head, spec, stores[1], test):.3f}", flush=True)
    begun, shown = time.perf_counter(), spec.features.image_sides
    optimizer, schedule = optimization(backbone, head, options)
    images = image_order(train, stores[0], np.random.default_rng(options.seed))
    for step in range(options.steps):
        optimizer.zero_grad()
        for record, mirrored in (next(images) for _ in range(options.images)):
            (loss_of(backbone, head, stores[0], record, shown, mirrored=mirrored) / options.images).backward()
        optimizer.step()
        schedule.step()
        if step + 1 in (options.steps // 2, options.steps):
            seconds = time.perf_counter() - begun
            value = mean_ap(backbone, head, spec, stores[1], test)
            print(f"{step + 1} steps, {seconds:.0f} s: mAP {value:.3f}", flush=True)
            begun += time.perf_counter() - begun - seconds


def optimization(
    backbone: Backbone, head: TwoLayersHead, options: argparse.Namespace
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The head's buffers become parameters; what of the backbone learns does so more slowly."""
    for name in LEARNED:
        start = getattr(head, name).clone()
        delattr(head, name)
        head.register_parameter(name, nn.Parameter(start))
    backbone.to(memory_format=torch.channels_last).eval()
    backbone.freeze(3, depthwise=True, batch_norm=True)
    backbone.use_fast_depthwise_backward()
    own = [one for one in backbone.parameters() if one.requires_grad]
    groups = [{"params": list(head.parameters()), "lr": options.lr}, {"params": own, "lr": options.backbone_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)

    def rate(step: int) -> float:
        return min((step + 1) / WARM_UP, 1) * 0.5 * (1 + math.cos(math.pi * min(step / options.steps, 1)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def image_order(
    dataset: Dataset, store: FeatureStore, generator: np.random.Generator
) -> Iterator[tuple[ImageRecord, bool]]:
    """Images with stored regions in passes without end, and whether each is mirrored."""
    records = [one for one in dataset.records if len(range(*store.spans[one.image_id].indices(len(store))))]
    while True:
        for place in generator.permutation(len(records)):
            yield records[place], bool(generator.random() < 0.5)


def loss_of(
    backbone: Backbone,
    head: TwoLayersHead,
    store: FeatureStore,
    record: ImageRecord,
    sides: list[int],
    *,
    mirrored: bool,
) -> Tensor:
    """As TwoLayersConfig trains its networks, on the stored regions of one image, seen anew; the networks' mean."""
    rows = store.spans[record.image_id]
    geometry = mirrored_geometry(store.geometry[rows]) if mirrored else store.geometry[rows]
    features = region_features(backbone, record, store.boxes[rows], sides, mirrored=mirrored)
    x = F.dropout((features - head.mean) * head.scale, TwoLayersConfig.input_dropout)
    labels, best = torch.from_numpy(store.labels[rows]), torch.from_numpy(store.class_ious[rows].max(axis=1)).float()
    used, objects = (labels > 0) | (best < TwoLayersConfig.background_iou), labels > 0
    overlaps, std = ((best - 0.1) / 0.8).clamp(0, 1), torch.tensor(TARGET_STD)
    targets = torch.from_numpy(store.deltas[rows]) * torch.tensor([-1.0 if mirrored else 1.0, 1, 1, 1]) / std
    losses = []
    for one, hidden in head._hidden(x, torch.from_numpy(geometry)):
        kept = F.dropout(hidden, TwoLayersConfig.dropout)
        out = (kept @ head.weight[one].T + head.bias[one])[used]
        moves = (kept @ head.delta_weight[one].T + head.delta_bias[one])[objects] / std
        off = F.smooth_l1_loss(moves, targets[objects], reduction="sum") / max(int(used.sum()), 1)
        overlap = F.binary_cross_entropy_with_logits(out[:, -1], overlaps[used])
        losses.append(softmax_loss(out[:, :-1], labels[used]) + overlap + off)
    return torch.stack(losses).mean()


def region_features(
    backbone: Backbone, record: ImageRecord, boxes: np.ndarray, sides: list[int], *, mirrored: bool
) -> Tensor:
    """The columns of one view that `RegionFeatures` stores of image_sides with a grid of 2, with gradients."""
    image, columns, names = read_image(record.path), [], list(backbone.feature_maps)[-2:]
    for side in sides:
        scaling = Scaling(record.image_size, shown_size(record.image_size, side, 32), mirrored)
        pixels = scaling.pixels(image)
        with autocast(CPU, resolve_bf16(Precision.auto, CPU)):
            maps = backbone.forward_maps(backbone.spec.to_input(torch.from_numpy(pixels)[None]), names)
        regions = [torch.from_numpy(scaling.to_input(boxes))]
        for one in (maps[name].float() for name in names):
            columns.append(roi_align(one, regions, (2, 2), one.shape[3] / pixels.shape[1], 2, aligned=True).flatten(1))
        columns.append(maps[names[-1]].float().mean(dim=(2, 3)).expand(len(boxes), -1))
    return torch.cat(columns, dim=1)


def mean_ap(
    backbone: Backbone, head: TwoLayersHead, spec: FeatureClassifierSpec, store: FeatureStore, dataset: Dataset
) -> float:
    """VOC10 mAP@0.5 on the store's test regions, whose features are made anew, by the settings of rcnn_frozen."""
    bf16 = resolve_bf16(Precision.auto, CPU)
    extractor = RegionFeatures(backbone, spec.crops, spec.features, device=CPU, bf16=bf16)
    spans = [store.spans[one.image_id] for one in dataset.records]
    seen = ((read_image(one.path), store.boxes[span]) for one, span in zip(dataset.records, spans, strict=True))
    config, found = DetectConfig(vote_iou=0.5), {}
    for record, span, features in zip(dataset.records, spans, extractor.features(seen), strict=True):
        scored = score_features(head, features, store.geometry[span], spec.features.views)
        found[record.image_id] = select_detections(store.boxes[span], scored, record.image_size, config)
    assert dataset.ground_truth is not None
    truth = {one.image_id: dataset.ground_truth[one.image_id] for one in dataset.records}
    return voc_ap(truth, found, dataset.classes, method=VocMethod.VOC10).map


if __name__ == "__main__":
    main()
