"""The 20 VOC classes learnt from few COCO images, by stored features: mean AP on VOC images, and where the time goes.

    python benchmarks/voc20.py OUT --coco DIR DIR --voc DIR [--seeds 3] [key=value ...]

Each COCO folder has images/ and instances.json, the VOC folder JPEGImages and Annotations. OUT/data gets links to the
images, COCO's objects under VOC's names as XML, and two lists: trainval (COCO's images that hold one of the 20 classes)
and test (VOC's). Then `detpipe run experiment=rcnn_frozen key=value ...` for each seed, in run folders OUT/0, OUT/1 ..:
VOC10 AP@0.5, its median and spread, an interval by resampling of the test images, seconds by stage.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detpipe.datasets.coco import CocoSource
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord

RESAMPLES = 500
VOC_NAMES = {
    "airplane": "aeroplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "dining table": "diningtable", "dog": "dog",
    "horse": "horse", "motorcycle": "motorbike", "person": "person", "potted plant": "pottedplant", "sheep": "sheep",
    "couch": "sofa", "train": "train", "tv": "tvmonitor",
}  # fmt: skip
"""COCO's name -> VOC's."""


def main() -> None:
    """Make the folder, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--coco", type=Path, nargs="+", required=True)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_intermixed_args()
    data = options.out / "data"
    if not data.is_dir():
        train, test = make_folder(data, options.coco, options.voc)
        print(f"{data}: {train} images to train on, {test} to test on")
    values = [measure(data, options.out / str(seed), seed, options.settings) for seed in range(options.seeds)]
    print(f"median {statistics.median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")


def measure(data: Path, run_dir: Path, seed: int, settings: Sequence[str]) -> float:
    """One run; prints its line and returns its mean AP."""
    dataset = ["dataset=voc", f"dataset.root={data}", "dataset.outside=true"]  # the images are links
    command = ["run", *dataset, "experiment=rcnn_frozen", f"run_dir={run_dir}"]
    subprocess.run([sys.executable, "-m", "detpipe", *command, f"seed={seed}", *settings], check=True)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    low, high = interval(VocSource(root=str(data), outside=True).load(Split.test), run_dir / "detections.json")
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in metrics["seconds"].items())
    value = float(metrics["voc10"]["map"])
    print(f"seed {seed}: mAP {value:.3f} [{low:.3f}, {high:.3f}], AP75 {metrics['coco']['AP75']:.3f}; {seconds} s")
    return value


def interval(dataset: Dataset, detections: Path) -> tuple[float, float]:
    """The middle 95 % of the mean AP over resamples of the images."""
    found, truth = read_detections(detections, dataset), dataset.ground_truth
    assert truth is not None
    ids = [record.image_id for record in dataset.records]
    generator = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = dict(enumerate(ids[place] for place in generator.integers(len(ids), size=len(ids))))
        sample: dict[ImageId, Detections] = {place: found[name] for place, name in drawn.items()}
        objects: dict[ImageId, GroundTruth] = {place: truth[name] for place, name in drawn.items()}
        values.append(voc_ap(objects, sample, dataset.classes, method=VocMethod.VOC10).map)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


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
        train_json=str(folder / "instances.json"),
        train_images=str(folder / "images"),
        classes=list(VOC_NAMES),
        test_share=0,  # no image of the folder is for testing
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
