"""A tiny data set of drawn squares and discs, as a VOC folder and as COCO files, and settings that suit it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.datasets.yolo_text import yolo_line
from detpipe.structures import GroundTruth, Image

CLASSES = ("disc", "square")
IMAGE_SIZE = (120, 160)
TRAIN = tuple(f"train_{number}" for number in range(10))
TEST = tuple(f"test_{number}" for number in range(4))

TINY = (
    "workers=0",
    "device=cpu",
    "proposals.preset=opencv_single",
    "proposals.max_side=160",
    "proposals.max_proposals=60",
    "sampling.regions_per_image=16",
    "sampling.val_share=0.3",
    "crops.size=32",
    "backbone.weights=none",
    "solver.max_iter=4",
    "solver.batch_size=8",
    "solver.snapshot=0",  # each has 40 MB, which every copy of the run would have, too
    "precision=float32",
    "detect.compile=false",
)
"""The whole flow in seconds. Nothing is learnt: the network starts from nothing."""

FAST_RCNN = ("head=fast_rcnn", "head.hidden=16", "head.merge_width=8", "head.scales=[96]", "head.pool_size=3")
"""What makes it Fast R-CNN's."""


def settings(command: str, *more: str) -> list[str]:
    """The part of TINY that a command has, then `more`."""
    groups = {
        "propose": ("workers", "device", "proposals"),
        "crop": ("workers", "device", "sampling", "crops"),
        "train-cls": ("workers", "device", "sampling", "backbone", "solver", "precision"),
        "detect": ("workers", "device", "detect", "precision"),
        "eval": ("workers", "device"),
        "check": ("workers", "device"),
    }
    if command == "run":
        return [*TINY, *more]
    return [one for one in TINY if one.split("=")[0].split(".")[0] in groups[command]] + list(more)


def voc(root: Path) -> list[str]:
    """The overrides for a VOC folder."""
    return ["dataset=voc", f"dataset.root={root}"]


def draw(number: int) -> tuple[Image, GroundTruth]:
    """An image of a disc and a square on noise, like no other: (120, 160, 3) uint8 RGB, and where they are."""
    generator = np.random.default_rng(number)
    image = generator.integers(90, 130, (*IMAGE_SIZE, 3), dtype=np.uint8)
    radius, side = int(generator.integers(14, 24)), int(generator.integers(28, 46))
    x, y = int(generator.integers(radius, 76 - radius)), int(generator.integers(radius, 118 - radius))
    cv2.circle(image, (x, y), radius, (220, 40, 30), -1)
    left, top = int(generator.integers(80, 158 - side)), int(generator.integers(2, 118 - side))
    cv2.rectangle(image, (left, top), (left + side - 1, top + side - 1), (30, 60, 230), -1)
    boxes = [[x - radius, y - radius, x + radius + 1, y + radius + 1], [left, top, left + side, top + side]]
    return image, GroundTruth.from_boxes(boxes, [1, 2])


def write_jpeg(path: Path, image: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def write_voc(root: Path) -> Path:
    """The data set as a VOC folder with the lists trainval and test."""
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for number, name in enumerate((*TRAIN, *TEST)):
        image, truth = draw(number)
        write_jpeg(root / "JPEGImages" / f"{name}.jpg", image)
        write_voc_annotation(root / "Annotations" / f"{name}.xml", f"{name}.jpg", IMAGE_SIZE, truth, CLASSES)
    (lists / "trainval.txt").write_text("\n".join(TRAIN) + "\n")
    (lists / "test.txt").write_text("\n".join(TEST) + "\n")
    return root


COCO_IDS = {"disc": 7, "square": 3}


def write_coco(folder: Path, root: Path) -> list[str]:
    """The VOC folder `root` as COCO files in `folder`, ids far from 1..K; returns the overrides for them."""
    overrides = ["dataset=coco"]
    for split in (Split.train, Split.test):
        dataset = VocSource(root=str(root)).load(split)
        assert dataset.ground_truth is not None
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, record in enumerate(dataset.records, start=100):
            images.append({"id": number, "file_name": record.path.name, "height": 120, "width": 160})
            truth = dataset.ground_truth[record.image_id]
            for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": COCO_IDS[dataset.classes[label - 1]],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": number, "name": name} for name, number in COCO_IDS.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = folder / f"{split.value}.json"
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        overrides += [f"dataset.{split.value}_json={file}", f"dataset.{split.value}_images={root / 'JPEGImages'}"]
    return overrides


def write_yolo(folder: Path) -> list[str]:
    """The same data set in YOLO's format, with data.yaml; returns the overrides for it."""
    for number, name in enumerate((*TRAIN, *TEST)):
        split = "train" if name in TRAIN else "test"
        image, truth = draw(number)
        write_jpeg(folder / "images" / split / f"{name}.jpg", image)
        label = folder / "labels" / split / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
        label.write_text("".join(f"{yolo_line(number - 1, box, IMAGE_SIZE)}\n" for box, number in rows))
    names = ", ".join(CLASSES)
    (folder / "data.yaml").write_text(f"train: images/train\ntest: images/test\nnames: [{names}]\n")
    return ["dataset=yolo", f"dataset.root={folder}"]


SPECIES = ("red deer", "roe deer")
CAMERAS = ("north", "south", "west", "east")


def write_camera_traps(folder: Path) -> None:
    """Photos with one disc ("red deer"), one square ("roe deer") or nothing, of four cameras in traps and new_photos.

    species.csv has the class of each photo in traps. md.json and new_md.json are MegaDetector's results: the objects,
    and a box of low confidence in each photo.
    """
    rows = ["file,species"]
    for photos, results, first in (("traps", "md.json", 0), ("new_photos", "new_md.json", 100)):
        images = []
        for number, name in enumerate(f"{camera}/{index}.jpg" for index in range(3) for camera in CAMERAS):
            image, truth = draw(first + number)
            side = (number + number // 4) % 2  # the disc is on the left, the square on the right
            half = np.ascontiguousarray(image[:, 80 * side : 80 * side + 80])
            x1, y1, x2, y2 = (truth.boxes[side] - [80 * side, 0, 80 * side, 0]).tolist()
            box = [x1 / 80, y1 / 120, (x2 - x1) / 80, (y2 - y1) / 120]
            found = [{"category": "1", "conf": 0.05, "bbox": [0.1, 0.1, 0.3, 0.3]}]
            if number % 5 == 4:
                half[:] = np.random.default_rng(number).integers(90, 130, half.shape)
            else:
                found.insert(0, {"category": "1", "conf": 0.9, "bbox": box})
            write_jpeg(folder / photos / name, half)
            images.append({"file": name, "detections": found})
            if photos == "traps":
                rows.append(f"{name},{'empty' if number % 5 == 4 else SPECIES[side]}")
        categories = {"1": "animal", "2": "person", "3": "vehicle"}
        content = {"info": {"format_version": "1.6"}, "detection_categories": categories, "images": images}
        (folder / results).write_text(json.dumps(content))
    (folder / "species.csv").write_text("\n".join(rows) + "\n")


def copy(source: Path, target: Path) -> Path:
    """A copy that a test may spoil: of a data set or of a run folder."""
    shutil.copytree(source, target)
    return target
