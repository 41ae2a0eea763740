"""Writes docs/demo.jpg: detections on six test images of the demo, from a finished run.

python tools/demo_picture.py [runs/demo]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

from detpipe import load_dataset
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.image_file import read_image
from detpipe.report.drawing import contact_sheet, draw_detections


def main(run_dir: str = "runs/demo", data: str = "runs/demo_data") -> None:
    """Draw every sixth test image's detections of 0.7 or more."""
    dataset = load_dataset("demo", "test", root=data)
    detections = read_detections(Path(run_dir) / "detections.json", dataset)
    pictures = [
        draw_detections(read_image(record.path), detections[record.image_id], dataset.classes, min_score=0.7)
        for record in dataset.records[2:32:5]
    ]
    sheet = contact_sheet(pictures, columns=3, cell=(240, 320))
    cv2.imwrite(str(Path(__file__).parents[1] / "docs" / "demo.jpg"), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(*sys.argv[1:])
