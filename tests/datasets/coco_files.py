"""Random COCO files and result files with what real ones have, and pycocotools' numbers for two files."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detpipe.datasets.coco import CocoSource

HEIGHT, WIDTH = 120, 160


@dataclass(frozen=True)
class CocoFiles:
    """An annotation file, the folder of its images, and a result file."""

    annotations: Path
    images: Path
    results: Path

    @property
    def source(self) -> CocoSource:
        return CocoSource(test_json=str(self.annotations), test_images=str(self.images))

    @property
    def settings(self) -> list[str]:
        return ["dataset=coco", f"dataset.test_json={self.annotations}", f"dataset.test_images={self.images}"]


def write_files(folder: Path, annotations: list[Any], results: list[Any], images: int, categories: int) -> CocoFiles:
    """Image ids 10, 20, ... in falling order; category ids 2, 4, ..."""
    pictures = folder / "images"
    pictures.mkdir(parents=True)
    ids = [10 * (number + 1) for number in reversed(range(images))]
    for image_id in ids:
        cv2.imwrite(str(pictures / f"{image_id}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    content = {
        "images": [{"id": one, "file_name": f"{one}.png", "height": HEIGHT, "width": WIDTH} for one in ids],
        "categories": [{"id": 2 * k, "name": f"class {k}"} for k in range(1, categories + 1)],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
    }
    files = CocoFiles(folder / "objects.json", pictures, folder / "results.json")
    files.annotations.write_text(json.dumps(content))
    files.results.write_text(json.dumps(results))
    return files


def random_files(
    folder: Path, seed: int, *, decimals: int, scores: int, images: int = 12, per_object: int = 4
) -> CocoFiles:
    """Objects beyond the border, without width, crowds, of any size; images and categories without objects.

    decimals: of the boxes. scores: number of different scores, so that few give many ties. The results are shuffled;
    some have another class, some hit exactly, and some are of a category that the file doesn't have.
    """
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 7)):  # some images have none
            size = rng.choice([8, 32, 60, 96, 200]) * rng.uniform(0.5, 1.5, 2)
            size[rng.random(2) < 0.05] = 0
            size[rng.random(2) < 0.2] = 32
            corner = rng.uniform([-0.5 * WIDTH, -0.5 * HEIGHT], [WIDTH, HEIGHT])
            box = np.round(np.concatenate([corner, size]), decimals)
            category = int(2 * rng.integers(1, 4))  # category 8 has no objects
            annotations.append(
                {
                    "image_id": 10 * image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    # The area of a mask, which is not that of the box.
                    "area": float(box[2] * box[3] * rng.choice([1, 1, 0.4])),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, per_object + 1)):
                moved = np.round(box + rng.choice([0, 0.1]) * rng.normal(0, 1, 4) * box[[2, 3, 2, 3]], decimals)
                if rng.random() < 0.2:
                    moved[2:] = np.round(box[2:] * [1, 0.5], decimals)  # an IoU of exactly 0.5, if it is not rounded
                results.append(
                    {
                        "image_id": 10 * image,
                        "category_id": category if rng.random() < 0.8 else int(2 * rng.integers(1, 6)),
                        "bbox": [*moved[:2].tolist(), *np.abs(moved[2:]).tolist()],
                        "score": float(rng.integers(1, scores + 1) / scores),
                    }
                )
    rng.shuffle(results)  # type: ignore[arg-type]
    return write_files(folder, annotations, results, images, 4)


def pycocotools_numbers(files: CocoFiles) -> npt.NDArray[np.float64]:
    """The twelve numbers; NaN where pycocotools has -1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(files.annotations))
        run = COCOeval(coco, coco.loadRes(str(files.results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    numbers = np.asarray(run.stats)
    return np.where(numbers == -1, np.nan, numbers)
