"""`detpipe run` on real data sets: mAP, recall of the proposals, seconds by stage; of several seeds also the median.

    python benchmarks/data_sets.py FOLDER [--sets raccoon bccd coco] [--seeds 0 1 2] [--runs DIR] [key=value ...]

FOLDER holds raccoon/ and bccd/ in VOC's layout, coco_train/ and coco_val/ with instances.json and images/. key=value
are settings of `detpipe run`, as experiment=fast_rcnn. A run that is there already is read, not made again. The
interval is of VOC10's mAP@0.5, by resampling of the images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detpipe.datasets import load_dataset
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.metrics.map_bootstrap import resampled_map
from detpipe.structures import Dataset


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["raccoon", "bccd", "coco"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    overrides = [word for word in sys.argv[1:] if "=" in word]  # also behind an option that takes several words
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    print("set      seed  VOC10 mAP  [95 % interval]   COCO AP   AP50   AP75  R@.5/1000     all  seconds by stage")
    for name in arguments.sets:
        rows = []
        for seed in arguments.seeds:
            run_dir = arguments.runs / name / f"seed_{seed}"
            settings = [*data_set(name, arguments.folder), f"run_dir={run_dir}", f"seed={seed}"]
            subprocess.run([sys.executable, "-m", "detpipe", "run", *settings, *overrides], check=True)
            rows.append(show(name, seed, run_dir, arguments.folder))
        if len(rows) > 1:
            print(f"{name:<9}median [least, greatest] of VOC10 mAP, COCO AP, AP50, AP75, seconds:")
            columns = zip(*rows, strict=True)
            print("  ".join(f"{statistics.median(one):.3f} [{min(one):.3f}, {max(one):.3f}]" for one in columns))


def show(name: str, seed: int, run_dir: Path, folder: Path) -> tuple[float, ...]:
    """Print a finished run; VOC10 mAP, COCO AP, AP50, AP75 and the seconds of all stages."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    recall = json.loads((run_dir / "recall.json").read_text())["1000"]["recall@0.5"]
    coco, seconds = metrics["coco"], metrics["seconds"]
    low, high = interval(name, run_dir, folder)
    stages = ", ".join(f"{stage} {taken:.0f}" for stage, taken in seconds.items())
    print(
        f"{name:<9}{seed:4d}{metrics['voc10']['map']:11.3f}   [{low:.3f}, {high:.3f}]{coco['AP']:10.3f}"
        f"{coco['AP50']:7.3f}{coco['AP75']:7.3f}{recall:11.3f}{sum(seconds.values()):8.0f}  {stages}",
        flush=True,
    )
    return metrics["voc10"]["map"], coco["AP"], coco["AP50"], coco["AP75"], sum(seconds.values())


def interval(name: str, run_dir: Path, folder: Path) -> tuple[float, float]:
    """The 95 % interval of VOC10's mAP@0.5 over images."""
    test = images_of(data_set(name, folder), Split.test)
    assert test.ground_truth is not None
    found = read_detections(run_dir / "detections.json", test)
    sampled = resampled_map(test.ground_truth, found, test.classes, resamples=1000, seed=0)
    low, high = sampled.interval
    return float(low[0]), float(high[0])


def images_of(settings: Sequence[str], split: Split) -> Dataset:
    """The images of a split that the settings name."""
    kind, *values = (one.removeprefix("dataset.").removeprefix("dataset=") for one in settings)
    return load_dataset(kind, split.value, **dict(one.split("=", 1) for one in values))


def data_set(name: str, folder: Path) -> list[str]:
    """The settings that name a data set in `folder`."""
    if name != "coco":
        train = "trainval" if (folder / name / "ImageSets/Main/trainval.txt").is_file() else "train"
        listed = [f"dataset.train={train}"] if (folder / name / "ImageSets/Main").is_dir() else []
        return ["dataset=voc", f"dataset.root={folder / name}", *listed]
    return ["dataset=coco"] + [
        f"dataset.{split}_{what}={folder / f'coco_{part}' / file}"
        for split, part in (("train", "train"), ("test", "val"))
        for what, file in (("json", "instances.json"), ("images", "images"))
    ]


if __name__ == "__main__":
    main()
