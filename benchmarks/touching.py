"""Objects that touch another of their class, and all others: recall and AP with bootstrap intervals.

    python benchmarks/touching.py runs/cards/attention runs/cards/plain [--touching 0.2] [--resamples 1000] [--seed 0]

An object touches if its IoU with another object of its class in the image is at least `--touching`. Each detector is
measured on the test images of its run with its kept detection settings: with NMS; and, if it has head.attention, with
learned duplicates and with both. The same weights are used, and nothing is written into the run. AP is VOC 2010's, the
mean over classes at IoU 0.5. For the one group the objects of the other are difficult: a detection of them counts
neither as right nor as wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from detpipe import boxes as geometry
from detpipe.classify.settings import DetectConfig, Duplicates
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import Split
from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.metrics.matching import match_detections
from detpipe.progress import progress
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.detector import Detector
from detpipe.runs.kept_dataset import kept_dataset
from detpipe.runs.run_folder import RunFolder
from detpipe.structures import BoolArray, Dataset, Detections, GroundTruth, ImageId

GROUPS = ("touching", "others", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--touching", type=float, default=0.2, help="smallest IoU with an object of the same class")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| run | duplicates | objects | number | recall | mAP@0.5 |\n|---|---|---|---|---|---|")
    for run in options.runs:
        source = kept_dataset(RunFolder(run))
        if source is None:
            raise SystemExit(f"{run}: expected a run that remembers its data set, got none; run `detpipe run` again")
        dataset = source.load(Split.test)
        truth = dataset.measured_truth
        if truth is None:
            raise SystemExit(f"{run}: expected annotated test images, got none")
        config = kept_settings(RunFolder(run).classifier).detect
        groups = {group: group_of(truth, group, options.touching) for group in GROUPS}
        for duplicates in modes(run, config):
            found = detections_of(run, with_duplicates(config, duplicates), dataset)
            for group, own in groups.items():
                number = sum(int((~one.difficult & ~one.crowd).sum()) for one in own.values())
                recalled = recall(own, found, options.resamples, options.seed)
                ap = resampled_map(own, found, dataset.classes, resamples=options.resamples, seed=options.seed)
                row = (run, duplicates.value, group, number, shown(recalled), shown(ap))
                print(f"| {' | '.join(map(str, row))} |", flush=True)


def shown(one: Resampled) -> str:
    """0.812 [0.771, 0.850]."""
    return f"{one.value[0]:.3f} [{one.interval[0][0]:.3f}, {one.interval[1][0]:.3f}]"


def modes(run: Path, config: DetectConfig) -> list[Duplicates]:
    """All of them if the network has learned which boxes are duplicates, else NMS."""
    network = Detector.from_run(run, config=with_duplicates(config, Duplicates.nms)).scorer.network
    return list(Duplicates) if getattr(network, "attention", None) is not None else [Duplicates.nms]


def with_duplicates(config: DetectConfig, duplicates: Duplicates) -> DetectConfig:
    """The settings of detection with this way to reduce several boxes of an object to one."""
    return replace(config, fast_rcnn=replace(config.fast_rcnn, duplicates=duplicates))


def touching(truth: GroundTruth, least: float) -> BoolArray:
    """(G,) whether each object's IoU with another of its class is at least `least`. Crowds touch nothing."""
    overlaps = geometry.iou(truth.boxes, truth.boxes)
    np.fill_diagonal(overlaps, 0)
    same = (truth.labels[:, None] == truth.labels) & ~truth.crowd & ~truth.crowd[:, None]
    found: BoolArray = (same & (overlaps >= least)).any(axis=1)
    return found


def group_of(truth: Mapping[ImageId, GroundTruth], group: str, least: float) -> dict[ImageId, GroundTruth]:
    """The objects, of which those outside the group are difficult."""
    if group == "all":
        return dict(truth)
    outside = {
        key: ~touching(one, least) if group == "touching" else touching(one, least) for key, one in truth.items()
    }
    return {key: replace(one, difficult=one.difficult | outside[key]) for key, one in truth.items()}


def detections_of(run: Path, config: DetectConfig, dataset: Dataset) -> dict[ImageId, Detections]:
    """The detections of all images."""
    detector = Detector.from_run(run, config=config)
    records = progress(dataset.records, config.fast_rcnn.duplicates.value, total=len(dataset.records), unit="images")
    images = (detector.with_regions(read_image(record.path, record.options)) for record in records)
    ids = [record.image_id for record in dataset.records]
    return dict(zip(ids, detector.predict_many(images), strict=True))


def recall(
    truth: Mapping[ImageId, GroundTruth], found: Mapping[ImageId, Detections], resamples: int, seed: int
) -> Resampled:
    """The share of the objects that have a detection of their class with an IoU of at least 0.5."""
    values, images = [], []
    for index, (key, one) in enumerate(truth.items()):
        counted = ~one.difficult & ~one.crowd
        values.append(match_detections(one, found[key]).found(one)[counted])
        images.append(np.full(int(counted.sum()), index, dtype=np.int64))
    every = np.concatenate(values)[:, None].astype(np.float64)
    bootstrap = ImageBootstrap.draw(len(truth), resamples, seed)
    return bootstrap.means(every, np.concatenate(images), np.zeros(len(every), dtype=np.int64))


if __name__ == "__main__":
    main()
