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
        boxes, scores = _joined(outputs, form)
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise OutputError("expected finite boxes and scores, got NaN or infinity")
    _check_units(boxes, scores, form)
    if form.normalised:
        height, width = input_size
        sides = (height, width) if form.box_form is BoxForm.yxyx else (width, height)
        boxes = boxes * np.tile(sides, 2)
    return _corners(boxes, form.box_form), scores


def _check_units(boxes: Numbers, scores: Numbers, form: ModelForm) -> None:
    """Raise OutputError for pixels in place of shares and the reverse, and for scores that are logits."""
    largest = np.abs(boxes).max(initial=0)
    if not form.normalised and 0 < largest <= _LARGEST_SHARE:
        raise OutputError(
            f"expected boxes in pixels of the input, got none above {largest:.3g}, as of shares of its sides; give "
            "proposals.normalised=true"
        )
    if form.normalised and largest > 4 * _LARGEST_SHARE:
        raise OutputError(
            f"expected boxes as shares of the input's sides, got {largest:.4g}, as of pixels; give "
            "proposals.normalised=false"
        )
    if len(scores) and scores.min() < -1e-3:
        raise OutputError(
            f"expected scores from 0, got {scores.min():.3g}, as of logits; give proposals.activation=sigmoid or "
            "proposals.activation=softmax"
        )


_MOST_NUMBERS = 2048
"""Numbers of one box. A model of 1,203 classes and 32 masks has 1,240; the smallest has more boxes than this."""
_LARGEST_SHARE = 1.5
"""A box may lie a little outside the image."""


def _joined(outputs: Outputs, form: ModelForm) -> tuple[Numbers, Numbers]:
    """Boxes and scores of one output that holds both."""
    name = _named(outputs, form.boxes_output) or next(
        (one for one, value in outputs.items() if _without_batch(value).ndim == 2), None
    )
    if name is None:
        raise OutputError(f"expected an output (1, N, M) of boxes with scores, got {_shapes(outputs)}; {_OTHER}")
    rows, layout = _without_batch(outputs[name]), form.layout
    if rows.ndim != 2:
        raise OutputError(f"expected an output (1, N, M) of boxes with scores, got {_shapes(outputs)}; {_OTHER}")
    if layout is Layout.yolo:
        if rows.shape[0] == rows.shape[1]:
            raise OutputError(
                f"expected more boxes than numbers per box, got an output {name} {outputs[name].shape}; "
                "give proposals.layout=columns or proposals.layout=objectness"
            )
        layout = Layout.columns if rows.shape[0] < rows.shape[1] else Layout.objectness
    if layout is Layout.columns:
        rows = rows.T
    first = {Layout.columns: 4, Layout.objectness: 5, Layout.rows: 4}[layout]
    if not first < rows.shape[1] <= _MOST_NUMBERS:
        raise OutputError(
            f"expected more than {first} and at most {_MOST_NUMBERS} numbers per box for layout {layout.value}, got an "
            f"output {name} {outputs[name].shape}; {_OTHER}"
        )
    if layout is Layout.rows:
        return rows[:, :4], rows[:, 4]
    masks = [one for one, value in outputs.items() if value.ndim == 4]
    if masks and form.classes is None:
        raise OutputError(
            f"expected boxes alone, got an output {masks[0]} {outputs[masks[0]].shape} as of a model of masks; give "
            "the number of its classes as proposals.classes=N"
        )
    scores = _best(rows[:, first:], form)
    return rows[:, :4], scores * rows[:, 4] if layout is Layout.objectness else scores


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
