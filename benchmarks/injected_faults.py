"""Labels that are made wrong on purpose, and how well `detpipe labels audit` finds them.

    python benchmarks/injected_faults.py OUT --sets FOLDER --runs DIR [--names cards bccd coco_train] [--seeds 0 1 2]

FOLDER holds the data sets (in VOC's layout, or instances.json and images/), DIR/NAME/rcnn_frozen the run folders of
`detpipe run` on them; for coco_train DIR/coco, with coco_val as test images. Of the labels 5 % are dropped, 5 % get
another class, 5 % are shifted by 30 to 50 % of their size, and 5 % more are invented on the background; no label has
two faults. The corrupted copy is written to OUT/NAME/SEED/data, the audit runs in OUT/NAME/SEED/run with the run's
proposals. For each kind: precision at k (k = number of faults of this kind) and average precision of its ranking,
with 95 % intervals by resampling of the images, the mean of all seeds, beside baselines. Then the calibration of the
audit's scores: the suspects of all seeds in ranges of the score, their mean score, and the share of injected faults.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe import boxes as geometry
from detpipe.commands.features import make_extractor
from detpipe.commands.labels import audit as steps
from detpipe.commands.labels.audit_settings import LabelsAudit
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.labels.cues import FREE, Candidates, ScoredImage, candidates, class_shapes
from detpipe.labels.out_of_fold import score_rows, train_without
from detpipe.labels.regions import Role
from detpipe.labels.suspects import SuspectKind, read_audit
from detpipe.randomness import generator_for
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.run_folder import RunFolder, load_splits
from detpipe.structures import Dataset, Float32Array, GroundTruth, ImageId

SHARE = 0.05
"""Share of the labels with each fault."""
SCORE_RANGES = (0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1)
"""Limits of the ranges in which the audit's scores are compared with the share of faults."""
Key = tuple[Split, ImageId]


@dataclass(frozen=True)
class Fault:
    """A fault that was made. object: the index of the label in the corrupted data set, -1 for a dropped one. box: the
    label's box in it, or the box of the dropped label."""

    key: Key
    kind: SuspectKind
    object: int
    box: tuple[float, float, float, float]

    @property
    def name(self) -> tuple[str, str]:
        """Split and image id as text."""
        return self.key[0].value, str(self.key[1])


def inject(splits: Mapping[Split, Dataset], seed: int) -> tuple[dict[Split, Dataset], list[Fault]]:
    """Return the data set with faults, and the faults. Difficult objects and crowds get none."""
    rng = generator_for(seed, "injected faults")
    truths = {
        (split, record.image_id): (dataset.ground_truth or {})[record.image_id].measured
        for split, dataset in splits.items()
        for record in dataset.records
    }
    sizes = {(split, one.image_id): one.image_size for split, dataset in splits.items() for one in dataset.records}
    usable = [
        (key, row)
        for key, truth in truths.items()
        for row in range(len(truth))
        if not (truth.difficult[row] or truth.crowd[row]) and (truth.boxes[row][2:] - truth.boxes[row][:2]).min() > 1
    ]
    count = round(SHARE * len(usable))
    chosen = [usable[one] for one in rng.permutation(len(usable))[: 3 * count]]
    kinds: dict[tuple[Key, int], SuspectKind] = {
        **dict.fromkeys(chosen[:count], SuspectKind.missing),
        **dict.fromkeys(chosen[count : 2 * count], SuspectKind.wrong_class),
        **dict.fromkeys(chosen[2 * count :], SuspectKind.misplaced),
    }
    n_classes = len(next(iter(splits.values())).classes)
    if n_classes == 1:
        kinds = {name: kind for name, kind in kinds.items() if kind is not SuspectKind.wrong_class}
    keys = list(truths)
    labels = np.concatenate([truth.labels for truth in truths.values()])
    shares = np.concatenate(
        [
            (truth.boxes[:, 2:] - truth.boxes[:, :2]) / np.array(sizes[key][::-1], dtype=np.float32)
            for key, truth in truths.items()
        ]
    )
    invented: dict[Key, list[tuple[Float32Array, int]]] = {}
    made = 0
    for _ in range(200 * count):
        if made == count:
            break
        key = keys[rng.integers(len(keys))]
        drawn = int(rng.integers(len(labels)))
        height, width = sizes[key]
        w, h = np.maximum(shares[drawn] * np.array([width, height]), 4)
        x, y = rng.uniform(0, max(width - w, 1)), rng.uniform(0, max(height - h, 1))
        box = np.array([x, y, x + w, y + h], dtype=np.float32)
        others = [truths[key].boxes, *(one[None] for one, _ in invented.get(key, []))]
        if geometry.iou(box[None], np.concatenate(others)).max(initial=0) < 0.1:
            invented.setdefault(key, []).append((box, int(labels[drawn])))
            made += 1
    faults: list[Fault] = []
    changed: dict[Key, GroundTruth] = {}
    for key, truth in truths.items():
        rows: list[tuple[Float32Array, int, bool, bool]] = []
        for row in range(len(truth)):
            kind, box, label = kinds.get((key, row)), truth.boxes[row].copy(), int(truth.labels[row])
            if (box[2:] - box[:2]).min() <= 1:  # VOC's XML can't have it
                continue
            if kind is SuspectKind.missing:
                faults.append(Fault(key, kind, -1, corners(box)))
                continue
            if kind is SuspectKind.wrong_class:
                label = int(rng.choice([one for one in range(1, n_classes + 1) if one != label]))
            if kind is SuspectKind.misplaced:
                box = shifted(box, sizes[key], rng)
            if kind is not None:
                faults.append(Fault(key, kind, len(rows), corners(box)))
            rows.append((box, label, bool(truth.difficult[row]), bool(truth.crowd[row])))
        for box, label in invented.get(key, []):
            faults.append(Fault(key, SuspectKind.spurious, len(rows), corners(box)))
            rows.append((box, label, False, False))
        boxes = np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
        changed[key] = GroundTruth(
            boxes,
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.bool_),
            np.array([row[3] for row in rows], dtype=np.bool_),
            geometry.area(boxes),
        )
    return {
        split: replace(dataset, ground_truth={one.image_id: changed[(split, one.image_id)] for one in dataset.records})
        for split, dataset in splits.items()
    }, faults


