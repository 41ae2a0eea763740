"""Writes the pictures of docs/concepts.md into docs/pictures/: the steps of the detectors, by the package's own code.

python tools/draw_concepts.py [docs/pictures]

The photographs are scikit-image's (`pip install 'detpipe[demo,weights]'`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from detpipe import SelectiveSearch, load_dataset
from detpipe import boxes as geometry
from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.crops.crop import crop_regions
from detpipe.classify.crops.settings import CropConfig
from detpipe.classify.labeling import SamplingConfig, label_regions
from detpipe.datasets.image_file import read_image
from detpipe.heads.fast_rcnn.roi_pooling import pool_regions
from detpipe.heads.fast_rcnn.settings import Pooling
from detpipe.heads.multibox.priors import centred, kmeans_sizes, prior_boxes
from detpipe.proposals.selective_search.colour_spaces import convert
from detpipe.proposals.selective_search.felzenszwalb import build_graph, segment
from detpipe.proposals.selective_search.grouping import find_segments, group
from detpipe.proposals.selective_search.histograms import pixel_codes, region_histograms
from detpipe.proposals.selective_search.search import SelectiveSearchPreset, recipe_of
from detpipe.proposals.selective_search.working_size import shrink, working_size
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image

INK, BLUE, GREEN, RED, GREY = "#222222", "#2563c9", "#1a8a3c", "#c93a2b", "#8a8a8a"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "text.color": INK,
    "axes.titlecolor": INK,
    "svg.fonttype": "path",  # the same letters for each reader
    "svg.hashsalt": "detpipe",  # the same picture gives the same bytes
}
SCENE = "test_0020"
"""A test image of the demo with several objects that do not touch."""


def main(folder: str = str(Path(__file__).parents[1] / "docs" / "pictures")) -> None:
    """Write all pictures."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE), tempfile.TemporaryDirectory() as scratch:
        test = load_dataset("demo", "test", root=f"{scratch}/demo")
        train = load_dataset("demo", "train", root=f"{scratch}/demo")
        image, truth = scene(test)
        draw_flows(target / "flows.svg")
        draw_attention(target / "attention.svg")
        draw_selective_search(target / "selective_search.jpg", image, truth)
        draw_crops(target / "crops.jpg", image, truth, test.classes)
        draw_pooling(target / "roi_pooling.jpg", image, truth)
        draw_priors(target / "priors.jpg", image, truth, train)


def scene(dataset: Dataset) -> tuple[Image, GroundTruth]:
    """The image that all pictures show, and its objects."""
    record = next(one for one in dataset.records if one.image_id == SCENE)
    assert dataset.ground_truth is not None
    return read_image(record.path, record.options), dataset.ground_truth[SCENE]


def panels(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side; size in inches."""
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for one in axes:
        one.set_xticks([])
        one.set_yticks([])
        for spine in one.spines.values():
            spine.set_visible(False)
    return figure, axes


def box(axes: Axes, corners: Float32Array, colour: str, *, width: float = 1.6, style: str = "-") -> None:
    """Draw a box (4,), x1 y1 x2 y2."""
    x1, y1, x2, y2 = map(float, corners)
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow whose point is at `end`."""
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 10,
        "color": INK,
        "lw": 1.2,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.add_patch(FancyArrowPatch(start, end, **style))


def save(figure: Figure, path: Path) -> None:
    """Write a picture with photographs as a JPEG: small, and good enough for them."""
    figure.savefig(path, pil_kwargs={"quality": 88, "optimize": True})


# --- The steps as boxes and arrows ------------------------------------------------------------------------------------

SEARCH, CLASSIFY = "selective search\n1000 boxes", "class, better box\nfor each region"
ONCE, POOL = "network once\non the image", "pool each box\nfrom the maps"
FLOWS = {
    "R-CNN": (SEARCH, "cut out a crop\nfor each box", "network\non each crop", CLASSIFY),
    "Fast R-CNN": (SEARCH, ONCE, POOL, CLASSIFY),
    "MultiBox +\nFast R-CNN": (ONCE, "MultiBox head:\n200 boxes", POOL, CLASSIFY),
    "Stored\nfeatures": (
        "selective search\n500 boxes",
        "frozen network\nonce on the image",
        "feature store\non disk",
        "head: trains\nin seconds",
    ),
}
"""Each detector: its name, and its steps after the image."""
FILLS = {"selective": "#dbe8fb", "network": "#fbe3d3", "frozen": "#fbe3d3", "MultiBox": "#dbe8fb", "feature": "#e3f2df"}


def draw_flows(path: Path) -> None:
    """Four rows of steps, the same kind of step in the same colour."""
    figure = Figure(figsize=(9.4, 4.5), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 94)
    axes.set_ylim(45, 0)
    axes.axis("off")
    for row, (name, steps) in enumerate(FLOWS.items()):
        y = 2.5 + 10.6 * row
        axes.text(1, y + 4, name, va="center", weight="bold")
        end = 13.0
        for step in ("image", *steps):
            start, width = (end, 8.0) if step == "image" else (end + 2.5, 15.5)
            fill = FILLS.get(step.split()[0], "#f3f3f3")
            axes.add_patch(
                FancyBboxPatch(
                    (start, y), width, 8, boxstyle="round,pad=0,rounding_size=1", fc=fill, ec="#999999", lw=0.8
                )
            )
            axes.text(start + width / 2, y + 4, step, ha="center", va="center", fontsize=9)
            if start > end:
                arrow(axes, (end, y + 4), (start, y + 4))
            end = start + width
    figure.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)


