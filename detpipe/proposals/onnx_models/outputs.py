"""The outputs of a box model as boxes and scores, by the layouts of `presets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.proposals.onnx_models.presets import Activation, Background, BoxForm, Layout, ModelForm

Numbers = npt.NDArray[np.float64]
Outputs = Mapping[str, npt.NDArray[Any]]


class OutputError(ValueError):
    """The outputs of a model don't have the layout of the settings."""


def boxes_of(outputs: Outputs, form: ModelForm, input_size: tuple[int, int]) -> tuple[Numbers, Numbers]:
    """Boxes (N, 4), x1 y1 x2 y2 in pixels of the input, and the score (N,) of each one's best class, in any order.

    input_size: (height, width). N = 0 gives (0, 4) and (0,). Raises OutputError for outputs of another layout, and for
    numbers that are not finite.
    """
    if form.layout is Layout.separate:
        boxes, scores = _separate(outputs, form)
    else:
        boxes, scores = _joined(outputs, form, input_size)
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise OutputError("expected finite boxes and scores, got NaN or infinity")
    _check_units(boxes, scores, form)
    _check_order(boxes, scores, form)
    if form.normalised:
        height, width = input_size
        sides = (height, width) if form.box_form is BoxForm.yxyx else (width, height)
        boxes = boxes * np.tile(sides, 2)
    return _corners(boxes, form.box_form), scores


def _check_units(boxes: Numbers, scores: Numbers, form: ModelForm) -> None:
    """Raise OutputError for pixels in place of shares and the reverse, and for scores that are logits."""
    used = boxes[(boxes != 0).any(axis=1)]
    # Single boxes with low scores may be anywhere.
    typical = float(np.median(np.abs(used).max(axis=1))) if len(used) else 0.0
    if not form.normalised and 0 < typical <= _LARGEST_SHARE:
        raise OutputError(
            f"expected boxes in pixels of the input, got most numbers below {typical:.3g}, as of shares of its sides; "
            "give another preset (rt_detr_ultralytics, rt_detr_transformers), or proposals.normalised=true"
        )
    if not form.normalised and len(used) > _FEW_BOXES and typical < _LARGEST_RELATIVE:
        raise OutputError(
            f"expected boxes in pixels of the input, got {len(used)} boxes with most numbers below {typical:.3g}, as "
            "of YOLOX, whose boxes are relative to cells; give proposals.preset=yolox or another proposals.preset"
        )
    if form.normalised and typical > 2 * _LARGEST_SHARE:
        raise OutputError(
            f"expected boxes as shares of the input's sides, got {typical:.4g}, as of pixels; give "
            "proposals.normalised=false"
        )
    if len(scores) and scores.min() < -1e-3:
        raise OutputError(
            f"expected scores from 0, got {scores.min():.3g}, as of logits; give proposals.activation=sigmoid or "
            "proposals.activation=softmax"
        )
    if len(scores) and scores.max() > _LARGEST_SCORE:
        raise OutputError(
            f"expected scores up to 1, got {scores.max():.4g}, as of numbers of another meaning; give "
            "proposals.classes=N for a model of masks or keypoints, proposals.activation=sigmoid for logits, or "
            "another proposals.preset or proposals.layout"
        )


def _check_order(boxes: Numbers, scores: Numbers, form: ModelForm) -> None:
    """Raise OutputError if corners are centres with sizes. Boxes with low scores may be anything."""
    if form.box_form in (BoxForm.cxcywh, BoxForm.xywh):
        return
    sure = boxes[scores >= _SURE]
    turned = int((sure[:, 2:] < sure[:, :2]).any(axis=1).sum())
    if turned > max(1, len(sure) / 2):
        raise OutputError(
            f"expected boxes {form.box_form.value}, got {turned} of {len(sure)} whose end is before their start, as of "
            "a centre and a size; give proposals.box_form=cxcywh or another proposals.preset"
        )


_MOST_NUMBERS = 2048
"""Numbers of one box. A model of 1,203 classes and 32 masks has 1,240; the smallest has more boxes than this."""
_LARGEST_SHARE = 1.5
"""A box may lie a little outside the image."""
_LARGEST_SCORE = 1.01
"""Numbers of 16 bits are rounded."""
_SURE = 0.05
_FEW_BOXES = 100
_LARGEST_RELATIVE = 12
"""Above any offset from a cell in cells, and any logarithm of a box's side in cells."""
_LARGEST_LOGARITHM = 20
"""Of a box's side in cells."""
_FEW = {
    Layout.rows: (0, 4, 5),
    Layout.class_rows: (2, 1, 0),
    Layout.image_rows: (1, 5, 6),
    Layout.image_class_rows: (1, 6, 5),
}
"""Layout of a box with one score -> the columns of the box's first number, its score and its class."""


