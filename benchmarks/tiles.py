"""Recall of small objects with and without tiles: one trained detector on its test images, tiles only in detection.

    python benchmarks/tiles.py RUN_DIR [--tiles 0 320 240] [--overlap 80] [--small 32] [--both]

RUN_DIR: a run of head=fast_rcnn or multibox_fast_rcnn. Small objects have an area below the square of `small` (32 in
COCO), large ones of at least nine times that. Recall is the share of the objects that a detection of their class (after
the stroke: of any class) finds with an IoU of 0.5; AR is the mean over the IoU thresholds 0.5 to 0.95. Intervals (95 %)
and the difference from the first row: by resampling of the images. Seconds per image: of a whole pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import Split
from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.evaluate import evaluate
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.detector import Detector
from detpipe.runs.kept_dataset import kept_dataset
from detpipe.runs.run_folder import RunFolder
from detpipe.structures import BoolArray, Dataset, Detections, Float64Array, ImageId
from detpipe.tiles import TilesConfig

THRESHOLDS = np.arange(0.5, 1, 0.05)
RESAMPLES = 2000


def main() -> None:
    """Detect with each setting, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--tiles", nargs="+", type=int, default=[0, 320, 240])
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--small", type=float, default=32)
    parser.add_argument("--both", action="store_true", help="also measure tiles without the whole image")
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run_dir)
    source = kept_dataset(folder)
    assert source is not None
    dataset = source.load(Split.test)
    sizes = sizes_of(dataset, arguments.small)
    print(f"{len(dataset)} images; objects: " + ", ".join(f"{name} {rows.sum()}" for name, rows in sizes.items()))
    print("AR (all thresholds) and recall at 0.5 of objects by size; difference of AR from the first row")
    first: Float64Array | None = None
    for size in arguments.tiles:
        overlap = arguments.overlap if size else None
        for whole in (True, False) if size and arguments.both else (True,):
            tiles = TilesConfig(size=size, overlap=overlap, whole=whole)
            config = with_tiles(kept_settings(folder.classifier).detect, tiles)
            found, seconds = detect(arguments.run_dir, config, dataset)
            numbers = evaluate(dataset, found).coco.numbers
            name = "whole image" if not size else f"tiles {size}/{tiles.overlap_pixels}{' and whole' if whole else ''}"
            shown = " ".join(f"{key} {numbers[key]:.3f}" for key in ("AP", "AP50", "APs", "APm", "APl", "ARs", "ARm"))
            print(f"\n{name}: COCO {shown}; {seconds:.2f} s/image", flush=True)
            by_object = found_objects(dataset, found)
            first = by_object if first is None else first
            show(dataset, sizes, by_object, first)


def with_tiles(config: DetectConfig, tiles: TilesConfig) -> DetectConfig:
    """The settings of detection with these tiles."""
    return replace(config, fast_rcnn=replace(config.fast_rcnn, tiles=tiles))


def detect(run_dir: Path, config: DetectConfig, dataset: Dataset) -> tuple[dict[ImageId, Detections], float]:
    """The detections of all images, and the seconds per image."""
    detector = Detector.from_run(run_dir, config=config)
    begun = time.perf_counter()
    images = (detector.with_regions(read_image(record.path, record.options)) for record in dataset.records)
    found = list(detector.predict_many(images))
    ids = [record.image_id for record in dataset.records]
    return dict(zip(ids, found, strict=True)), (time.perf_counter() - begun) / len(ids)


def measured(dataset: Dataset) -> list[tuple[int, ImageId, BoolArray]]:
    """The number and id of each image, and which of its objects are neither difficult nor crowds."""
    truth = dataset.measured_truth
    assert truth is not None
    return [(number, key, ~(one.difficult | one.crowd)) for number, (key, one) in enumerate(truth.items())]


def sizes_of(dataset: Dataset, small: float) -> Mapping[str, BoolArray]:
    """Which of the measured objects have which size."""
    truth = dataset.measured_truth
    assert truth is not None
    areas = np.concatenate([truth[key].areas[used] for _, key, used in measured(dataset)])
    is_small, is_large = areas < small**2, areas >= 9 * small**2
    return {"small": is_small, "medium": ~is_small & ~is_large, "large": is_large}


def found_objects(dataset: Dataset, found: Mapping[ImageId, Detections]) -> Float64Array:
    """(n, 4) for each measured object: AR and recall at 0.5 by its class, and the same by any class."""
    truth = dataset.measured_truth
    assert truth is not None
    rows = []
    for _, key, used in measured(dataset):
        objects, one = truth[key][used], found[key]
        overlaps = geometry.iou(objects.boxes, one.boxes)
        same = objects.labels[:, None] == one.labels
        for best in (np.where(same, overlaps, 0).max(axis=1, initial=0), overlaps.max(axis=1, initial=0)):
            rows.append(np.stack([(best[:, None] >= THRESHOLDS).mean(axis=1), best >= 0.5], axis=1))
    return np.concatenate([np.concatenate(rows[0::2]), np.concatenate(rows[1::2])], axis=1)


def show(dataset: Dataset, sizes: Mapping[str, BoolArray], by_object: Float64Array, first: Float64Array) -> None:
    """Print AR and recall of each size with intervals."""
    bootstrap = ImageBootstrap.draw(len(dataset), RESAMPLES, 0)
    images = np.concatenate([np.full(int(used.sum()), number) for number, _, used in measured(dataset)])
    for name, rows in sizes.items():
        both = np.concatenate([by_object, by_object - first], axis=1)[rows]
        result = bootstrap.means(both, images[rows], np.zeros(int(rows.sum()), dtype=np.int64))
        ar, recall, ar_any, recall_any, change, _, change_any, _ = texts(result)
        print(f"  {name:<7} AR {ar} ({change})  recall {recall}  / AR {ar_any} ({change_any})  recall {recall_any}")


def texts(result: Resampled) -> Sequence[str]:
    """Each number with its interval."""
    low, high = result.interval
    return [f"{value:.3f} [{a:.3f}, {b:.3f}]" for value, a, b in zip(result.value, low, high, strict=True)]


if __name__ == "__main__":
    main()