# --- Attention --------------------------------------------------------------------------------------------------------

REGIONS = ((6, 10, 22, 27), (8, 12, 24, 30), (19, 13, 35, 31), (30, 4, 38, 11))
"""Regions of a photo, x1 y1 x2 y2: two of the first object, one of the second, one of background."""
ANSWERS = ("dog, best box: yes", "dog, best box: no (see 1)", "dog, best box: yes", "background")


def draw_attention(path: Path) -> None:
    """The regions of a photo with two objects that touch, lines between all of them, and an answer for each."""
    figure = Figure(figsize=(8.6, 3.4), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 86)
    axes.set_ylim(34, 0)
    axes.axis("off")
    axes.add_patch(Rectangle((2, 2), 38, 30, fc="#f3f3f3", ec="#999999", lw=0.8))
    for corners in ((8, 11, 22, 29), (20, 14, 34, 30)):
        axes.add_patch(
            Rectangle(corners[:2], corners[2] - corners[0], corners[3] - corners[1], fc="#dcdcdc", ec="none")
        )
    rows = [6 + 7.3 * number for number in range(len(REGIONS))]
    for number, (corners, y) in enumerate(zip(REGIONS, rows, strict=True), 1):
        colour = GREY if number == len(REGIONS) else BLUE
        box(axes, np.array(corners, dtype=np.float32), colour)
        axes.text(corners[0] + 0.6, corners[1] + 1.6, str(number), color=colour, va="center", weight="bold")
        for other in rows:
            near = abs(other - y) < 8 and max(other, y) < rows[-1]
            axes.plot((51, 59), (y, other), color=BLUE, lw=2.2 if near else 0.7, alpha=0.8 if near else 0.3)
        for x in (50, 60):
            axes.plot(x, y, "o", color=colour, ms=11)
            axes.text(x, y, str(number), color="white", ha="center", va="center", fontsize=8, weight="bold")
        axes.text(63, y, ANSWERS[number - 1], va="center", fontsize=9)
    arrow(axes, (41, 17), (48, 17))
    axes.text(55, 2, "attention", ha="center", va="center", weight="bold")
    figure.savefig(path, metadata={"Date": None, "Creator": None})


# --- Selective search -------------------------------------------------------------------------------------------------