def _joined(outputs: Outputs, form: ModelForm, input_size: tuple[int, int]) -> tuple[Numbers, Numbers]:
    """Boxes and scores of one output that holds both."""
    tables = [one for one, value in outputs.items() if value.dtype.kind == "f" and _without_batch(value).ndim == 2]
    name = _named(outputs, form.boxes_output) or (tables[0] if len(tables) == 1 else None)
    if name is None:
        raise OutputError(
            f"expected one output (1, N, M) of boxes with scores, got {_shapes(outputs)}; {_OTHER}, or name the output "
            "as proposals.boxes_output=NAME; raw maps of several strides aren't decoded here"
        )
    rows = _without_batch(outputs[name])
    if rows.ndim != 2:
        raise OutputError(f"expected an output (1, N, M) of boxes with scores, got {_shapes(outputs)}; {_OTHER}")
    stated = f"an output {name} {outputs[name].shape}"
    if form.layout in _FEW:
        return _one_score(rows, form.layout, stated)
    layout = _yolo_layout(rows, form.classes, input_size, stated) if form.layout is Layout.yolo else form.layout
    if layout is Layout.columns:
        rows = rows.T
    first = 5 if layout is Layout.objectness else 4
    if not first < rows.shape[1] <= _MOST_NUMBERS:
        raise OutputError(
            f"expected more than {first} and at most {_MOST_NUMBERS} numbers per box for layout {layout.value}, got "
            f"{stated}; {_OTHER}"
        )
    masks = [one for one, value in outputs.items() if value.ndim == 4]
    if masks and form.classes is None:
        raise OutputError(
            f"expected boxes alone, got an output {masks[0]} {outputs[masks[0]].shape} as of a model of masks; give "
            "the number of its classes as proposals.classes=N"
        )
    scores = _best(rows[:, first:], form)
    boxes = _from_cells(rows[:, :4], form.strides, input_size, stated) if form.strides else rows[:, :4]
    return boxes, scores * rows[:, 4] if layout is Layout.objectness else scores


def _one_score(rows: Numbers, layout: Layout, stated: str) -> tuple[Numbers, Numbers]:
    """Boxes and scores of rows with one score each, and the number of a class."""
    box, score, label = _FEW[layout]
    if not max(box + 4, score + 1) <= rows.shape[1] <= _MOST_NUMBERS:
        raise OutputError(f"expected rows of a box and one score for layout {layout.value}, got {stated}; {_OTHER}")
    if label < rows.shape[1] and (rows[:, label] % 1 != 0).any():
        raise OutputError(
            f"expected whole numbers of classes in column {label} for layout {layout.value}, got {stated} with others, "
            f"as of a model without built-in NMS; {_OTHER}"
        )
    if label < rows.shape[1]:
        rows = rows[rows[:, label] >= 0]  # -1 fills rows without a box
    return rows[:, box : box + 4], rows[:, score]


def _yolo_layout(rows: Numbers, classes: int | None, input_size: tuple[int, int], stated: str) -> Layout:
    """`columns` or `objectness`. Raises OutputError for an output that is neither, or as of another project."""
    if classes is not None and rows.shape[0] == 4 + classes and rows.shape[1] != 5 + classes:
        return Layout.columns  # few boxes of many classes
    if rows.shape[0] == rows.shape[1]:
        raise OutputError(
            f"expected more boxes than numbers per box, got {stated}; "
            "give proposals.layout=columns or proposals.layout=objectness"
        )
    if rows.shape[0] < rows.shape[1]:
        return Layout.columns
    if rows.shape[1] == 6 and (rows[:, 5] % 1 == 0).all():
        raise OutputError(
            f"expected objectness and scores, got {stated} with whole numbers behind one score, as of built-in NMS; "
            "give proposals.preset=yolo_nms, or proposals.layout=objectness"
        )
    if len(rows) == len(_cells(input_size, (8, 16, 32))):
        raise OutputError(
            f"expected some boxes for each cell of the input as of YOLOv5 and YOLOv7, got one in {stated}; give "
            "proposals.preset=yolox, or proposals.layout=objectness for YOLOv6"
        )
    return Layout.objectness


