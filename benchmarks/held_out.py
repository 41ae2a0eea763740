"""Settings of `detpipe run` compared on held-out training images, so that no test image has a part in a choice.

    python benchmarks/held_out.py FOLDER OUT VARIANTS [--sets cards bccd] [--splits 0] [--shares 1] [--seed 0]
        [key=value ...]

FOLDER holds data sets in VOC's layout. VARIANTS is a text file; each line is a name and settings of `detpipe run`, as
"wide head.hidden=1024". key=value: settings of all variants. A split with number N puts three quarters of the training
images, drawn from the seed N, into a new training list and the others into a new test list, in OUT/data/SET_N, whose
images and annotations are links. A share below 1 keeps only this part of the new training list, in
OUT/data/SET_N_SHARE. CPU seconds are user time of all stages. A run that is there already is read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

LISTS = ("trainval", "train")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", type=Path)
    parser.add_argument("--sets", nargs="+", default=["cards", "raccoon", "bccd"])
    parser.add_argument("--splits", nargs="+", type=int, default=[0])
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0])
    parser.add_argument("--seed", type=int, default=0)
    overrides = [word for word in sys.argv[1:] if "=" in word]  # also behind an option that takes several words
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    lines = [line.split() for line in arguments.variants.read_text().splitlines() if line.strip()]
    print("set      split  share  variant                   VOC10 mAP  COCO AP   AP75   CPU s", flush=True)
    for name in arguments.sets:
        for split, share in itertools.product(arguments.splits, arguments.shares):
            part = f"{name}_{split}" if share == 1 else f"{name}_{split}_{share:g}"
            data = split_folder(arguments.folder / name, arguments.out / "data" / part, split, share)
            for variant, *settings in lines:
                run_dir = arguments.out / "runs" / part / f"{variant}_{arguments.seed}"
                words = ["dataset=voc", f"dataset.root={data}", f"run_dir={run_dir}", f"seed={arguments.seed}"]
                seconds = cpu_seconds([*words, *overrides, *settings], run_dir)
                metrics = json.loads((run_dir / "metrics.json").read_text())
                print(
                    f"{name:<9}{split:5d}{share:7g}  {variant:<26}{metrics['voc10']['map']:9.3f}"
                    f"{metrics['coco']['AP']:9.3f}{metrics['coco']['AP75']:7.3f}{seconds:8.0f}",
                    flush=True,
                )


def split_folder(source: Path, folder: Path, seed: int, share: float) -> Path:
    """Make a VOC folder of the training images of `source`: a share of three quarters to train on, one to test on."""
    lists = source / "ImageSets" / "Main"
    listed = next(path for name in LISTS if (path := lists / f"{name}.txt").is_file())
    names = np.array(sorted(listed.read_text().split()))
    order = np.random.default_rng(seed).permutation(len(names))
    cut = len(names) * 3 // 4
    new_lists = folder / "ImageSets" / "Main"
    new_lists.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", order[: round(share * cut)]), ("test", order[cut:])):
        (new_lists / f"{name}.txt").write_text("".join(f"{one}\n" for one in sorted(names[rows])))
    for part in ("JPEGImages", "Annotations"):
        if not (folder / part).exists():
            (folder / part).symlink_to((source / part).resolve())
    return folder


def cpu_seconds(settings: list[str], run_dir: Path) -> float:
    """Run the flow in a process of its own; its user CPU seconds, which are kept beside the run."""
    kept = run_dir / "cpu_seconds.txt"
    if not kept.exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, "-m", "detpipe", "run", *settings], check=True, stdout=subprocess.DEVNULL)
        kept.write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before))
    return float(kept.read_text())


if __name__ == "__main__":
    main()
