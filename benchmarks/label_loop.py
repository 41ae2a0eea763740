"""One complete loop: wrong labels, an audit, true answers on the first suspects, and a head that is trained again.

    python benchmarks/label_loop.py OUT --run DIR [--share 0.1] [--answers 100] [--seeds 0 1 2] [key=value ...]

DIR is a run folder with stored features, which is only read. key=value are the settings that it was made with, as
experiment=rcnn_frozen; `dataset` and `run_dir` are not needed. Of the training labels, `share` get a fault:
a quarter each is dropped, gets another class, is shifted by 30 to 50 % of its size, or is invented.
The labels of the test images stay. Each of the first suspects gets the answer of a person who knows the true labels:
the fault that the suspect shows is mended, anything else stays. The random answers look at as many labels by chance.
Printed for each seed: VOC10 mAP@0.5 on the test images with clean labels, with faults, after the answers and after
random answers, with 95 % intervals of the gain by resampling of the images, and the seconds of each step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detpipe import boxes as geometry
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.labels.corrections import Action, Correction, Corrections, write_corrections
from detpipe.labels.suspects import Suspect, SuspectKind, read_audit
from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.randomness import generator_for
from detpipe.runs.kept_dataset import kept_dataset
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import RunFolder, load_splits
from detpipe.structures import Dataset, GroundTruth, ImageId

Box = tuple[float, float, float, float]


@dataclass
class Faulty:
    """The faults of one image. kinds: of each label after the injection, None for a right one. originals: the index of
    the true object of each label, -1 for an invented one. dropped: indices of the true objects without a label."""

    kinds: list[SuspectKind | None]
    originals: list[int]
    dropped: list[int] = field(default_factory=list)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    settings = [word for word in sys.argv[1:] if "=" in word]  # also behind an option that takes several words
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in settings])
    source = kept_dataset(RunFolder(arguments.run))
    if source is None:
        raise ValueError(f"--run: expected a run folder with dataset.json, got {arguments.run}")
    splits = load_splits(source)
    test = splits[Split.test]
    for seed in arguments.seeds:
        folder = arguments.out / f"seed_{seed}"
        seconds: dict[str, float] = {}
        some, faulty = inject(splits[Split.train], arguments.share, seed)
        corrections = folder / "faults.json"
        write_corrections(corrections, Corrections(dataset=labels_digest(splits), corrections=some))
        faults = Counter(kind for one in faulty.values() for kind in one.kinds if kind is not None)
        faults[SuspectKind.missing] = sum(len(one.dropped) for one in faulty.values())
        before = folder / "faulty"
        call(["labels", "apply", f"corrections={corrections}", f"run_dir={arguments.run}", f"out={before}"])
        call(["run", f"run_dir={before / 'run'}", *settings], seconds, "train on faulty labels")
        call(["labels", "audit", f"run_dir={before / 'run'}", "splits=[train]"], seconds, "audit")
        suspects = read_audit(before / "run" / "audit.json").suspects
        wrong = kept_dataset(RunFolder(before / "run"))
        assert wrong is not None
        digest = labels_digest(load_splits(wrong))
        truth = splits[Split.train].measured_truth
        assert truth is not None
        chosen = suspects[: arguments.answers]
        classes = test.classes
        answered = {
            "answers": answers(chosen, truth, classes, faulty),
            "random": by_chance(truth, classes, faulty, len(chosen), seed),
        }
        by_kind = ", ".join(f"{count} {kind.value}" for kind, count in faults.items())
        print(f"seed {seed}: {sum(faults.values())} faults ({by_kind})", flush=True)
        for name, mended in answered.items():
            path, after = folder / f"{name}.json", folder / name
            write_corrections(path, Corrections(dataset=digest, corrections=mended))
            print(f"  {name}: {len(chosen)} looked at, {len(mended)} faults mended")
            timed = seconds if name == "answers" else None
            call(
                ["labels", "apply", f"corrections={path}", f"run_dir={before / 'run'}", f"out={after}"], timed, "apply"
            )
            call(["run", f"run_dir={after / 'run'}", *settings], timed, "train again")
        runs = {"clean": arguments.run, "faulty": before / "run", **{name: folder / name / "run" for name in answered}}
        resampled = {name: voc10(run, test) for name, run in runs.items()}
        wrong_map = resampled["faulty"]
        for name, one in resampled.items():
            gain = one.value[0] - wrong_map.value[0]
            low, high = np.nanquantile(one.samples[:, 0] - wrong_map.samples[:, 0], [0.025, 0.975])
            print(f"  {name:<8} mAP {one.value[0]:.3f}   gain {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
        print("  seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()), flush=True)


def call(words: Sequence[str], seconds: dict[str, float] | None = None, name: str = "") -> None:
    """Run a command, and add its time. Raises CalledProcessError with what it printed."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "detpipe", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"detpipe {' '.join(words)}: {done.stderr[-2000:]}")
    if seconds is not None:
        seconds[name] = time.perf_counter() - begun


