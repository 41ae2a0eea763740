"""The VOC devkit's evaluation, step by step in plain Python: what our numpy code is compared with.

Boxes are VOC's own: xmin ymin xmax ymax, inclusive pixels counted from 1.
"""

from __future__ import annotations

from typing import NamedTuple


class Object(NamedTuple):
    image: str
    box: tuple[int, int, int, int]
    difficult: bool = False


class Found(NamedTuple):
    image: str
    score: float
    box: tuple[int, int, int, int]


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    sizes = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(sizes) - width * height)


def curve(objects: list[Object], detections: list[Found], least: float = 0.5) -> tuple[list[float], list[float]]:
    """Recall and precision after each detection of one class."""
    to_find = sum(not one.difficult for one in objects)
    taken: set[int] = set()
    right = wrong = 0
    recall, precision = [], []
    for one in sorted(detections, key=lambda d: -d.score):
        best, chosen = float("-inf"), -1
        for index, candidate in enumerate(objects):
            if candidate.image == one.image and 0 < (shared := overlap(one.box, candidate.box)) > best:
                best, chosen = shared, index
        if best < least:
            wrong += 1
        elif not objects[chosen].difficult:
            right, wrong = (right, wrong + 1) if chosen in taken else (right + 1, wrong)
            taken.add(chosen)
        if right + wrong:
            recall.append(right / to_find)
            precision.append(right / (right + wrong))
    return recall, precision


def ap_07(recall: list[float], precision: list[float]) -> float:
    best = [max((p for r, p in zip(recall, precision, strict=True) if r >= k / 10), default=0.0) for k in range(11)]
    return sum(best) / 11


def ap_10(recall: list[float], precision: list[float]) -> float:
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r)))