def shifted(box: Float32Array, image_size: tuple[int, int], rng: np.random.Generator) -> Float32Array:
    """The box, shifted by 30 to 50 % of its width or height, or of both by the diagonal, and inside the image."""
    size = box[2:] - box[:2]
    limits = np.array(image_size[::-1], dtype=np.float32)
    for _ in range(50):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5)
        step = np.array([np.cos(angle), np.sin(angle)]) * length * size
        moved = np.concatenate([box[:2] + step, box[2:] + step]).astype(np.float32)
        if (moved[:2] >= 0).all() and (moved[2:] <= limits).all():
            return moved
    return np.asarray(geometry.clip(moved[None], image_size)[0])


def corners(box: Float32Array) -> tuple[float, float, float, float]:
    """A box as plain numbers."""
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


@dataclass(frozen=True)
class Guess:
    """One entry of a ranking. key: split and image id as text. object: of the label; None for a missing one.
    score: the probability of a fault, from the audit only."""

    key: tuple[str, str]
    object: int | None
    box: tuple[float, float, float, float]
    score: float = float("nan")


Ranking = Sequence[Guess]
Rankings = dict[SuspectKind, Ranking]


def hits(ranked: Ranking, faults: Sequence[Fault], kind: SuspectKind) -> list[bool]:
    """Whether each guess, in order, is a fault of this kind. Each fault is hit once; a dropped label by IoU >= 0.5."""
    left: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        if fault.kind is kind:
            left.setdefault(fault.name, []).append(fault)
    found = []
    for one in ranked:
        mine = left.get(one.key, [])
        if kind is SuspectKind.missing:
            box = np.array([one.box], dtype=np.float32)
            ious = [float(geometry.iou(box, np.array([fault.box], dtype=np.float32))[0, 0]) for fault in mine]
            hit = int(np.argmax(ious)) if ious and max(ious) >= 0.5 else None
        else:
            hit = next((row for row, fault in enumerate(mine) if fault.object == one.object), None)
        found.append(hit is not None)
        if hit is not None:
            mine.pop(hit)
    return found


def precision_at(found: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], k: int) -> float:
    """Share of faults among the first k guesses; places that a short list lacks count as wrong. NaN for k = 0.

    counts: how often each guess is there, in a bootstrap sample of the images.
    """
    taken = np.clip(k - (np.cumsum(counts) - counts), 0, counts)
    return float((taken * found).sum() / k) if k else float("nan")


