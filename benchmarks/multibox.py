"""MultiBox's proposals beside selective search's: recall@0.5 and AR with few boxes, and what training takes.

    python benchmarks/multibox.py FOLDER [--sets raccoon bccd coco] [--seeds 0 1 2] [--runs DIR]
        [--search turbo cv2_fast] [--transfer] [--labelled 20 50 160] [--cost] [key=value ...]

FOLDER holds raccoon/, bccd/ and voc2012_100/ in VOC's layout, coco_train/ and coco_val/ with instances.json and
images/. key=value are settings of `detpipe train-multibox`. Intervals are of the test images, resampled. --search:
presets of selective search, of which `turbo` has a learned order and the others the papers' random one. --transfer:
the network of COCO's first seed, as it is, on all images of raccoon and voc2012_100. --labelled: of each set of VOC's
layout so many training images with boxes, learned from ImageNet's weights, and from a network that learned selective
search's boxes on all training images, without their objects; nothing else is trained then. --cost: how much of a
training step the loss with its matching takes, with 100 objects an image. A run that is there already is read, not
made again.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from data_sets import data_set, images_of

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.datasets.source import Split
from detpipe.heads.multibox.loss import Targets, multibox_loss
from detpipe.heads.multibox.network import MultiBox, make_shapes
from detpipe.heads.multibox.settings import Form, MultiBoxConfig
from detpipe.metrics.bootstrap import ImageBootstrap
from detpipe.metrics.overlap_table import overlap_table
from detpipe.metrics.recall_curves import recall_curves
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.device import autocast, resolve_bf16
from detpipe.network.settings import Precision
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Dataset, GroundTruth, ImageId, Proposals

BUDGETS = (10, 50, 100, 500)
RESAMPLES = 1000


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", default=["raccoon", "bccd", "coco"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/multibox"))
    parser.add_argument("--search", nargs="+", default=["turbo"])
    parser.add_argument("--transfer", action="store_true")
    parser.add_argument("--labelled", nargs="+", type=int, default=[])
    parser.add_argument("--cost", action="store_true")
    overrides = [word for word in sys.argv[1:] if "=" in word]  # also behind an option that takes several words
    options = parser.parse_args([word for word in sys.argv[1:] if word not in overrides])
    if options.labelled and "coco" in options.sets:
        parser.error("--labelled: expected sets in VOC's layout, got coco: give --sets raccoon bccd, or one of them")
    heads = "".join(f"  {name:>20}" for budget in BUDGETS for name in (f"recall {budget}", f"AR {budget}"))
    print(f"{'test images':<12} {'boxes of':<26}{heads}   seconds")
    for name in options.sets:
        settings = data_set(name, options.folder)
        test = images_of(settings, Split.test)
        for preset in options.search:
            search = options.runs / name / f"selective_search_{preset}"
            detpipe("propose", *settings, f"run_dir={search}", f"proposals.preset={preset}")
            show(name, f"selective search, {preset}", test, run_dir=search)
        if options.labelled:
            show_label_free_start(name, options, overrides)
            continue
        for seed in options.seeds:
            run_dir = options.runs / name / f"seed_{seed}"
            detpipe("train-multibox", *settings, f"run_dir={run_dir}", f"seed={seed}", *overrides)
            propose(settings, run_dir, run_dir)
            seconds = read_manifest(run_dir / "multibox").seconds
            show(name, f"MultiBox, seed {seed}", test, run_dir=run_dir, seconds=seconds)
    if options.transfer:
        for name in ("raccoon", "voc2012_100"):
            settings = data_set(name, options.folder)
            search, run_dir = (options.runs / f"transfer_{name}" / kind for kind in ("selective_search", "multibox"))
            detpipe("propose", *settings, f"run_dir={search}")
            every = [images_of(settings, split) for split in (Split.train, Split.test)]
            show(name, "selective search", *every, run_dir=search)
            propose(settings, run_dir, options.runs / "coco" / f"seed_{options.seeds[0]}")
            show(name, "MultiBox of coco_train", *every, run_dir=run_dir)
    if options.cost:
        show_cost()


def show_label_free_start(name: str, options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Lines for few labelled images, with and without what all images teach without labels."""
    settings, runs = data_set(name, options.folder), options.runs / f"labelled_{name}"
    unlabelled = runs / "unlabelled"
    detpipe("propose", *settings, f"run_dir={unlabelled}")
    detpipe("train-multibox", *settings, f"run_dir={unlabelled}", "targets=proposals", *overrides)
    for count, seed in itertools.product(options.labelled, options.seeds):
        few = ["dataset=voc", f"dataset.root={some_of(name, options.folder, count, seed, runs)}"]
        for start, weights in (("ImageNet", None), ("no labels", unlabelled / "multibox/weights.safetensors")):
            run_dir = runs / f"{count}_{start.replace(' ', '_')}_{seed}"
            started = [] if weights is None else [f"solver.weights={weights}"]
            detpipe("train-multibox", *few, f"run_dir={run_dir}", f"seed={seed}", *started, *overrides)
            propose(few, run_dir, run_dir)
            show(name, f"{count} of {start}, {seed}", images_of(few, Split.test), run_dir=run_dir)


