"""Fit the weights of detpipe/proposals/selective_search/objectness.py and write objectness.json beside it.

    python tools/fit_objectness.py FOLDER [--steps 1500] [--out detpipe/proposals/selective_search/objectness.json]

FOLDER holds the training images: coco_train/ with instances.json and images/, raccoon/ and bccd/ in VOC's layout. Of
the last two a part is taken, so that 80 classes outweigh four. No test image, and no image of VOC, is looked at.

A box is a positive where it has nine tenths of the IoU of its object's best box, and 0.5 at least: what a list needs is
not every good box but one for each object. Objects that have many such boxes weigh less, by the root of their number.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from detpipe import Dataset, load_dataset
from detpipe.boxes import iou
from detpipe.datasets.image_file import read_image
from detpipe.proposals.selective_search.candidates import FEATURES, candidates
from detpipe.proposals.selective_search.colour_spaces import ColourSpace, convert
from detpipe.proposals.selective_search.search import SelectiveSearchPreset, grow, recipe_of
from detpipe.proposals.selective_search.working_size import enlarge, shrink, working_size

BINS = 16
BATCH = 20_000
POSITIVE_WEIGHT = 3.0
RIDGE = 1e-4


def main() -> None:
    """Gather, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("detpipe/proposals/selective_search/objectness.json"))
    arguments = parser.parse_args()
    coco = arguments.folder / "coco_train"
    sets = [
        load_dataset(
            "coco",
            "train",
            train_json=str(coco / "instances.json"),
            train_images=str(coco / "images"),
            test_share=0,
        ),
        *(
            load_dataset("voc", "train", root=str(arguments.folder / name), train="train")
            for name in ("raccoon", "bccd")
        ),
    ]
    parts = [part for dataset, most in zip(sets, (None, 60, 30), strict=True) for part in described(dataset, most)]
    features, targets, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    print(f"{len(parts)} images, {len(targets)} boxes, {targets.mean():.4f} of them positive", flush=True)
    thresholds = [thresholds_of(name, features[:, column]) for column, name in enumerate(FEATURES)]
    learned = fit(features, targets, weights, thresholds, arguments.steps)
    content = {
        name: {"thresholds": edges.tolist(), "weights": np.rint(1000 * (one - one.mean())).astype(int).tolist()}
        for name, edges, one in zip(FEATURES, thresholds, learned, strict=True)
    }
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(one)}" for name, one in content.items())
    arguments.out.write_text("{\n" + lines + "\n}\n")
    print(f"-> {arguments.out}")


def described(dataset: Dataset, most: int | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each image the features (U, F), targets (U,) in {0, 1} and weights (U,) of its boxes."""
    recipe = recipe_of(SelectiveSearchPreset.turbo)
    assert dataset.ground_truth is not None
    for record in dataset.records[:most]:
        image = read_image(record.path, record.options)
        size = working_size(record.image_size, recipe.max_side)
        small = shrink(image, size)
        found = candidates(grow(small, recipe), len(recipe.similarities), convert(small, ColourSpace.grey))
        boxes = enlarge(found.boxes, record.image_size, size)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 10).all(axis=1)
        truth = dataset.ground_truth[record.image_id]
        overlaps = iou(boxes[large], truth.boxes[~truth.crowd])
        near = overlaps >= np.maximum(0.9 * overlaps.max(axis=0, initial=0), 0.5)
        share = (near / np.sqrt(np.maximum(near.sum(axis=0), 1))).sum(axis=1)
        targets = near.any(axis=1)
        yield found.features[large], targets.astype(np.float32), np.where(targets, POSITIVE_WEIGHT * share, 1.0)


def thresholds_of(name: str, values: np.ndarray) -> np.ndarray:
    """Where the bins begin: at quantiles, so that each holds as many boxes; of the 16 sets of borders one a bin."""
    if name == "borders":
        return np.arange(1, 16)
    return np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]).astype(np.int64))


def fit(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, thresholds: list[np.ndarray], steps: int
) -> list[np.ndarray]:
    """The weight of each bin of each feature, by logistic regression with Adam."""
    codes = [np.searchsorted(edges, features[:, column], side="right") for column, edges in enumerate(thresholds)]
    ends = np.cumsum([len(edges) + 1 for edges in thresholds])
    design = torch.from_numpy(np.stack(codes, axis=1) + np.concatenate([[0], ends[:-1]]))
    target = torch.from_numpy(targets.astype(np.float32))
    weight = torch.from_numpy(weights.astype(np.float32))
    table, bias = torch.zeros(int(ends[-1]), requires_grad=True), torch.zeros(1, requires_grad=True)
    adam = torch.optim.Adam([table, bias], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        batch = torch.randint(0, len(target), (BATCH,), generator=generator)
        logits = table[design[batch]].sum(dim=1) + bias
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, target[batch], reduction="none")
        loss = (weight[batch] * losses).mean() + RIDGE * table.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 300 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    return np.split(table.detach().numpy().astype(np.float64), ends[:-1])


if __name__ == "__main__":
    main()
