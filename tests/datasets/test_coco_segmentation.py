"""The box of a segmentation: by hand, and as pycocotools' own code for masks has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detpipe.datasets.coco_segmentation import segmentation_box


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[10, 20, 30, 20, 30, 50.5]], (10, 20, 20, 30.5)),
        ([[10, 20, 30, 20], [5, 60, 6, 60]], (5, 20, 25, 40)),
        ([10, 20, 30, 20, 30, 50], (10, 20, 20, 30)),
        # 4 x 5 pixels: pixels 5 to 7 of the columns are column 1, rows 1 to 3.
        ({"size": [4, 5], "counts": [5, 3, 12]}, (1, 1, 1, 3)),
        # A run from the last row of column 0 to the first of column 1.
        ({"size": [4, 5], "counts": [3, 2, 15]}, (0, 0, 2, 4)),
        ({"size": [4, 5], "counts": [0, 20]}, (0, 0, 5, 4)),
        ({"size": [4, 5], "counts": [20]}, None),
        ({"size": [4, 5], "counts": [3, 0, 17]}, None),
        ({"size": [4, 5], "counts": []}, None),
        ({"size": [4, 5], "counts": ""}, None),
        (None, None),
        ([], None),
        ([[]], None),
        ({}, None),
    ],
)
def test_boxes_by_hand(segmentation: Any, box: tuple[float, ...] | None) -> None:
    assert segmentation_box(segmentation) == box


@pytest.mark.parametrize("seed", range(20))
def test_an_rle_as_pycocotools_reads_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2)
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[rng.integers(0, height) :, rng.integers(0, width) :] = 1
    mask &= (rng.random((height, width)) < rng.choice([0.02, 0.5, 1])).astype(np.uint8)
    mask[-1, -1] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    want = tuple(coco_mask.toBbox(rle).tolist())
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel("F"), prepend=0, append=2)), prepend=0)
    assert segmentation_box({"size": [int(height), int(width)], "counts": rle["counts"].decode()}) == want
    assert segmentation_box({"size": [int(height), int(width)], "counts": runs.tolist()}) == want


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("polygon", "expected polygons or an RLE, got 'polygon'"),
        (7, "expected polygons or an RLE, got 7"),
        ([[1, 2, 3]], r"expected polygons .*got \[1, 2, 3\]"),
        ([[1, "2"]], "expected polygons"),
        ([[1, float("nan")]], "expected polygons"),
        ([[1, 10**400]], "expected polygons"),
        ([[1, 2], 3], "expected polygons"),
        ({"counts": [1]}, r"expected an RLE with size \[height, width\], got None"),
        ({"size": [4, -5], "counts": [1]}, r"got \[4, -5\]"),
        ({"size": [2**70, 5], "counts": [1]}, "expected an RLE with size"),
        ({"size": [4, 5], "counts": None}, "expected an RLE with counts, got None"),
        ({"size": [4, 5], "counts": [1.5]}, "expected an RLE with counts"),
        ({"size": [4, 5], "counts": [-1, 3]}, "expected an RLE with counts"),
        ({"size": [4, 5], "counts": [5, 2**30]}, "at most 4 x 5 pixels"),
        ({"size": [0, 0], "counts": [0, 1]}, "at most 0 x 0 pixels"),
        ({"size": [4, 5], "counts": "\u00e9"}, "expected a compressed RLE"),
        ({"size": [4, 5], "counts": "P"}, "expected a compressed RLE"),
        ({"size": [4, 5], "counts": "o" * 99 + "0"}, "a number of 100 characters"),
        ({"size": [4, 5], "counts": "O"}, "or negative runs"),
        ({"size": [4, 5], "counts": "0" * 1_000_001}, "at most 1,000,000 counts"),
        ({"size": [4, 5], "counts": [0] * 1_000_001}, "at most 1,000,000 counts"),
    ],
)
def test_other_content_is_named(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"segmentation: .*{message}"):
        segmentation_box(segmentation)


def test_a_mask_of_a_billion_pixels_is_not_made() -> None:
    rle = {"size": [2**31 - 1, 2**31 - 1], "counts": [2**30, 5]}
    assert segmentation_box(rle) == (0, 2**30, 1, 5)
