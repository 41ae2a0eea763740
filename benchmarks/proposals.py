"""Selective search in several settings on the first test images of VOC folders: seconds an image and recall.

    python benchmarks/proposals.py FOLDER [FOLDER ...] [--images 10]

One process, OpenCV's threads off; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2

from detpipe import SelectiveSearch, load_dataset
from detpipe.datasets.image_file import read_image
from detpipe.metrics.proposal_recall import proposal_recall

SETTINGS = {
    "opencv_fast, max_side=null": SelectiveSearch(preset="opencv_fast", max_side=None),
    "opencv_fast, max_side=null, order=paper": SelectiveSearch(preset="opencv_fast", max_side=None, order="paper"),
    "opencv_fast, max_side=400, order=paper": SelectiveSearch(preset="opencv_fast", max_side=400, order="paper"),
    "default": SelectiveSearch(),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=10)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    for folder in arguments.folders:
        dataset = load_dataset("voc", "test", root=str(folder))
        records = dataset.records[: arguments.images]
        assert dataset.ground_truth is not None
        truth = {record.image_id: dataset.ground_truth[record.image_id] for record in records}
        images = {record.image_id: read_image(record.path) for record in records}
        print(f"{folder.name}, {len(records)} images: s / image, recall@0.5 of 100 and 1000, AR of 1000")
        for name, search in SETTINGS.items():
            begun = time.process_time()
            proposals = {image_id: search(image) for image_id, image in images.items()}
            seconds = (time.process_time() - begun) / len(records)
            few, many = (
                recall.to_json()
                for recall in proposal_recall(truth, proposals, len(dataset.classes), budgets=(100, 1000)).values()
            )
            numbers = f"{few['recall@0.5']:.3f}  {many['recall@0.5']:.3f}  {many['ar']:.3f}"
            print(f"{name:<42}{seconds:5.2f}  {numbers}", flush=True)


if __name__ == "__main__":
    main()