def draw_selective_search(path: Path, image: Image, truth: GroundTruth) -> None:
    """Segments, regions half way up the hierarchy, and the boxes that come out."""
    recipe = recipe_of(SelectiveSearchPreset.turbo)
    small = shrink(image, working_size(image.shape[:2], recipe.max_side))
    planes = convert(small, recipe.spaces[1])
    k, min_size = recipe.ks[0]
    labels, count = segment(build_graph(planes, recipe.sigma), k, min_size)
    segments = find_segments(labels, count)
    colour, texture = region_histograms(pixel_codes(planes), labels, segments.sizes)
    parents = group(segments, colour, texture, recipe.similarities[0], labels.size).parents
    left = 12

    def ancestor(region: int) -> int:
        """The region of the grouping with `left` regions that a segment is part of."""
        while 0 <= parents[region] < 2 * count - left:
            region = int(parents[region])
        return region

    grouped = np.array([ancestor(region) for region in range(count)])[labels]
    figure, axes = panels(3, (9.4, 2.9))
    for one, regions, title in (
        (axes[0], labels, f"1. {count} segments of similar colour"),
        (axes[1], grouped, f"2. similar neighbours joined: {left} left"),
    ):
        one.imshow(mean_colours(small, regions))
        one.set_title(title, fontsize=10)
    proposals = SelectiveSearch()(image)
    overlaps = geometry.iou(truth.boxes, proposals.boxes)
    axes[2].imshow(image)
    for proposal in proposals.boxes[:10]:
        box(axes[2], proposal, BLUE, width=0.8)
    for proposal in proposals.boxes[overlaps.argmax(axis=1)]:
        box(axes[2], proposal, GREEN, width=2.2)
    axes[2].set_title(f"3. {len(proposals)} boxes: first 10, best ones", fontsize=10)
    save(figure, path)


