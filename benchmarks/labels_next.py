"""`labels next` against random selection: mAP of a head on stored features after each round of labelling.

    python benchmarks/labels_next.py RUN FOLDER [--rounds 5] [--count 20] [--start 60] [--seeds 0 1 2]
        [--strategies next random uncertain disagreement different] [--cache DIR]

RUN: a folder of `detpipe run experiment=rcnn_frozen` on coco_train and coco_val of FOLDER, which is only read. Labels
are hidden and shown again: `start` random training images are labelled at first; each round labels `count` more. `next`
chooses by the code and the default shares of the command; a criterion alone has a share of 1. All strategies of a seed
start with the same images. The features of regions are reduced to 512 principal components (of all training images,
without labels), so that a head trains in seconds; detection is from stored regions. The regions of images whose labels
are hidden are their first 300 proposals. All features are computed once and kept in `cache`. The score threshold is the
one with the best F1 on the test images, as in the command.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from data_sets import data_set, images_of

from detpipe.classify.detect import select_detections
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.geometry import region_geometry
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.features.scorer import score_views, split_views
from detpipe.classify.features.store import FeatureStore, open_store
from detpipe.classify.features.stored_detector import StoredDetector, detect_stored, train_on
from detpipe.classify.kinds import load_classifier
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import Split
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.labels.selection import Criterion, SelectionShares, comparable, select, shares_below
from detpipe.labels.uncertainty import (
    disagreement,
    image_uncertainty,
    objectness_of,
    rank_objectness,
    uncertainties,
)
from detpipe.metrics.operating_point import best_f1
from detpipe.metrics.voc_ap import VocMethod, voc_ap
from detpipe.progress import progress
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.stored_split import open_split
from detpipe.structures import Dataset, Float32Array, ImageId

WIDTH, REGIONS = 512, 300
HEAD = TwoLayersConfig(networks=1, passes=16)
"""More passes than by default: they double the mAP of 60 images, which are few steps of training."""
DETECT = DetectConfig(vote_iou=0.5, max_proposals=REGIONS)


@dataclass(frozen=True, eq=False)
class Pool:
    """The training images as if they had no labels: regions, reduced features, and features of whole images."""

    boxes: dict[ImageId, Float32Array]
    features: dict[ImageId, npt.NDArray[np.float16]]
    wholes: dict[ImageId, Float32Array]


@dataclass(frozen=True, eq=False)
class Data:
    """What all rounds share."""

    train: Dataset
    test: Dataset
    store: FeatureStore
    test_store: FeatureStore
    pool: Pool


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--start", type=int, default=60)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path("labels_next"))
    parser.add_argument("--strategies", nargs="+", default=["next", "random"])
    options = parser.parse_args()
    begun = time.perf_counter()
    data = load(RunFolder(options.run), options.folder, options.cache)
    print(f"prepared in {time.perf_counter() - begun:.0f} s", flush=True)
    results = {}
    for seed in options.seeds:
        start = started(data, seed, options)
        for strategy in options.strategies:
            results[strategy, seed] = rounds_of(data, strategy, seed, start, options)
    show(results, options)
    print(f"{time.perf_counter() - begun:.0f} s in all")


def show(results: dict[tuple[str, int], list[tuple[int, int, float]]], options: argparse.Namespace) -> None:
    """Print a row for each strategy: the mean of the seeds after each round, and the labelled boxes at the end."""
    sizes = [images for images, _, _ in next(iter(results.values()))]
    print("mAP (mean of the seeds)  " + "".join(f"{size:>8}" for size in sizes) + "   boxes at the end")
    for strategy in options.strategies:
        curves = np.array([[value for _, _, value in results[strategy, seed]] for seed in options.seeds])
        boxes = np.mean([results[strategy, seed][-1][1] for seed in options.seeds])
        print(f"{strategy:<25}" + "".join(f"{value:8.3f}" for value in curves.mean(axis=0)) + f"{boxes:12.0f}")
    first = options.strategies[-1] if "random" not in options.strategies else "random"
    for strategy in (one for one in options.strategies if one != first):
        print(f"{strategy} minus {first}, each seed:")
        for seed in options.seeds:
            pairs = zip(results[strategy, seed], results[first, seed], strict=True)
            print(f"  seed {seed:<18}" + "".join(f"{one[2] - other[2]:+8.3f}" for one, other in pairs))


@dataclass(frozen=True, eq=False)
class Round:
    """The state after a round: the labelled images, the head that learned from them, its mAP and score threshold."""

    labelled: list[ImageId]
    detector: StoredDetector
    value: float
    threshold: float


def started(data: Data, seed: int, options: argparse.Namespace) -> Round:
    """The state before the first round, which all strategies of a seed share."""
    ids = [record.image_id for record in data.train.records]
    order = np.random.default_rng(seed).permutation(len(ids))
    return trained(data, [ids[index] for index in order[: options.start]], seed, "start")


def trained(data: Data, labelled: list[ImageId], seed: int, strategy: str) -> Round:
    """Train, evaluate and print."""
    detector = train_on(data.store, labelled, HEAD, seed=seed, bf16=False)
    value, threshold = evaluate(data, detector)
    print(
        f"seed {seed} {strategy:<13} {len(labelled):4d} images {boxes_of(data, labelled):5d} boxes: mAP {value:.3f}",
        flush=True,
    )
    return Round(labelled, detector, value, threshold)


def boxes_of(data: Data, images: Sequence[ImageId]) -> int:
    """The number of objects of some images."""
    assert data.train.ground_truth is not None
    return sum(len(data.train.ground_truth[image]) for image in images)


def rounds_of(
    data: Data, strategy: str, seed: int, now: Round, options: argparse.Namespace
) -> list[tuple[int, int, float]]:
    """(labelled images, labelled boxes, mAP) at the start and after each round."""
    generator = np.random.default_rng([seed, 1])
    rounds = [now]
    for _ in range(options.rounds):
        known = set(now.labelled)
        hidden = [record.image_id for record in data.train.records if record.image_id not in known]
        more = choose(data, now.detector, now.labelled, hidden, strategy, now.threshold, generator, options)
        now = trained(data, [*now.labelled, *more], seed, strategy)
        rounds.append(now)
    return [(len(one.labelled), boxes_of(data, one.labelled), one.value) for one in rounds]


def choose(
    data: Data,
    detector: StoredDetector,
    labelled: Sequence[ImageId],
    hidden: Sequence[ImageId],
    strategy: str,
    threshold: float,
    generator: np.random.Generator,
    options: argparse.Namespace,
) -> list[ImageId]:
    """The images of the next round."""
    if strategy == "random":
        return [hidden[index] for index in generator.permutation(len(hidden))[: options.count]]
    assert data.train.ground_truth is not None
    by_rank = rank_objectness((data.pool.boxes[image], data.train.ground_truth[image]) for image in labelled)
    sizes = {record.image_id: record.image_size for record in data.train.records}
    uncertain, missed, unexpected = [], [], []
    for image in hidden:
        boxes = data.pool.boxes[image]
        geometry = region_geometry(boxes, sizes[image], np.arange(len(boxes)))
        scored = score_views(detector.head, split_views(data.pool.features[image], geometry, (False,)))
        found = select_detections(boxes, scored, sizes[image], DETECT)
        uncertain.append(image_uncertainty(uncertainties(found, threshold)))
        one = disagreement(boxes, scored.probabilities[:, 0], objectness_of(by_rank, len(boxes)), found, threshold)
        missed.append(one.missed)
        unexpected.append(one.unexpected)
    scores = {
        Criterion.uncertain: np.array(uncertain),
        Criterion.disagreement: np.maximum(shares_below(np.array(missed)), shares_below(np.array(unexpected))),
    }
    wholes = data.pool.wholes
    before, own = comparable(
        np.stack([wholes[image] for image in labelled]), np.stack([wholes[image] for image in hidden])
    )
    nothing = {one.value: 0.0 for one in Criterion}
    shares = SelectionShares() if strategy == "next" else SelectionShares(**{**nothing, strategy: 1.0})
    chosen = select(scores, own, before, count=options.count, shares=shares, generator=generator)
    return [hidden[one.index] for one in chosen]


def evaluate(data: Data, detector: StoredDetector) -> tuple[float, float]:
    """VOC10 mAP@0.5 on the test images, and the score with the best F1."""
    found = {image: one for image, (one,) in detect_stored([detector], data.test_store, data.test.records, DETECT)}
    truth = data.test.measured_truth
    assert truth is not None
    point = best_f1(truth, found)
    value = voc_ap(truth, found, data.test.classes, method=VocMethod.VOC10).map
    return value, min(max(point.score, 1e-3), 1 - 1e-3) if point is not None else 0.5


def load(folder: RunFolder, data: Path, cache: Path) -> Data:
    """Read the run, reduce its features, and compute what the cache lacks of the hidden images' regions."""
    train, test = (images_of(data_set("coco", data), split) for split in (Split.train, Split.test))
    store, test_store = open_store(folder.features(Split.train)), open_store(folder.features(Split.test))
    stored = open_split(folder.proposals, Split.train, train)
    boxes = {record.image_id: found.proposals.boxes[:REGIONS] for record, found in stored.read() if found is not None}
    train = replace(train, records=tuple(one for one in train.records if one.image_id in boxes))
    if not (cache / "wholes.npy").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        make_cache(cache, folder, train, boxes, store, test_store)
    kept = {name: np.load(cache / f"{name}.npy") for name in ("train", "test", "pool", "wholes")}
    ends = np.cumsum([0, *(len(boxes[record.image_id]) for record in train.records)])
    pairs = zip(train.records, ends[:-1], ends[1:], strict=True)
    pool = Pool(
        boxes,
        {record.image_id: kept["pool"][start:end] for record, start, end in pairs},
        {record.image_id: whole for record, whole in zip(train.records, kept["wholes"], strict=True)},
    )
    return Data(train, test, replace(store, features=kept["train"]), replace(test_store, features=kept["test"]), pool)