def average_precision(found: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], k: int) -> float:
    """Mean of the precision at each fault that is found, over all k faults. NaN for k = 0."""
    precision = np.cumsum(counts * found) / np.maximum(np.cumsum(counts), 1)
    return float((precision * counts * found).sum() / k) if k else float("nan")


def measured(
    draws: Sequence[tuple[Rankings, Sequence[Fault]]], kind: SuspectKind, *, resamples: int = 1000
) -> dict[str, Any]:
    """Precision at k and average precision of a kind, the mean of the draws, with 95 % intervals over images."""
    names = {guess.key for ranked, _ in draws for guess in ranked[kind]}
    names |= {fault.name for _, faults in draws for fault in faults}
    place = {name: row for row, name in enumerate(sorted(names))}
    parts = []
    for ranked, faults in draws:
        found = np.array(hits(ranked[kind], faults, kind), dtype=np.bool_)
        images = np.array([place[guess.key] for guess in ranked[kind]], dtype=np.int64)
        made = np.array([place[fault.name] for fault in faults if fault.kind is kind], dtype=np.int64)
        parts.append((found, images, made))

    def values(counts: npt.NDArray[np.int64]) -> tuple[float, float]:
        both = []
        for found, images, made in parts:
            k = int(counts[made].sum())
            both.append((precision_at(found, counts[images], k), average_precision(found, counts[images], k)))
        return float(np.mean([one for one, _ in both])), float(np.mean([one for _, one in both]))

    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(place), len(place)) for _ in range(resamples))
    samples = np.array([values(np.bincount(one, minlength=len(place))) for one in drawn])
    at_k, mean = values(np.ones(len(place), dtype=np.int64))
    low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
    return {
        "k": int(np.mean([len(made) for _, _, made in parts])),
        "precision_at_k": [at_k, float(low[0]), float(high[0])],
        "average_precision": [mean, float(low[1]), float(high[1])],
    }


def calibration(draws: Sequence[tuple[Rankings, Sequence[Fault]]]) -> list[tuple[int, float, float]]:
    """For each range of SCORE_RANGES: the suspects of all kinds in it, their mean score, and the share of faults."""
    rankings = [(guesses, faults, kind) for ranked, faults in draws for kind, guesses in ranked.items()]
    scores = np.array([guess.score for guesses, _, _ in rankings for guess in guesses])
    found = np.array([hit for guesses, faults, kind in rankings for hit in hits(guesses, faults, kind)])
    ranges = np.digitize(scores, SCORE_RANGES[1:-1])
    rows = [np.flatnonzero(ranges == one) for one in range(len(SCORE_RANGES) - 1)]
    return [(len(one), float(scores[one].mean()), float(found[one].mean())) for one in rows if len(one)]


def audit_rankings(run_dir: Path) -> Rankings:
    """The rankings of a finished audit."""
    found = read_audit(run_dir / "audit.json").suspects
    return {
        kind: [Guess((one.split, str(one.image)), one.object, one.box, one.score) for one in found if one.kind is kind]
        for kind in SuspectKind
    }


def baselines(config: LabelsAudit, seed: int) -> dict[str, Rankings]:
    """Rankings by a head that was trained on all images, from the features of the audit, and random ones."""
    splits = steps.annotated_splits(config)
    planned = steps.plan_images(config, splits)
    store = steps.make_store(config, make_extractor(steps.features_settings(config)), splits, planned)
    classes = next(iter(splits.values())).classes
    table = steps.region_table(config, store, planned, classes, steps.image_folds(config, planned, len(classes)))
    head = train_without(table, steps.all_targets(config, planned), -1, steps.head_of(config), seed=0, bf16=False)
    images = steps.scored_images(planned, score_rows(head, table, np.arange(len(table.boxes))))
    rng = np.random.default_rng(seed)
    return {
        "in-sample confidence": in_sample(images, len(classes)),
        "unmatched above 0.5": unmatched(images, len(classes), rng),
        "random": at_random(images, len(classes), rng),
    }


def labels_of(image: ScoredImage) -> list[tuple[Guess, int, int]]:
    """The labels of an image that have regions: a guess, the label's index and the row of its box."""
    return [
        (Guess((image.split, str(image.image_id)), label, corners(image.regions.boxes[row])), label, row)
        for row, label in ((row, int(image.regions.owners[row])) for row in image.regions.of(Role.label).tolist())
    ]


