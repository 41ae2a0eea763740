"""torchvision's own Faster R-CNN beside detpipe: the same backbone and weights, images, seconds and cores.

    python benchmarks/peer_torchvision.py FOLDER --set raccoon [--seconds 120] [--seeds 0 1 2] [--nms 0.3]

FOLDER holds raccoon/, bccd/ or any folder in VOC's layout, and for --set coco coco_train/ and coco_val/ with
instances.json and images/. --set voc_classes trains on the images of both that hold one of VOC's 20 classes, and
tests on voc2012_100/. The metrics, the image decoder, and the NMS threshold are detpipe's; the test is of one image
at a time, its decoding included.

The recipe was searched for, so that this is a strong peer: batch norm, the stem, the first two stages and all
depthwise kernels frozen, a feature pyramid of 96 channels, a 512-wide head, 64 regions an image, two images a step,
AdamW with half the rate on the backbone, bf16 where the processor has it, anchors after the boxes' own sizes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from detpipe import boxes as geometry
from detpipe.backbone.backbone import Backbone
from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.detect import best_of
from detpipe.classify.settings import DetectConfig
from detpipe.datasets import load_dataset
from detpipe.datasets.image_file import read_image
from detpipe.metrics.coco_ap import coco_ap
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.batch_order import plain_order
from detpipe.network.device import autocast, resolve_bf16
from detpipe.network.settings import Precision
from detpipe.solver.prefetch import Prefetcher
from detpipe.structures import Dataset, Detections, Float32Array, Image, ImageId

MAPS = ("stride8", "stride16", "stride32")
SHORT_SIDES = (320, 352, 384)
"""Training draws one of them for each image; the test takes the last."""
LONG_SIDE = 640
CHANNELS, HEAD_WIDTH, REGIONS = 96, 512, 64
IMAGES_A_STEP = 2
RATE, BACKBONE_RATE, WARM_UP = 4e-4, 2e-4, 20
CPU = torch.device("cpu")
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""What COCO calls a class of VOC, where it has another name for it."""


@dataclass(frozen=True)
class Outcome:
    """What one seed gave. ap50, ap75: VOC10's. interval: of ap50, over images. seconds: of training, of the test."""

    ap50: float
    interval: tuple[float, float]
    ap75: float
    coco: float
    steps: int
    seconds: tuple[float, float]


def main() -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="raccoon", help="raccoon, bccd, another VOC folder's name, coco, voc_classes")
    parser.add_argument("--seconds", type=float, default=120, help="of training, making the network included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--nms", type=float, default=DetectConfig().nms_iou, help="detpipe's own by default")
    options = parser.parse_args()
    keep_freed_memory()  # as every command does
    cv2.setNumThreads(1)
    train, test = data_set(options.set, options.folder)
    print(f"{train.name} ({len(train)}) -> {test.name} ({len(test)}), {torch.get_num_threads()} threads")
    print("seed  AP@0.5  [95 % interval]  AP@0.75  COCO AP   steps  train s  test s  ms/image")
    outcomes = [run_seed(train, test, seed, options) for seed in options.seeds]
    for seed, one in zip(options.seeds, outcomes, strict=True):
        print(
            f"{seed:4d}  {one.ap50:6.3f}  [{one.interval[0]:.3f}, {one.interval[1]:.3f}]  {one.ap75:7.3f}  "
            f"{one.coco:7.3f}  {one.steps:6d}  {one.seconds[0]:7.1f}  {one.seconds[1]:6.1f}  "
            f"{1000 * one.seconds[1] / len(test):8.1f}"
        )
    columns = zip(*((one.ap50, one.ap75, one.coco) for one in outcomes), strict=True)
    print("median [least, greatest] of AP@0.5, AP@0.75, COCO AP:")
    print("  ".join(f"{statistics.median(column):.3f} [{min(column):.3f}, {max(column):.3f}]" for column in columns))


def run_seed(train: Dataset, test: Dataset, seed: int, options: argparse.Namespace) -> Outcome:
    """One training and its test."""
    begun = time.perf_counter()
    network, steps = trained(train, seed, options.seconds, options.nms)
    trained_at = time.perf_counter()
    found = detect(network, test)
    tested_at = time.perf_counter()
    assert test.ground_truth is not None
    truth = {record.image_id: test.ground_truth[record.image_id] for record in test.records}
    ap50 = resampled_map(truth, found, test.classes, resamples=1000, seed=0)
    low, high = ap50.interval
    return Outcome(
        ap50=float(ap50.value[0]),
        interval=(float(low[0]), float(high[0])),
        ap75=voc_ap(truth, found, test.classes, iou_threshold=0.75, method=VocMethod.VOC10).map,
        coco=coco_ap(truth, found, test.classes).numbers["AP"],
        steps=steps,
        seconds=(trained_at - begun, tested_at - trained_at),
    )


