"""Boxes that almost repeat a better one, put behind all others: non-maximum suppression that loses nothing.

A box is behind where it has IoU > 4 / 5 to a better one (Hosang et al., PAMI 2015, and the authors of edge boxes choose
between 0.75 and 0.9, for recall at high IoU). In integers, and without torch, which takes a worker process seconds to
import; `boxes.nms` is the one for detections.
"""

from __future__ import annotations

import numpy as np

from detpipe.jit import compiled
from detpipe.proposals.selective_search.felzenszwalb import Int32Array
from detpipe.structures import Int64Array


def duplicates_last(boxes: Int32Array, order: Int64Array) -> Int64Array:
    """Greedy suppression at IoU > 0.8. boxes: (N, 4) int32, with an area, x1 y1 x2 y2 from 0 to 2^15.

    order: (M,) int64, rows of all or some of the boxes, best first -> (M,) int64, those that stay in this order, then
    the others in this order. Of no boxes: none.
    """
    return _duplicates_last(boxes, order)


@compiled
def _step(side: int) -> tuple[int, int]:
    """The class of a side's length: its number and its largest length, a quarter over the smallest at most."""
    number, largest = 0, 1
    while largest < side:
        largest = max(largest + 1, largest * 5 // 4)
        number += 1
    return number, largest


@compiled
def _slot(a: int, b: int, c: int, d: int, mask: int) -> int:
    return ((a * 0x9E3779B1 + b * 0x85EBCA6B + c * 0xC2B2AE35 + d * 0x27D4EB2F) >> 9) & mask


@compiled
def _repeats(
    boxes: Int32Array,
    this: int,
    heads: Int32Array,
    following: Int32Array,
    class_of: Int64Array,
    longest: Int64Array,
) -> bool:
    """Whether a box that stays has IoU > 4 / 5 with this one."""
    x1, y1, x2, y2 = boxes[this, 0], boxes[this, 1], boxes[this, 2], boxes[this, 3]
    wide, high = x2 - x1, y2 - y1
    # Above IoU 0.8 sides differ by a factor of less than 5 / 4, which is the same class or the next, and centres by at
    # most an eighth of the side: (w1 + w2) / 18 where neither holds the other, |w1 - w2| / 2 where one does. Twice the
    # centre is a whole number.
    middle_x, middle_y, reach_x, reach_y = x1 + x2, y1 + y2, wide // 4 + 1, high // 4 + 1
    for a in range(max(class_of[wide] - 1, 0), min(class_of[wide] + 2, len(longest))):
        cell_x = 2 * longest[a]
        for b in range(max(class_of[high] - 1, 0), min(class_of[high] + 2, len(longest))):
            cell_y = 2 * longest[b]
            last_x, last_y = (middle_x + reach_x) // cell_x, (middle_y + reach_y) // cell_y
            for cx in range((middle_x - reach_x) // cell_x, last_x + 1):
                for cy in range((middle_y - reach_y) // cell_y, last_y + 1):
                    other = heads[_slot(a, b, cx, cy, len(heads) - 1)]
                    while other >= 0:
                        shared_x = min(x2, boxes[other, 2]) - max(x1, boxes[other, 0])
                        shared_y = min(y2, boxes[other, 3]) - max(y1, boxes[other, 1])
                        other_wide, other_high = boxes[other, 2] - boxes[other, 0], boxes[other, 3] - boxes[other, 1]
                        both = wide * high + other_wide * other_high
                        # IoU > 4 / 5, without a division.
                        if shared_x > 0 and shared_y > 0 and 9 * shared_x * shared_y > 4 * both:
                            return True
                        other = following[other]
    return False


@compiled
def _duplicates_last(boxes: Int32Array, order: Int64Array) -> Int64Array:
    longest_side = 1
    for this in order:
        longest_side = max(longest_side, boxes[this, 2] - boxes[this, 0], boxes[this, 3] - boxes[this, 1])
    # From a length to its class, and from a class to the longest in it: half the width of its cells.
    class_of = np.empty(longest_side + 1, np.int64)
    for side in range(longest_side + 1):
        class_of[side] = _step(side)[0]
    longest = np.zeros(class_of[longest_side] + 2, np.int64)
    for side in range(longest_side + 1):
        longest[class_of[side]] = max(longest[class_of[side]], side)
    longest[class_of[longest_side] + 1] = longest_side + 1
    slots = 256
    while slots < 2 * len(order):
        slots *= 2
    # Boxes that stay, in cells of (class of width, class of height, place of the centre): chains from `heads`.
    heads = np.full(slots, -1, np.int32)
    following = np.full(len(boxes), -1, np.int32)
    sorted_boxes = np.empty(len(order), np.int64)
    behind = np.empty(len(order), np.int64)
    n_kept, n_behind = 0, 0
    for this in order:
        if _repeats(boxes, this, heads, following, class_of, longest):
            behind[n_behind] = this
            n_behind += 1
            continue
        sorted_boxes[n_kept] = this
        n_kept += 1
        column, row = class_of[boxes[this, 2] - boxes[this, 0]], class_of[boxes[this, 3] - boxes[this, 1]]
        place_x = (boxes[this, 0] + boxes[this, 2]) // (2 * longest[column])
        place_y = (boxes[this, 1] + boxes[this, 3]) // (2 * longest[row])
        slot = _slot(column, row, place_x, place_y, slots - 1)
        following[this] = heads[slot]
        heads[slot] = this
    for i in range(n_behind):
        sorted_boxes[n_kept + i] = behind[i]
    return sorted_boxes