def places(image: ScoredImage, classes: int, floor: float) -> tuple[Candidates, list[Guess]]:
    """The candidates of an image, and a guess for each."""
    found = candidates(image, class_shapes([(image.truth, image.image_size)], classes), floor=floor, most=1000)
    return found, [Guess((image.split, str(image.image_id)), None, corners(box)) for box in found.boxes]


def in_sample(images: Sequence[ScoredImage], classes: int) -> Rankings:
    """Labels by the score of their own class, the lowest first; free places by their score, the highest first."""
    labels = [
        (float(image.scores[row, image.truth.labels[label] - 1]), guess)
        for image in images
        for guess, label, row in labels_of(image)
    ]
    ranked = [guess for _, guess in sorted(labels, key=lambda one: one[0])]
    return {**dict.fromkeys(SuspectKind, ranked), SuspectKind.missing: free_places(images, classes, 0.02)}


def free_places(images: Sequence[ScoredImage], classes: int, floor: float) -> list[Guess]:
    """Places without a label, the highest score first."""
    free = []
    for image in images:
        found, guesses = places(image, classes, floor)
        free += [(float(found.scores[row]), guesses[row]) for row in np.flatnonzero(found.matched == FREE)]
    return [guess for _, guess in sorted(free, key=lambda one: -one[0])]


def unmatched(images: Sequence[ScoredImage], classes: int, rng: np.random.Generator) -> Rankings:
    """What a comparison of labels and detections above 0.5 says. Labels without a detection are in random order."""
    kinds: dict[SuspectKind, list[tuple[float, Guess]]] = {kind: [] for kind in SuspectKind}
    for image in images:
        found, guesses = places(image, classes, 0.5)
        for row in np.flatnonzero(found.matched == FREE):
            kinds[SuspectKind.missing].append((float(found.scores[row]), guesses[row]))
        for guess, label, _ in labels_of(image):
            ious = geometry.iou(found.boxes, np.array([guess.box], dtype=np.float32))[:, 0]
            best = int(ious.argmax()) if len(ious) else -1
            if best < 0 or ious[best] < 0.1:
                kinds[SuspectKind.spurious].append((float(rng.random()), guess))
            elif ious[best] < 0.5:
                kinds[SuspectKind.misplaced].append((float(found.scores[best]), guess))
            elif found.labels[best] != image.truth.labels[label]:
                kinds[SuspectKind.wrong_class].append((float(found.scores[best]), guess))
    return {kind: [guess for _, guess in sorted(rows, key=lambda one: -one[0])] for kind, rows in kinds.items()}


def at_random(images: Sequence[ScoredImage], classes: int, rng: np.random.Generator) -> Rankings:
    """Labels, and places without a label, in random order."""
    labels = [guess for image in images for guess, _, _ in labels_of(image)]
    free = free_places(images, classes, 0.02)
    shuffled = [labels[one] for one in rng.permutation(len(labels))]
    return {
        **dict.fromkeys(SuspectKind, shuffled),
        SuspectKind.missing: [free[one] for one in rng.permutation(len(free))],
    }


def source_of(name: str, folder: Path) -> DatasetSource:
    """The data set with this name. coco_train has coco_val beside it, as in its run: COCO's test images."""
    if (folder / name / "instances.json").is_file():
        return coco_source(folder / name / "instances.json", folder / name)
    lists = folder / name / "ImageSets" / "Main"
    return VocSource(root=str(folder / name), train="trainval" if (lists / "trainval.txt").is_file() else "train")


def coco_source(file: Path, original: Path) -> CocoSource:
    """The COCO data set of an annotation file for the images of `original`."""
    test = original.with_name(original.name.replace("train", "val"))
    return CocoSource(
        train_json=str(file),
        train_images=str(original / "images"),
        test_json=str(test / "instances.json"),
        test_images=str(test / "images"),
    )