def data_set(name: str, folder: Path) -> tuple[Dataset, Dataset]:
    """The images to train on and those to test on, their labels the same."""
    parts = {
        f"{split}_{what}": str(folder / f"coco_{part}" / file)
        for split, part in (("train", "train"), ("test", "val"))
        for what, file in (("json", "instances.json"), ("images", "images"))
    }
    if name == "coco":
        return load_dataset("coco", "train", **parts), load_dataset("coco", "test", **parts)
    if name == "voc_classes":
        parts["classes"] = [COCO_NAMES.get(one, one) for one in VOC_CLASSES]  # type: ignore[assignment]
        both = [load_dataset("coco", split, **parts) for split in ("train", "test")]
        voc = {"root": str(folder / "voc2012_100"), "test": "trainval", "classes": list(VOC_CLASSES)}
        return with_objects(joined(both)), load_dataset("voc", "test", **voc)
    root = folder / name
    has_trainval = (root / "ImageSets/Main/trainval.txt").is_file()
    voc = {"root": str(root), "train": "trainval" if has_trainval else "train"}
    return load_dataset("voc", "train", **voc), load_dataset("voc", "test", **voc)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets of the same classes as one; an image's id is its place and its own id."""
    records, truth = [], {}
    for place, part in enumerate(parts):
        assert part.ground_truth is not None
        for record in part.records:
            image_id: ImageId = f"{place}/{record.image_id}"
            records.append(replace(record, image_id=image_id))
            truth[image_id] = part.ground_truth[record.image_id]
    return replace(parts[0], name=" + ".join(part.name for part in parts), records=tuple(records), ground_truth=truth)


def with_objects(dataset: Dataset) -> Dataset:
    """The images that hold an object to learn from."""
    assert dataset.ground_truth is not None
    truth = dataset.ground_truth
    return replace(dataset, records=tuple(one for one in dataset.records if (~truth[one.image_id].crowd).any()))


