"""`detpipe run` on real data sets with the default settings: mAP, recall of the proposals, seconds by stage.

    python benchmarks/data_sets.py FOLDER [--sets raccoon bccd coco] [--runs runs/benchmarks] [key=value ...]

FOLDER holds raccoon/ and bccd/ in VOC's layout, coco_train/ and coco_val/ with instances.json and images/. A run that
is there already is read, not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["raccoon", "bccd", "coco"])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    arguments, overrides = parser.parse_known_args()
    print("set       VOC10 mAP  COCO AP  AP50   AP75   R@.5/1000  propose    crop   train  detect     all")
    for name in arguments.sets:
        run_dir = arguments.runs / name
        line = [sys.executable, "-m", "detpipe", "run", *data_set(name, arguments.folder), f"run_dir={run_dir}"]
        subprocess.run([*line, *overrides], check=True)
        metrics = json.loads((run_dir / "metrics.json").read_text())
        recall = json.loads((run_dir / "recall.json").read_text())["1000"]["recall@0.5"]
        coco, seconds = metrics["coco"], metrics["seconds"]
        stages = "".join(f"{seconds[stage]:8.0f}" for stage in ("propose", "crop", "train-cls", "detect"))
        print(
            f"{name:<10}{metrics['voc10']['map']:8.3f}{coco['AP']:10.3f}{coco['AP50']:7.3f}{coco['AP75']:7.3f}"
            f"{recall:10.3f} {stages}{sum(seconds.values()):8.0f}",
            flush=True,
        )


def data_set(name: str, folder: Path) -> list[str]:
    """The settings that name a data set in `folder`."""
    if name != "coco":
        train = "trainval" if (folder / name / "ImageSets/Main/trainval.txt").is_file() else "train"
        return ["dataset=voc", f"dataset.root={folder / name}", f"dataset.train={train}"]
    return ["dataset=coco"] + [
        f"dataset.{split}_{what}={folder / f'coco_{part}' / file}"
        for split, part in (("train", "train"), ("test", "val"))
        for what, file in (("json", "instances.json"), ("images", "images"))
    ]


if __name__ == "__main__":
    main()