def write_copy(out: Path, original: Path, splits: Mapping[Split, Dataset]) -> DatasetSource:
    """Write the data set with its faults."""
    shutil.rmtree(out, ignore_errors=True)
    if (original / "instances.json").is_file():
        return write_coco_copy(out, original, splits[Split.train])
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / part).mkdir(parents=True)
    for split, dataset in splits.items():
        for record in dataset.records:
            truth = (dataset.ground_truth or {})[record.image_id]
            shutil.copy(record.path, out / "JPEGImages" / record.path.name)
            file = out / "Annotations" / f"{record.image_id}.xml"
            write_voc_annotation(file, record.path.name, record.image_size, truth, dataset.classes)
        names = "".join(f"{one.image_id}\n" for one in dataset.records)
        list_name = "trainval" if split is Split.train else split.value
        (out / "ImageSets" / "Main" / f"{list_name}.txt").write_text(names)
    return VocSource(root=str(out), train="trainval")


def write_coco_copy(out: Path, original: Path, dataset: Dataset) -> DatasetSource:
    """Write a COCO data set with its faults. Annotations have new ids."""
    content = json.loads((original / "instances.json").read_text())
    rows: list[dict[str, Any]] = []
    for record in dataset.records:
        truth = (dataset.ground_truth or {})[record.image_id]
        for (x1, y1, x2, y2), label, crowd in zip(truth.boxes.tolist(), truth.labels, truth.crowd, strict=True):
            row = {"id": len(rows) + 1, "image_id": record.image_id, "iscrowd": int(crowd)}
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            rows.append({**row, **box, "category_id": dataset.category_ids[label - 1]})
    out.mkdir(parents=True)
    (out / "instances.json").write_text(json.dumps({**content, "annotations": rows}))
    return coco_source(out / "instances.json", original)


def one_draw(arguments: argparse.Namespace, name: str, seed: int) -> tuple[dict[str, Rankings], list[Fault]]:
    """Corrupt, audit and rank. Of COCO only the training images: the others have another file."""
    out = arguments.out / name / str(seed)
    original = source_of(name, arguments.sets)
    audited = [Split.train] if isinstance(original, CocoSource) else list(Split)
    splits = {split: dataset for split, dataset in load_splits(original).items() if split in audited}
    corrupted, faults = inject(splits, seed)
    source = write_copy(out / "data", arguments.sets / name, corrupted)
    run_dir = out / "run"
    if not run_dir.is_dir():
        run_dir.mkdir(parents=True)
        run_of = arguments.runs / name.removesuffix("_train") / arguments.experiment
        shutil.copytree(run_of / "proposals.lmdb", run_dir / "proposals.lmdb")
    keep_dataset(RunFolder(run_dir), source)
    words = [f"splits=[{','.join(split.value for split in audited)}]", "min_score=0", "max_suspects=1000000"]
    begun = time.perf_counter()
    command = [sys.executable, "-m", "detpipe", "labels", "audit", *words, "page.most=0", f"run_dir={run_dir}"]
    subprocess.run([*command, *arguments.settings], check=True, stdout=subprocess.DEVNULL)
    print(f"{name} {seed}: audit in {time.perf_counter() - begun:.0f} s", flush=True)
    found = {"audit": audit_rankings(run_dir)}
    if arguments.baselines:
        found |= baselines(LabelsAudit(run_dir=str(run_dir), splits=audited), seed)
    return found, faults


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--experiment", default="rcnn_frozen")
    parser.add_argument("--names", nargs="+", default=["cards", "bccd", "coco_train"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-baselines", dest="baselines", action="store_false")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    for name in arguments.names:
        draws = [one_draw(arguments, name, seed) for seed in arguments.seeds]
        results = {
            method: {
                kind.value: measured([(ranked[method], faults) for ranked, faults in draws], kind)
                for kind in SuspectKind
            }
            for method in draws[0][0]
        }
        (arguments.out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
        print(f"{name:<11}{'method':<22}{'kind':<13}{'k':>5}  precision at k       average precision")
        for method, kinds in results.items():
            for kind_name, row in kinds.items():
                numbers = "   ".join(
                    "{:.2f} [{:.2f}, {:.2f}]".format(*row[one]) for one in ("precision_at_k", "average_precision")
                )
                print(f"{name:<11}{method:<22}{kind_name:<13}{row['k']:5}  {numbers}", flush=True)
        print(f"{name:<11}suspects   mean score   share of faults")
        for count, score, share in calibration([(ranked["audit"], faults) for ranked, faults in draws]):
            print(f"{name:<11}{count:8}   {score:10.3f}   {share:15.3f}", flush=True)


if __name__ == "__main__":
    main()