def mean_colours(image: Image, regions: np.ndarray) -> Image:
    """Each region (h, w) in its own mean colour, with dark borders."""
    _, numbers = np.unique(regions, return_inverse=True)
    numbers = numbers.reshape(regions.shape)
    sizes = np.bincount(numbers.ravel())
    means = np.stack([np.bincount(numbers.ravel(), image[..., c].ravel()) / sizes for c in range(3)], axis=1)
    numbers = numbers.repeat(2, axis=0).repeat(2, axis=1)
    painted: Image = means[numbers].astype(np.uint8)
    border = np.zeros(numbers.shape, dtype=bool)
    border[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    border[1:] |= numbers[1:] != numbers[:-1]
    painted[border] = 30
    return painted


# --- R-CNN ------------------------------------------------------------------------------------------------------------


def draw_crops(path: Path, image: Image, truth: GroundTruth, classes: tuple[str, ...]) -> None:
    """Six proposals on the image, and what R-CNN makes of them: a crop, and a label by IoU."""
    proposals = SelectiveSearch()(image).boxes
    regions = label_regions(proposals, truth, SamplingConfig())
    best = geometry.iou(truth.boxes, proposals).argmax(axis=1)[:3]
    is_part = geometry.overlap_of_first(proposals, truth.boxes).max(axis=1) > 0.9
    part = np.flatnonzero((regions.labels == 0) & (regions.ious > 0.3) & is_part)[:1]
    nothing = np.flatnonzero((regions.labels == 0) & (regions.ious == 0))
    apart = nothing[geometry.iou(proposals[nothing], proposals[nothing[:1]])[:, 0] == 0]
    shown = [*best, *part, nothing[0], apart[0]]
    crops = crop_regions(image, proposals[shown], CropConfig(size=160))
    figure = Figure(figsize=(9.4, 3.2), dpi=110, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 4, width_ratios=(2.3, 1, 1, 1))
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(image)
    axes.axis("off")
    axes.set_title("six proposals", fontsize=10)
    for place, index in enumerate(shown):
        label = regions.labels[index]
        colour = GREEN if label else RED
        x1, y1 = proposals[index][:2]
        box(axes, proposals[index], colour, width=2)
        badge = {"fc": colour, "ec": "none", "pad": 1.5}
        axes.text(x1 + 3, y1 + 3, str(place + 1), color="white", weight="bold", va="top", fontsize=9, bbox=badge)
        one = figure.add_subplot(grid[place // 3, 1 + place % 3])
        one.imshow(crops[place])
        one.axis("off")
        name = classes[label - 1] if label else "background"
        one.set_title(f"{place + 1}: {name}, IoU {regions.ious[index]:.2f}", fontsize=8.5, color=colour)
    save(figure, path)


# --- Fast R-CNN -------------------------------------------------------------------------------------------------------


def draw_pooling(path: Path, image: Image, truth: GroundTruth) -> None:
    """The image, its feature map with a region, and the region pooled to 7 x 7."""
    network = create_backbone(BackboneConfig()).eval()
    name, stride, size = "stride16", 16, 7
    factor = 2  # a map of more cells can be seen better
    large = cv2.resize(image, None, fx=factor, fy=factor)
    large = large[: large.shape[0] // 32 * 32, : large.shape[1] // 32 * 32]
    with torch.inference_mode():
        maps = network.forward_maps(network.spec.to_input(torch.from_numpy(large.copy())[None]), [name])[name]
    region = truth.boxes[geometry.area(truth.boxes).argmax()]
    # One channel shows more than their mean: the one that differs most between the object and the rest.
    x1, y1, x2, y2 = (region * factor / stride).round().astype(int)
    inside = maps[0, :, y1:y2, x1:x2].mean(dim=(1, 2))
    channel = int((inside - maps[0].mean(dim=(1, 2))).div(maps[0].std(dim=(1, 2)) + 1e-3).argmax())
    rows = torch.tensor([[0.0, *(region * factor).tolist()]])
    pooled = pool_regions([maps], [stride], rows, pooling=Pooling.align, size=size)[0, channel]
    figure, axes = panels(3, (9.4, 3.0))
    axes[0].imshow(image)
    box(axes[0], region, GREEN, width=2.2)
    axes[0].set_title("image and a proposal", fontsize=10)
    one = maps[0, channel].numpy()
    axes[1].imshow(one, cmap="magma")
    box(axes[1], region * factor / stride - 0.5, "#37e06a", width=2.2)
    axes[1].set_title(f"one of {maps.shape[1]} feature maps, {one.shape[0]} x {one.shape[1]} cells", fontsize=10)
    axes[2].imshow(pooled.numpy(), cmap="magma", vmin=one.min(), vmax=one.max())
    for line in range(size + 1):
        axes[2].axhline(line - 0.5, color="white", lw=0.6)
        axes[2].axvline(line - 0.5, color="white", lw=0.6)
    axes[2].set_title(f"pooled: {size} x {size}, whatever its size", fontsize=10)
    save(figure, path)


# --- MultiBox ---------------------------------------------------------------------------------------------------------


def draw_priors(path: Path, image: Image, truth: GroundTruth, train: Dataset) -> None:
    """The shapes of priors at one cell, the priors that answer for an object, and where they must move."""
    assert train.ground_truth is not None
    objects = np.concatenate([one.boxes for one in train.ground_truth.values()])
    shapes = kmeans_sizes(objects[:, 2:] - objects[:, :2], 9, seed=0)
    height, width = image.shape[:2]
    stride = 32
    grid = (round(height / stride), round(width / stride))
    priors = prior_boxes(torch.from_numpy(centred(shapes)), grid, (height, width)).numpy()
    target = truth.boxes[geometry.area(truth.boxes).argmax()]
    overlaps = geometry.iou(priors, target[None])[:, 0]
    cell = grid[0] // 2 * grid[1] + grid[1] // 2
    figure, axes = panels(3, (9.4, 2.9))
    for one in axes:
        one.imshow(image, alpha=0.75)
        one.set_xlim(0, width)
        one.set_ylim(height, 0)
    rows, columns = (np.arange(count) + 0.5 for count in grid)
    x, y = np.meshgrid(columns * width / grid[1], rows * height / grid[0])
    axes[0].plot(x.ravel(), y.ravel(), ".", color="white", markersize=5, markeredgecolor=INK, markeredgewidth=0.4)
    for prior in priors[cell * len(shapes) : (cell + 1) * len(shapes)]:
        box(axes[0], prior, BLUE, width=1.3)
    axes[0].set_title(f"{len(shapes)} priors, the same at each of {grid[0] * grid[1]} cells", fontsize=10)
    matched = np.flatnonzero(overlaps >= 0.5)
    for prior in priors[matched]:
        box(axes[1], prior, BLUE, width=1.2)
    box(axes[1], target, GREEN, width=2.4)
    axes[1].set_title(f"{len(matched)} of {len(priors)} priors match this object", fontsize=10)
    worst = priors[matched[overlaps[matched].argmin()]]
    box(axes[2], worst, BLUE, width=1.6, style="--")
    box(axes[2], target, GREEN, width=2.4)
    for corner in ((0, 1), (2, 1), (0, 3), (2, 3)):
        arrow(axes[2], tuple(worst[list(corner)]), tuple(target[list(corner)]))
    axes[2].set_title("the network learns this shift", fontsize=10)
    save(figure, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
