"""Moves near-duplicates behind all other boxes: non-maximum suppression that drops nothing.

A box is a near-duplicate if its IoU with a better box is above 4 / 5 (Hosang et al., PAMI 2015, and the authors of edge
boxes choose between 0.75 and 0.9, for recall at high IoU). It uses integers and not torch, which a worker process takes
seconds to import. `boxes.nms` is for detections.
"""

from __future__ import annotations

import numpy as np

from detpipe.jit import compiled
from detpipe.proposals.selective_search.felzenszwalb import Int32Array
from detpipe.structures import Int64Array


@compiled
def _step(side: int) -> tuple[int, int]:
    """The size class of a side's length: its index and its largest length, at most 5 / 4 of its smallest."""
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
    """Whether a kept box has IoU > 4 / 5 with this one."""
    x1, y1, x2, y2 = boxes[this, 0], boxes[this, 1], boxes[this, 2], boxes[this, 3]
    wide, high = x2 - x1, y2 - y1
    # At IoU > 0.8 sides differ by a factor of less than 5 / 4, so they are in the same or a neighbouring class. Centres
    # differ by at most an eighth of the side: (w1 + w2) / 18 if neither contains the other, else |w1 - w2| / 2.
    # Twice the centre is an integer.
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
def duplicates_last(boxes: Int32Array, order: Int64Array) -> Int64Array:
    """Greedy suppression at IoU > 0.8. boxes: (N, 4) int32, with an area, x1 y1 x2 y2 from 0 to 2^15.

    order: (M,) int64, indices of all or some of the boxes, best first -> (M,) int64, the kept boxes in this order, then
    the near-duplicates in this order. No boxes give (0,).
    """
    longest_side = 1
    for this in order:
        longest_side = max(longest_side, boxes[this, 2] - boxes[this, 0], boxes[this, 3] - boxes[this, 1])
    # The class of each length, and the largest length of each class, which is half the width of its cells.
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
    # Kept boxes by cells of (class of width, class of height, position of the centre), as chains from `heads`.
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
        cell_x = (boxes[this, 0] + boxes[this, 2]) // (2 * longest[column])
        cell_y = (boxes[this, 1] + boxes[this, 3]) // (2 * longest[row])
        slot = _slot(column, row, cell_x, cell_y, slots - 1)
        following[this] = heads[slot]
        heads[slot] = this
    for i in range(n_behind):
        sorted_boxes[n_kept + i] = behind[i]
    return sorted_boxes
