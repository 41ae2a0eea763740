"""How fast a region classifier scores crops: precision, compilation and kept memory side by side, as ratios.

    python benchmarks/inference.py [--size 128] [--crops 1024] [--repeats 3]

Crops/s of the fastest repeat of CropScorer, EfficientNet-Lite0 with 21 outputs and box regression, and the ratio to
the first row. The rows with kept memory come last: that setting can't be taken back.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.network import RcnnNetwork
from detpipe.classify.crops.scorer import CropScorer
from detpipe.classify.crops.settings import CropConfig
from detpipe.network.allocator import keep_freed_memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--crops", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    crops = np.random.default_rng(0).integers(0, 256, (arguments.crops, arguments.size, arguments.size, 3), np.uint8)
    print(f"{arguments.size} px, batches of {arguments.batch}, {torch.get_num_threads()} threads")
    first = 0.0
    for kept in (False, True):
        if kept and not keep_freed_memory():
            print("no glibc: the rows with kept memory are left out")
            return
        for bf16 in (False, True):
            for compiled in (False, True):
                rate, warm_up = measure(crops, bf16=bf16, compiled=compiled, arguments=arguments)
                first = first or rate
                parts = ["bf16" if bf16 else "float32", "compiled" if compiled else "", "kept memory" if kept else ""]
                name = ", ".join(part for part in parts if part)
                print(f"{name:<32} {rate:7.0f} crops/s  x{rate / first:4.2f}  first call {warm_up:5.1f} s", flush=True)


def measure(crops: np.ndarray, *, bf16: bool, compiled: bool, arguments: argparse.Namespace) -> tuple[float, float]:
    """Crops/s of the fastest repeat, and the seconds of the first batch."""
    backbone = create_backbone(BackboneConfig(weights="none", input_size=arguments.size))
    network = RcnnNetwork(backbone, 20, box_regression=True, dropout=0.0, seed=0)
    scorer = CropScorer(
        network,
        CropConfig(size=arguments.size),
        device=torch.device("cpu"),
        bf16=bf16,
        compiled=compiled,
        batch_size=arguments.batch,
    )
    begun = time.perf_counter()
    list(scorer.score_crops([crops[: arguments.batch]]))
    warm_up = time.perf_counter() - begun
    seconds = float("inf")
    for _ in range(arguments.repeats):
        begun = time.perf_counter()
        list(scorer.score_crops([crops]))
        seconds = min(seconds, time.perf_counter() - begun)
    return len(crops) / seconds, warm_up


if __name__ == "__main__":
    main()