class Pyramid(nn.Module):
    """detpipe's backbone under torchvision's FeaturePyramidNetwork: the network that FasterRCNN asks for."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork([backbone.feature_maps[name].channels for name in MAPS], CHANNELS)
        self.out_channels = CHANNELS

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) -> (N, CHANNELS, H / stride, W / stride) by the name of each map."""
        x = images.contiguous(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = self.fpn(self.backbone.forward_maps(x, MAPS))
        return maps


class Float32(nn.Module):
    """A layer whose outputs are float32: losses and boxes want the digits that bf16 hasn't."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor | list[Tensor]) -> tuple[Tensor | list[Tensor], ...]:
        """The layer's outputs: tensors, or lists of them."""
        return tuple(one.float() if isinstance(one, Tensor) else [y.float() for y in one] for one in self.layer(x))


def make_network(dataset: Dataset, nms: float) -> FasterRCNN:
    """Faster R-CNN on the ImageNet weights that detpipe starts from."""
    backbone = create_backbone(BackboneConfig())
    backbone.use_fast_depthwise_backward()
    backbone.freeze(stages=3, depthwise=True, batch_norm=True)  # the stem counts as one
    mean, std = ([value / 255 for value in values] for values in (backbone.spec.mean, backbone.spec.std))
    config = DetectConfig()
    network = FasterRCNN(
        Pyramid(backbone),
        min_size=SHORT_SIDES,
        max_size=LONG_SIDE,
        image_mean=mean,
        image_std=std,
        rpn_anchor_generator=fitted_anchors(dataset),
        rpn_pre_nms_top_n_train=1000,
        rpn_pre_nms_top_n_test=1000,
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=300,
        box_roi_pool=MultiScaleRoIAlign(MAPS, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(CHANNELS * 7 * 7, HEAD_WIDTH),
        box_predictor=Float32(FastRCNNPredictor(HEAD_WIDTH, len(dataset.classes) + 1)),
        box_batch_size_per_image=REGIONS,
        box_score_thresh=config.score_floor,
        box_nms_thresh=nms,
        box_detections_per_img=config.max_detections,
    )
    network.rpn.head = Float32(network.rpn.head)
    return network.to(memory_format=torch.channels_last)


def fitted_anchors(dataset: Dataset) -> AnchorGenerator:
    """Six sizes from the small boxes to the large ones, two a map, in three shapes, as training sees them."""
    sides = np.concatenate(
        [truth_boxes(dataset, record.image_id)[0] * scale_of(record.image_size) for record in dataset.records]
    )
    lengths = sides[:, 2:] - sides[:, :2]
    least, most = np.quantile(np.sqrt(lengths.prod(axis=1)), (0.02, 0.98))
    sizes = np.geomspace(least, most, 2 * len(MAPS))
    shapes = np.quantile(lengths[:, 1] / lengths[:, 0], (0.1, 0.5, 0.9))
    pairs = tuple((float(small), float(large)) for small, large in sizes.reshape(-1, 2))
    return AnchorGenerator(pairs, (tuple(map(float, shapes)),) * len(MAPS))


def scale_of(image_size: tuple[int, int]) -> float:
    """By what FasterRCNN resizes an image of this (height, width) for the middle one of the short sides."""
    return min(SHORT_SIDES[1] / min(image_size), LONG_SIDE / max(image_size))


def truth_boxes(dataset: Dataset, image_id: ImageId) -> tuple[Float32Array, np.ndarray]:
    """Boxes and labels of the image's objects, without crowds."""
    assert dataset.ground_truth is not None
    truth = dataset.ground_truth[image_id]
    return truth.boxes[~truth.crowd], truth.labels[~truth.crowd]


def trained(dataset: Dataset, seed: int, seconds: float, nms: float) -> tuple[FasterRCNN, int]:
    """The network after so many seconds, and how many steps these were."""
    begun = time.perf_counter()
    torch.manual_seed(seed)  # torchvision draws anchors and regions from torch's own generator
    network = make_network(dataset, nms).train()
    backbone = [one for one in network.backbone.backbone.parameters() if one.requires_grad]
    known = set(map(id, network.backbone.backbone.parameters()))
    others = [one for one in network.parameters() if id(one) not in known]
    groups = [{"params": others, "lr": RATE}, {"params": backbone, "lr": BACKBONE_RATE}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    bf16 = resolve_bf16(Precision.auto, CPU)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * min(1, (time.perf_counter() - begun) / seconds))) / 2
        ),
    )
    steps = 0
    for images, targets in batches(dataset, seed):
        if time.perf_counter() - begun >= seconds:
            break
        with autocast(CPU, bf16):
            losses = network(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
        steps += 1
    return network.eval(), steps


def batches(dataset: Dataset, seed: int) -> Iterator[Batch]:
    """Two images a step in passes over all, each mirrored or not; decoded ahead by a thread, as detpipe does."""
    order = plain_order(len(dataset), batch_size=IMAGES_A_STEP, seed=seed)

    def make(number: int) -> Batch:
        flips = np.random.default_rng((seed, number)).random(IMAGES_A_STEP) < 0.5
        pairs = [example(dataset, int(place), bool(flip)) for place, flip in zip(order(number), flips, strict=True)]
        return [image for image, _ in pairs], [target for _, target in pairs]

    prefetcher = Prefetcher(make, 0, 1 << 62)
    try:
        yield from prefetcher
    finally:
        prefetcher.close()


def example(dataset: Dataset, place: int, flip: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """One image with its objects, as FasterRCNN takes them."""
    record = dataset.records[place]
    image = read_image(record.path)
    boxes, labels = truth_boxes(dataset, record.image_id)
    if flip:
        image = image[:, ::-1]
        boxes = boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + np.array((image.shape[1], 0, image.shape[1], 0), np.float32)
    target = {"boxes": torch.from_numpy(boxes.astype(np.float32)), "labels": torch.from_numpy(labels)}
    return as_tensor(image), target


def as_tensor(image: Image) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def detect(network: FasterRCNN, dataset: Dataset) -> dict[ImageId, Detections]:
    """What it finds in each image."""
    bf16 = resolve_bf16(Precision.auto, CPU)
    found: dict[ImageId, Detections] = {}
    for record in dataset.records:
        with torch.inference_mode(), autocast(CPU, bf16):
            (one,) = network([as_tensor(read_image(record.path))])
        boxes = geometry.clip(one["boxes"].float().numpy(), record.image_size)
        scores, labels = one["scores"].float().numpy(), one["labels"].numpy()
        each = [(boxes[labels == label], scores[labels == label], int(label)) for label in np.unique(labels)]
        found[record.image_id] = best_of(each, DetectConfig().max_detections)
    return found


if __name__ == "__main__":
    main()
