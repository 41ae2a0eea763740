"""COCO's images of VOC's 20 classes as a VOC folder to train on, with the test images of a real one.

    python benchmarks/voc20_data.py OUT --coco DIR DIR --voc DIR

Each COCO folder has images/ and instances.json, the VOC folder JPEGImages and Annotations. OUT gets links to the
images, the COCO objects under VOC's names as XML, and two lists: trainval (COCO's images that hold one of the 20
classes) and test (VOC's).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detpipe.datasets.coco import CocoSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource, write_voc_annotation
from detpipe.structures import Dataset, ImageRecord

VOC_NAMES = {
    "airplane": "aeroplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "dining table": "diningtable", "dog": "dog",
    "horse": "horse", "motorcycle": "motorbike", "person": "person", "potted plant": "pottedplant", "sheep": "sheep",
    "couch": "sofa", "train": "train", "tv": "tvmonitor",
}  # fmt: skip
"""COCO's name -> VOC's."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--coco", type=Path, nargs="+", required=True)
    parser.add_argument("--voc", type=Path, required=True)
    options = parser.parse_args()
    train, test = make_folder(options.out, options.coco, options.voc)
    print(f"{options.out}: {train} images to train on, {test} to test on")


def make_folder(out: Path, coco: Sequence[Path], voc: Path) -> tuple[int, int]:
    """Write OUT; returns the numbers of its training and test images. Raises FileExistsError where OUT is there."""
    out.mkdir(parents=True)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (out / name).mkdir(parents=True)
    trained = [name for folder in coco for name in add_coco(out, folder)]
    tested = add_voc(out, voc)
    for split, names in (("trainval", trained), ("test", tested)):
        (out / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return len(trained), len(tested)


def add_coco(out: Path, folder: Path) -> list[str]:
    """The images of a COCO folder that hold an object of the 20 classes, crowds not counted; returns their names."""
    source = CocoSource(
        train_json=str(folder / "instances.json"), train_images=str(folder / "images"), classes=list(VOC_NAMES)
    )
    dataset = source.load(Split.train)
    assert dataset.ground_truth is not None
    names = []
    for record in dataset.records:
        truth = dataset.ground_truth[record.image_id]
        # VOC's integers can't say a box of a pixel.
        truth = truth[np.asarray((truth.boxes[:, 2:] - truth.boxes[:, :2] > 1).all(axis=1))]
        if (~truth.crowd).any():
            name = f"coco_{record.path.stem}"
            link(out, name, record)
            file = f"{name}{record.path.suffix}"
            classes = [VOC_NAMES[one] for one in dataset.classes]
            write_voc_annotation(out / "Annotations" / f"{name}.xml", file, record.image_size, truth, classes)
            names.append(name)
    return names


def add_voc(out: Path, folder: Path) -> list[str]:
    """All images of a VOC folder with their annotations as they are; returns their names."""
    source = VocSource(root=str(folder))
    records: list[ImageRecord] = []
    for split in (Split.train, Split.test):
        dataset: Dataset = source.load(split)
        records += [replace(record, image_id=record.path.stem) for record in dataset.records]
    for record in records:
        link(out, record.path.stem, record)
        xml = (folder / "Annotations" / f"{record.path.stem}.xml").read_bytes()
        (out / "Annotations" / f"{record.path.stem}.xml").write_bytes(xml)
    return sorted(record.path.stem for record in records)


def link(out: Path, name: str, record: ImageRecord) -> None:
    """The image under that name: a link, which costs nothing."""
    (out / "JPEGImages" / f"{name}{record.path.suffix}").symlink_to(record.path.resolve())


if __name__ == "__main__":
    main()
