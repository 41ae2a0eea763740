"""Our selective search beside OpenCV's: ratios of time, and recall at equal numbers of boxes, on two data sets.

    python benchmarks/selective_search.py FOLDER [--sets voc coco] [--images 100] [--quality-images 20]

FOLDER holds voc2012_100/ in VOC's layout and coco_val/ with instances.json and images/. Pin it to a core
(`taskset -c 0`). Times are of the processor, ours the least of three calls (a short call pays for a cold cache, which
OpenCV's long one does not notice), and the ratio is the median over images. Boxes are compared at as many as OpenCV
has for each image, and at 100 to 2000. Intervals: 95 %, by resampling images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from detpipe import Dataset, Proposals, SelectiveSearch, load_dataset
from detpipe.datasets.image_file import read_image
from detpipe.metrics.bootstrap import ImageBootstrap, Resampled
from detpipe.metrics.overlap_table import overlap_table
from detpipe.metrics.paired_difference import paired_difference
from detpipe.metrics.recall_measures import MEASURES
from detpipe.proposals.selective_search.search import SelectiveSearchPreset
from detpipe.structures import Image, ImageId

BUDGETS = (100, 500, 1000, 2000)
PAIRS = (("opencv_fast", "cv2_fast"), ("turbo", "cv2_fast"), ("turbo_quality", "cv2_quality"))
RESAMPLES = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=["voc", "coco"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--quality-images", type=int, default=1000)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    print_large_photo(arguments.folder)
    for name in arguments.sets:
        dataset = load(name, arguments.folder)
        theirs: dict[str, tuple[dict[ImageId, Proposals], np.ndarray]] = {}
        for ours, reference in PAIRS:
            most = arguments.quality_images if reference == "cv2_quality" else arguments.images
            records = dataset.records[:most]
            if not records:
                continue
            images = {record.image_id: read_image(record.path) for record in records}
            if reference not in theirs:
                theirs[reference] = propose(reference, images, calls=1)
            compare(name, dataset, ours, propose(ours, images, calls=3), reference, theirs[reference])


def print_large_photo(folder: Path) -> None:
    """The time that `turbo` takes on 12 megapixels, over that on 0.2, of the same photograph."""
    photo = read_image(load("voc", folder).records[0].path)
    search, milliseconds = SelectiveSearch(), []
    for size in ((516, 388), (4000, 3000)):
        image = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        took = []
        for _ in range(9):
            begun = time.process_time()
            search(image)
            took.append(1000 * (time.process_time() - begun))
        milliseconds.append(float(np.median(took[1:])))
    small, large = milliseconds
    print(f"turbo on 0.2 and 12 megapixels: {small:.1f} and {large:.1f} ms, ratio {large / small:.2f}")


def load(name: str, folder: Path) -> Dataset:
    """The images with boxes of a set. VOC's hundred have one list, which `load_dataset` splits: here they are one."""
    if name == "voc":
        parts = [load_dataset("voc", split, root=str(folder / "voc2012_100")) for split in ("train", "test")]
        truth = {image_id: boxes for part in parts for image_id, boxes in (part.ground_truth or {}).items()}
        return replace(parts[0], records=parts[0].records + parts[1].records, ground_truth=truth)
    coco = folder / "coco_val"
    return load_dataset("coco", "test", test_json=str(coco / "instances.json"), test_images=str(coco / "images"))


def propose(preset: str, images: dict[ImageId, Image], *, calls: int) -> tuple[dict[ImageId, Proposals], np.ndarray]:
    """All boxes of each image, and the seconds of the processor (I,)."""
    search = SelectiveSearch(preset=SelectiveSearchPreset(preset), max_proposals=None)
    search.check()
    found, seconds = {}, []
    for image_id, image in images.items():
        took = []
        for _ in range(calls):
            begun = time.process_time()
            found[image_id] = search(image)
            took.append(time.process_time() - begun)
        seconds.append(min(took))
    return found, np.array(seconds)


def compare(
    name: str,
    dataset: Dataset,
    ours: str,
    mine: tuple[dict[ImageId, Proposals], np.ndarray],
    reference: str,
    theirs: tuple[dict[ImageId, Proposals], np.ndarray],
) -> None:
    """Print the ratio of times and the numbers of both."""
    (boxes, seconds), (other_boxes, other_seconds) = mine, theirs
    ratios = other_seconds / seconds
    generator = np.random.default_rng(0)
    resampled = np.median(ratios[generator.integers(len(ratios), size=(RESAMPLES, len(ratios)))], axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    print(f"\n{name}, {len(boxes)} images: {ours} beside {reference}")
    print(f"  ms an image (median)  {1000 * np.median(seconds):8.1f} {1000 * np.median(other_seconds):8.1f}")
    print(f"  ratio                 {np.median(ratios):8.1f} [{low:.1f}, {high:.1f}]")
    print(f"  boxes an image        {mean_length(boxes):8.0f} {mean_length(other_boxes):8.0f}")
    measured = {key: measures(dataset, found) for key, found in ((ours, boxes), (reference, other_boxes))}
    for measure in ("recall@0.5", "abo", "ar"):
        first, second = (measured[key][measure] for key in (ours, reference))
        for column, budget in enumerate(BUDGETS):
            print(row(f"{measure} of {budget}", first.columns([column]), second.columns([column])))
    equal = {image_id: found.top(len(other_boxes[image_id])) for image_id, found in boxes.items()}
    first, second = (measures(dataset, found, budgets=(10**9,))["abo"] for found in (equal, other_boxes))
    print(row("abo, as many boxes", first, second), flush=True)


def mean_length(found: dict[ImageId, Proposals]) -> float:
    """Boxes an image."""
    return float(np.mean([len(one) for one in found.values()]))


def measures(
    dataset: Dataset, found: dict[ImageId, Proposals], budgets: tuple[int, ...] = BUDGETS
) -> dict[str, Resampled]:
    """Each measure at each budget, on the images that have proposals here."""
    assert dataset.ground_truth is not None
    truth = {image_id: dataset.ground_truth[image_id] for image_id in found}
    table = overlap_table(truth, found, len(dataset.classes), budgets)
    bootstrap = ImageBootstrap.draw(len(truth), RESAMPLES, 0)
    make: Callable[[str], Resampled] = lambda name: bootstrap.means(  # noqa: E731
        MEASURES[name].values(table.best), table.images, MEASURES[name].groups(table.labels)
    )
    return {name: make(name) for name in ("recall@0.5", "abo", "ar")}


def row(name: str, first: Resampled, second: Resampled) -> str:
    """Both values, and their difference with its interval."""
    difference = paired_difference(first, second).difference
    low, high = difference.interval
    numbers = (
        f"{first.value[0]:8.4f} {second.value[0]:8.4f}   {difference.value[0]:+.4f} [{low[0]:+.4f}, {high[0]:+.4f}]"
    )
    return f"  {name:<22}{numbers}"


if __name__ == "__main__":
    main()