def inject(train: Dataset, share: float, seed: int) -> tuple[list[Correction], dict[ImageId, Faulty]]:
    """Return the faults of the training labels as corrections, and what each label is after them."""
    generator = generator_for(seed, "label loop")
    truth = train.measured_truth
    assert truth is not None
    sizes = {record.image_id: record.image_size for record in train.records}
    objects = [(image, index) for image, one in truth.items() for index in range(len(one)) if not one.crowd[index]]
    count = round(share * len(objects) / 4)
    chosen = [objects[row] for row in generator.permutation(len(objects))[: 3 * count]]
    kinds = [SuspectKind.missing] * count + [SuspectKind.wrong_class] * count + [SuspectKind.misplaced] * count
    made = dict(zip(chosen, kinds, strict=True))
    corrections: list[Correction] = []
    faulty: dict[ImageId, Faulty] = {}
    for image, one in truth.items():
        rows = [(index, made.get((image, index))) for index in range(len(one))]
        left = [(index, kind) for index, kind in rows if kind is not SuspectKind.missing]
        faulty[image] = Faulty(
            kinds=[kind for _, kind in left],
            originals=[index for index, _ in left],
            dropped=[index for index, kind in rows if kind is SuspectKind.missing],
        )
        for index, kind in rows:
            name = train.classes[one.labels[index] - 1]
            if kind is SuspectKind.missing:
                corrections.append(Correction(image=image, action=Action.remove, object=index, split="train"))
            elif kind is SuspectKind.wrong_class:
                other = str(generator.choice([label for label in train.classes if label != name]))
                corrections.append(
                    Correction(image=image, action=Action.change, object=index, label=other, split="train")
                )
            elif kind is SuspectKind.misplaced:
                box = shifted(one.boxes[index], sizes[image], generator)
                corrections.append(Correction(image=image, action=Action.change, object=index, box=box, split="train"))
    images = list(truth)
    while count:
        image, like = images[generator.integers(len(images))], objects[generator.integers(len(objects))]
        height, width = sizes[image]
        side = truth[like[0]].boxes[like[1]][2:] - truth[like[0]].boxes[like[1]][:2]
        x, y = (
            generator.uniform(0, max(limit - length, 1)) for limit, length in zip((width, height), side, strict=True)
        )
        drawn = np.array([[x, y, min(x + side[0], width), min(y + side[1], height)]], np.float32)
        if geometry.iou(drawn, truth[image].boxes).max(initial=0) >= 0.1 or -1 in faulty[image].originals:
            continue
        label = train.classes[truth[like[0]].labels[like[1]] - 1]
        corrections.append(Correction(image=image, action=Action.add, box=plain(drawn[0]), label=label, split="train"))
        faulty[image].kinds.append(SuspectKind.spurious)
        faulty[image].originals.append(-1)
        count -= 1
    return corrections, faulty


def shifted(box: np.ndarray, size: tuple[int, int], generator: np.random.Generator) -> Box:
    """The box, moved by 30 to 50 % of its size in a random direction, and clipped to the image."""
    angle, length = generator.uniform(0, 2 * np.pi), generator.uniform(0.3, 0.5)
    step = np.array([np.cos(angle), np.sin(angle)]) * length * (box[2:] - box[:2])
    moved = np.concatenate([box[:2] + step, box[2:] + step])[None].astype(np.float32)
    return plain(geometry.clip(moved, size)[0])


def plain(box: np.ndarray) -> Box:
    """A box as numbers."""
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def answers(
    suspects: Sequence[Suspect],
    truth: Mapping[ImageId, GroundTruth],
    classes: Sequence[str],
    faulty: Mapping[ImageId, Faulty],
) -> list[Correction]:
    """What a person who knows the true labels corrects on looking at the suspects: each fault once."""
    found: dict[tuple[ImageId, int], Correction] = {}
    for one in suspects:
        fault, true = faulty[one.image], truth[one.image]
        if one.object is not None:
            mended = mend(one.image, one.object, fault, true, classes)
            if mended is not None:
                found[one.image, one.object] = mended
            continue
        overlaps = geometry.iou(np.array([one.box], np.float32), true.boxes[fault.dropped])[0]
        if overlaps.max(initial=0) >= 0.5:
            found.setdefault(*add(one.image, fault.dropped[int(overlaps.argmax())], true, classes))
    return list(found.values())


def by_chance(
    truth: Mapping[ImageId, GroundTruth],
    classes: Sequence[str],
    faulty: Mapping[ImageId, Faulty],
    count: int,
    seed: int,
) -> list[Correction]:
    """What a person corrects on looking at `count` labels, or places of dropped ones, drawn at random."""
    places = [(image, row, False) for image, one in faulty.items() for row in range(len(one.kinds))]
    places += [(image, index, True) for image, one in faulty.items() for index in one.dropped]
    order = generator_for(seed, "random answers").permutation(len(places))[:count]
    found = []
    for image, row, is_dropped in (places[number] for number in order):
        if is_dropped:
            found.append(add(image, row, truth[image], classes)[1])
        elif (mended := mend(image, row, faulty[image], truth[image], classes)) is not None:
            found.append(mended)
    return found


def mend(image: ImageId, row: int, fault: Faulty, true: GroundTruth, classes: Sequence[str]) -> Correction | None:
    """The correction of a label; None for a right one."""
    kind, index = fault.kinds[row], fault.originals[row]
    if kind is None:
        return None
    if kind is SuspectKind.spurious:
        return Correction(image=image, action=Action.remove, object=row, split="train")
    name, box = classes[true.labels[index] - 1], plain(true.boxes[index])
    return Correction(image=image, action=Action.change, object=row, label=name, box=box, split="train")


def add(
    image: ImageId, index: int, true: GroundTruth, classes: Sequence[str]
) -> tuple[tuple[ImageId, int], Correction]:
    """A key for an object that was dropped, and the correction that brings it back."""
    name, box = classes[true.labels[index] - 1], plain(true.boxes[index])
    return (image, -1 - index), Correction(image=image, action=Action.add, label=name, box=box, split="train")


def voc10(run: Path, test: Dataset) -> Resampled:
    """VOC10's mAP@0.5 on the test images, and of 1000 resamples of the images, which are paired between runs."""
    assert test.measured_truth is not None
    detections = read_detections(run / "detections.json", test)
    return resampled_map(test.measured_truth, detections, test.classes, resamples=1000, seed=0)


if __name__ == "__main__":
    main()