def some_of(name: str, folder: Path, count: int, seed: int, runs: Path) -> Path:
    """A folder in VOC's layout with `count` of the training images, drawn from `seed`, and the test images."""
    train, test = (images_of(data_set(name, folder), split) for split in (Split.train, Split.test))
    root = runs / f"{count}_images_{seed}"
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    for what in ("Annotations", "JPEGImages"):
        if not (root / what).exists():
            (root / what).symlink_to((folder / name / what).resolve())
    drawn = np.random.default_rng(seed).permutation(len(train))[:count]
    for split, records in (("train", [train.records[place] for place in drawn]), ("test", test.records)):
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{one.image_id}\n" for one in records))
    return root


def propose(settings: Sequence[str], run_dir: Path, trained: Path) -> None:
    """Proposals of the network of one run folder in another."""
    weights = f"proposals.weights={trained / 'multibox'}"
    detpipe("propose", *settings, f"run_dir={run_dir}", "proposals=multibox", weights, "proposals.max_proposals=500")


def show(name: str, method: str, *parts: Dataset, run_dir: Path, seconds: float | None = None) -> None:
    """A line: recall@0.5 and AR with their intervals, over the images of the parts, each named by its split."""
    truth: dict[ImageId, GroundTruth] = {}
    found: dict[ImageId, Proposals] = {}
    with ProposalsReader(run_dir / "proposals.lmdb") as reader:
        for part, split in zip(parts, SPLITS[-len(parts) :], strict=True):
            assert part.ground_truth is not None
            for one in part.records:
                truth[f"{split}/{one.image_id}"] = part.ground_truth[one.image_id]
                found[f"{split}/{one.image_id}"] = reader.read(split, one.image_id).proposals
    table = overlap_table(truth, found, len(parts[0].classes), BUDGETS)
    curves = recall_curves(table, ImageBootstrap.draw(len(truth), RESAMPLES, 0), BUDGETS)
    cells = []
    for budget in BUDGETS:
        for measure in ("recall@0.5", "ar"):
            value = curves.at(budget)[measure]
            low, high = (float(one[0]) for one in value.interval)
            cells.append(f"  {value.value[0]:.3f} [{low:.3f}, {high:.3f}]")
    print(f"{name:<12} {method:<26}{''.join(cells)}   {'' if seconds is None else f'{seconds:.0f}'}", flush=True)


SPLITS = (Split.train.value, Split.test.value)


def detpipe(*words: str) -> None:
    """A command, its lines on stderr."""
    subprocess.run([sys.executable, "-m", "detpipe", *words], check=True)


def show_cost() -> None:
    """Milliseconds of a training step and of the loss in it: 2 images with 100 objects each."""
    keep_freed_memory()
    device, generator = torch.device("cpu"), np.random.default_rng(0)
    corners = generator.uniform(0, 200, (100, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(10, 56, (100, 2))], axis=1).astype(np.float32)
    truth, sizes = GroundTruth.from_boxes(boxes, np.ones(100)), np.full((100, 2), 256, dtype=np.float32)
    for form in (Form.grids, Form.pyramid):
        head = MultiBoxConfig(form=form, scales=[256])
        backbone = create_backbone(BackboneConfig(weights="none"))
        network = MultiBox(backbone, head, make_shapes(head, [8, 16, 32], boxes, sizes, seed=0), seed=0)
        network.to(memory_format=torch.channels_last).train()
        backbone.freeze(3)
        backbone.use_fast_depthwise_backward()
        targets = [Targets.of(truth, np.ones(100, dtype=np.float32), device)] * 2
        images = torch.randint(0, 255, (2, 256, 256, 3), dtype=torch.uint8)
        steps, losses = [], []
        for _ in range(12):
            begun = time.perf_counter()
            with autocast(device, resolve_bf16(Precision.auto, device)):
                output = network(images)
            between = time.perf_counter()
            loss = multibox_loss(output, targets, head)["loss"]
            losses.append(time.perf_counter() - between)
            loss.backward()
            steps.append(time.perf_counter() - begun)
        step, own = 1000 * np.median(steps[2:]), 1000 * np.median(losses[2:])
        priors = output.priors.shape[0]
        print(f"{form.value}, {priors} priors: a step {step:.0f} ms, matching and loss {own:.1f} ms, {own / step:.1%}")


if __name__ == "__main__":
    main()
