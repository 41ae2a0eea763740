"""`detpipe run` with several backbones side by side: accuracy, CPU seconds of the run, and of the network for an image.

    python benchmarks/backbones.py ROOT EXPERIMENT [--backbones NAME ...] [--seeds 0] [--runs DIR] [key=value ...]

ROOT: a data set in VOC's layout. EXPERIMENT: rcnn_frozen or multibox_fast_rcnn. key=value: settings of `detpipe run`.
The backbones follow each other. CPU seconds are user time of all threads, which other work on the machine changes less
than wall time. Ratios are to the first backbone. The network's time is the least of five passes to its last map, of one
image of 640 x 480 pixels, in one thread. A run that is there already is read, with the CPU seconds kept beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from held_out import cpu_seconds

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import NONE, BackboneConfig

LITE = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("experiment")
    parser.add_argument("--backbones", nargs="+", default=LITE)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/backbones"))
    overrides = [word for word in sys.argv[1:] if "=" in word]  # also behind an option that takes several words
    arguments = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    networks = network_seconds(arguments.backbones)
    print("backbone            seed  VOC10 mAP  COCO AP   CPU s  ratio  network ms  ratio", flush=True)
    for seed in arguments.seeds:
        first = 0.0
        for name, network in zip(arguments.backbones, networks, strict=True):
            run_dir = arguments.runs / arguments.root.name / arguments.experiment / f"{Path(name).name}_{seed}"
            words = [
                "dataset=voc",
                f"dataset.root={arguments.root}",
                f"experiment={arguments.experiment}",
                f"backbone.name={name}",
                f"run_dir={run_dir}",
                f"seed={seed}",
            ]
            seconds = cpu_seconds([*words, *overrides], run_dir)
            first = first or seconds
            metrics = json.loads((run_dir / "metrics.json").read_text())
            print(
                f"{name:<20}{seed:4d}{metrics['voc10']['map']:11.3f}{metrics['coco']['AP']:9.3f}{seconds:8.0f}"
                f"{seconds / first:7.2f}{1000 * network:12.0f}{network / networks[0]:7.2f}",
                flush=True,
            )


def network_seconds(names: list[str]) -> list[float]:
    """CPU seconds of one pass of each network, alternating between them."""
    torch.set_num_threads(1)
    networks = [create_backbone(BackboneConfig(name=name, weights=NONE)) for name in names]
    x = torch.zeros(1, 3, 480, 640)
    best = [float("inf")] * len(names)
    with torch.inference_mode():
        for _ in range(6):
            for i, network in enumerate(networks):
                begun = time.process_time()
                network.forward_maps(x, list(network.feature_maps)[-1:])
                best[i] = min(best[i], time.process_time() - begun)
    return best


if __name__ == "__main__":
    main()