def _cells(input_size: tuple[int, int], strides: Sequence[int]) -> Numbers:
    """The cells of grids, row by row: (N, 3), x and y in cells, and the side in pixels."""
    grids = []
    for stride in strides:
        y, x = np.indices((input_size[0] // stride, input_size[1] // stride)).reshape(2, -1)
        grids.append(np.stack([x, y, np.full(len(x), stride)], axis=1).astype(np.float64))
    return np.concatenate(grids)


def _from_cells(boxes: Numbers, strides: Sequence[int], input_size: tuple[int, int], stated: str) -> Numbers:
    """Boxes as offsets from cells and logarithms of sizes in cells (YOLOX, arXiv:2107.08430) in pixels: (N, 4)."""
    cells = _cells(input_size, strides)
    if len(cells) != len(boxes) or boxes[:, 2:].max(initial=0) > _LARGEST_LOGARITHM:
        raise OutputError(
            f"expected a box relative to each of {len(cells)} cells of {list(strides)} pixels, got {stated} up to "
            f"{boxes.max(initial=0):.4g}; give other proposals.strides, or [] for boxes in pixels of the input"
        )
    side = cells[:, 2:]
    return np.concatenate([(boxes[:, :2] + cells[:, :2]) * side, np.exp(boxes[:, 2:]) * side], axis=1)


def _separate(outputs: Outputs, form: ModelForm) -> tuple[Numbers, Numbers]:
    """Boxes and scores of two outputs, found by their names, else by their shapes."""
    with_four = [name for name, value in outputs.items() if value.ndim > 1 and value.shape[-1] == 4]
    boxes_name = _named(outputs, form.boxes_output) or (with_four[0] if len(with_four) == 1 else None)
    floats = [name for name, value in outputs.items() if name != boxes_name and value.dtype.kind == "f"]
    scores_name = _named(outputs, form.scores_output) or (floats[0] if len(floats) == 1 else None)
    if boxes_name is None or scores_name is None:
        raise OutputError(
            f"expected an output of boxes and one of scores, got {_shapes(outputs)}; name them as "
            "proposals.boxes_output=NAME and proposals.scores_output=NAME, or give another proposals.preset"
        )
    boxes, scores = np.asarray(outputs[boxes_name], np.float64), np.asarray(outputs[scores_name], np.float64)
    if boxes.ndim == 3 and len(boxes) == 1:
        boxes = boxes[0]
        scores = scores[0] if len(scores) == 1 and scores.ndim > 1 else scores
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.ndim not in (1, 2) or len(scores) != len(boxes):
        raise OutputError(
            f"expected boxes (1, N, 4) and scores (1, N) or (1, N, C), got {boxes_name} {outputs[boxes_name].shape} "
            f"and {scores_name} {outputs[scores_name].shape}; {_OTHER}"
        )
    if scores.ndim == 1:
        return boxes, _activated(scores, form.activation)
    return boxes, _best(scores, form)


def _best(scores: Numbers, form: ModelForm) -> Numbers:
    """The score of each box's best class: (N, C) -> (N,)."""
    scores = _activated(scores[:, : form.classes], form.activation)
    if form.background is not Background.none:
        scores = scores[:, 1:] if form.background is Background.first else scores[:, :-1]
    if not scores.shape[1]:
        raise OutputError(f"expected scores of classes, got none beside the background; {_OTHER}")
    return np.asarray(scores.max(axis=1))


def _activated(values: Numbers, activation: Activation) -> Numbers:
    if activation is Activation.none:
        return values
    if activation is Activation.sigmoid:
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))
    with np.errstate(invalid="ignore"):  # `boxes_of` refuses what is not finite
        powers = np.exp(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _corners(boxes: Numbers, form: BoxForm) -> Numbers:
    if form is BoxForm.yxyx:
        return boxes[:, [1, 0, 3, 2]]
    if form is BoxForm.xyxy:
        return boxes
    first, size = boxes[:, :2], boxes[:, 2:]
    corner = first - size / 2 if form is BoxForm.cxcywh else first
    return np.concatenate([corner, corner + size], axis=1)


def _without_batch(value: npt.NDArray[Any]) -> Numbers:
    array = np.asarray(value, np.float64) if value.dtype.kind in "fiu" else np.zeros(())
    return array[0] if array.ndim == 3 and len(array) == 1 else array


def _named(outputs: Outputs, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in outputs), None)


def _shapes(outputs: Outputs) -> str:
    return ", ".join(f"{name} {value.shape}" for name, value in outputs.items())


_OTHER = "give another proposals.preset or proposals.layout"
