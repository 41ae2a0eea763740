"""Images a second from a database beside ImageFolder with torchvision's transforms, on the same pictures in one run.

    python benchmarks/image_database.py FOLDER [--side 224] [--workers 2] [--rounds 5]

FOLDER holds JPEG files of any classes. They are copied into a folder a class as ImageFolder wants it, and made into
databases by make-db: as they are (JPEG), and at a shorter side of 256 as JPEG and raw. Both sides give batches of 64
normalised float32 inputs: random resized crops and mirror images in training, the middle in testing; ImageFolder
through a DataLoader's processes (PIL), the database through the solver's prefetch threads. Medians of rounds in turn.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.images.database import ImagesReader
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.train import read_batch
from detpipe.classify.images.view import draw_views
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.batch_order import plain_order
from detpipe.solver.prefetch import Prefetcher

BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()  # as every command does; the loader's processes have it from here
    torch.set_num_threads(1)  # one a worker
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = by_class(options.folder, Path(scratch) / "images")
        databases = {
            "database of JPEG": make_db(root, Path(scratch) / "jpeg", "resize=none", "encode=jpg"),
            "database of JPEG, short:256": make_db(root, Path(scratch) / "short", "resize=short:256", "encode=jpg"),
            "database, raw, short:256": make_db(root, Path(scratch) / "raw", "resize=short:256", "encode=none"),
        }
        for training in (True, False):
            compare(root, databases, training, options)


def compare(root: Path, databases: Mapping[str, Path], training: bool, options: argparse.Namespace) -> None:
    """Measure all in turn, and print their medians."""
    folder: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in databases}
    for _ in range(options.rounds):
        folder.append(of_folder(root, training, options))
        for name, path in databases.items():
            found[name].append(of_database(path, training, options))
    print("training: random resized crops" if training else "testing: the middle")
    for name, rates in {"ImageFolder + torchvision": folder, **found}.items():
        rate = statistics.median(rates)
        print(f"  {name:<28} {rate:6.0f} images/s  x{rate / statistics.median(folder):.2f}")


def by_class(folder: Path, root: Path) -> Path:
    """The files copied into folders of ten."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for place, path in enumerate(files):
        (root / f"class_{place // 10:04d}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / f"class_{place // 10:04d}" / f"{path.stem}.jpg")
    return root


def make_db(root: Path, out: Path, *words: str) -> Path:
    """The database that the command makes."""
    command = [sys.executable, "-m", "detpipe", "make-db", f"root={root}", f"out={out}", *words]
    subprocess.run(command, check=True, capture_output=True)
    return out


def of_folder(root: Path, training: bool, options: argparse.Namespace) -> float:
    """Images a second of ImageFolder, from the first batch on: the start of its processes is not counted."""
    side = options.side
    seen = (
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()]
        if training
        else [transforms.Resize(round(side / 0.875)), transforms.CenterCrop(side)]
    )
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = ImageFolder(str(root), transforms.Compose([*seen, transforms.ToTensor(), normalize]))
    places = np.arange((options.batches + 1) * BATCH) % len(images)
    loader = DataLoader(images, BATCH, sampler=places.tolist(), num_workers=options.workers, prefetch_factor=2)
    batches = iter(loader)
    next(batches)
    begun = time.perf_counter()
    count = sum(len(batch[0]) for batch in batches)
    return count / (time.perf_counter() - begun)


def of_database(path: Path, training: bool, options: argparse.Namespace) -> float:
    """Images a second of a database, likewise from the first batch on."""
    view = ViewConfig(share=0.875, random_area=0.08)
    spec = create_backbone(BackboneConfig(weights="none", input_size=options.side)).spec
    with ImagesReader(path) as reader:
        order = plain_order(len(reader), batch_size=BATCH, seed=0)

        def make(number: int) -> torch.Tensor:
            draws = draw_views(np.random.default_rng((0, number)), BATCH) if training else None
            batch = read_batch(reader, order(number), spec, view, draws, flip=training)
            return spec.to_input(torch.from_numpy(batch.images))

        batches = Prefetcher(make, 0, options.batches + 1, threads=options.workers, depth=2 * options.workers)
        stream = iter(batches)
        next(stream)
        begun = time.perf_counter()
        count = sum(len(batch) for batch in stream)
        seconds = time.perf_counter() - begun
        batches.close()
    return count / seconds


if __name__ == "__main__":
    main()