def make_cache(
    cache: Path,
    folder: RunFolder,
    train: Dataset,
    boxes: dict[ImageId, Float32Array],
    store: FeatureStore,
    test_store: FeatureStore,
) -> None:
    """Write the reduced features of both stores and of the hidden regions, and the features of whole images."""
    width = store.features.shape[1] // 2
    mean, basis = components(store, width)

    def reduced(features: np.ndarray) -> np.ndarray:
        return ((torch.from_numpy(features.astype(np.float32)) - mean) @ basis).numpy().astype(np.float16)

    for name, one in (("train", store), ("test", test_store)):
        parts = []
        for rows in np.array_split(np.arange(len(one)), max(len(one) // 4096, 1)):
            both = np.asarray(one.features[rows[0] : rows[-1] + 1])
            parts.append(np.concatenate([reduced(both[:, :width]), reduced(both[:, width:])], axis=1))
        np.save(cache / f"{name}.npy", np.concatenate(parts))
    network, spec = load_classifier(folder.classifier)
    assert isinstance(network, FeatureClassifier)
    assert isinstance(spec, FeatureClassifierSpec)
    config = replace(spec.features, mirrored=False)
    extractor = RegionFeatures(
        network.backbone, spec.crops, config, device=torch.device("cpu"), bf16=bool(spec.extraction["bf16"])
    )
    images = (
        (read_image(record.path, record.options), boxes[record.image_id])
        for record in progress(train.records, "features", total=len(train), unit="images")
    )
    regions, wholes = [], []
    # The first side's last columns are the mean of the last map over the image.
    whole = slice(width // 2 - 320, width // 2)
    for found in extractor.features(images):
        regions.append(reduced(found))
        wholes.append(found[0, whole])
    np.save(cache / "pool.npy", np.concatenate(regions))
    np.save(cache / "wholes.npy", np.stack(wholes))


def components(store: FeatureStore, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and principal components (D, WIDTH) of standardised columns of some of the rows."""
    rows = np.random.default_rng(0).permutation(len(store))[:12000]
    features = torch.from_numpy(store.features[np.sort(rows)][:, :width].astype(np.float32))
    mean, scale = features.mean(dim=0), 1 / features.std(dim=0).clamp(min=1e-4)
    centred = (features - mean) * scale
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return mean, scale[:, None] * vectors[:, -WIDTH:]


if __name__ == "__main__":
    main()
