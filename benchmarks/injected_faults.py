"""Labels that are made wrong on purpose, and how well `detpipe labels audit` finds them.

    python benchmarks/injected_faults.py OUT --sets FOLDER --runs DIR [--names cards bccd coco_train] [--seeds 0 1 2]

FOLDER holds the data sets, DIR/NAME the run folders of `detpipe run` on them. Of the labels 5 % are dropped, 5 % get
another class, 5 % are shifted by 30 to 50 % of their size, and 5 % more are invented on the background; no label has
two faults. The corrupted copy is written to OUT/NAME/SEED/data, the audit runs in OUT/NAME/SEED/run with the run's
proposals. For each kind: precision at k (k = number of faults of this kind) and average precision of its ranking, with
95 % intervals by resampling of the images, beside baselines. All seeds of a set are pooled in its last rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe import boxes as geometry
from detpipe.datasets.source import Split
from detpipe.labels.suspects import Suspect, SuspectKind
from detpipe.randomness import generator_for
from detpipe.structures import Dataset, GroundTruth, ImageId

SHARE = 0.05
"""Share of the labels with each fault."""
Key = tuple[Split, ImageId]


@dataclass(frozen=True)
class Fault:
    """A fault that was made. object: the index of the label in the corrupted data set, -1 for a dropped one. box: the
    label's box in it, or that of the dropped label."""

    key: Key
    kind: SuspectKind
    object: int
    box: tuple[float, float, float, float]


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
        if not (truth.difficult[row] or truth.crowd[row]) and geometry.area(truth.boxes[row][None])[0] > 1
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
    invented: dict[Key, list[tuple[np.ndarray, int]]] = {}
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
        rows: list[tuple[np.ndarray, int, bool, bool]] = []
        for row in range(len(truth)):
            kind, box, label = kinds.get((key, row)), truth.boxes[row].copy(), int(truth.labels[row])
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


def shifted(box: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The box, shifted by 30 to 50 % of its width or height, or of both by the diagonal, and inside the image."""
    size = box[2:] - box[:2]
    limits = np.array(image_size[::-1], dtype=np.float32)
    for _ in range(50):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.5)
        step = np.array([np.cos(angle), np.sin(angle)]) * length * size
        moved = np.concatenate([box[:2] + step, box[2:] + step]).astype(np.float32)
        if (moved[:2] >= 0).all() and (moved[2:] <= limits).all():
            return moved
    return geometry.clip(moved[None], image_size)[0]


def corners(box: np.ndarray) -> tuple[float, float, float, float]:
    """A box as plain numbers."""
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def hits(ranked: Sequence[Suspect], faults: Sequence[Fault], kind: SuspectKind) -> list[bool]:
    """Whether each suspect of a kind, in order, is a fault of this kind. Each fault is hit once."""
    left = {}
    for fault in faults:
        if fault.kind is kind:
            left.setdefault((fault.key[0].value, str(fault.key[1])), []).append(fault)
    found = []
    for one in ranked:
        if one.kind is not kind:
            continue
        mine = left.get((one.split, str(one.image)), [])
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


def precision_at(found: Sequence[bool], k: int) -> float:
    """Share of faults among the first k suspects; missing places of a short list count as wrong. NaN for k = 0."""
    return sum(found[:k]) / k if k else float("nan")


def average_precision(found: Sequence[bool], k: int) -> float:
    """Mean of the precision at each fault that is found, over all k faults. NaN for k = 0."""
    hit = np.flatnonzero(found)
    return float(((np.arange(len(hit)) + 1) / (hit + 1)).sum() / k) if k else float("nan")
