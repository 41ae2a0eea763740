"""The page of a network's activations and gradients: their scale, statistics by layer, and feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detpipe.inspect.signal_scale import LIMIT, SignalScale, Verdict, activation_scale, gradient_scale
from detpipe.inspect.signals import LayerSignal, Signals
from detpipe.inspect.tensor_statistics import TensorStatistics
from detpipe.report import page
from detpipe.report.figure_style import (
    ACCENT,
    INK,
    SECOND,
    STYLE,
    WIDTH,
    hex_colour,
    legend,
    one_panel,
    plain_log_axis,
    share_axis,
    short_name,
)
from detpipe.report.page import Picture
from detpipe.report.text_table import significant, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

HEAD = (
    *("layer", "type", "output", "weights std", "activations mean", "activations std", "zeros", "dead"),
    *("gradients std", "weight gradients std"),
)
MAX_TEXT_ROWS = 40
"""With more layers than this, the terminal shows only layers with weights. The page shows all."""
MAX_NAMED = 30
"""With more layers than this, names on the axis are unreadable and left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SignalsPage:
    """The content of the page.

    subtitle: the network and its images. maps: images of the feature maps next to the input, by layer name.
    """

    subtitle: str
    signals: Signals
    maps: Mapping[str, Image]


def write_signals_page(path: Path, data: SignalsPage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: SignalsPage) -> str:
    """The page as HTML."""
    return page.render(
        "signals.html",
        data.subtitle,
        sentences=scale_sentences(data.signals),
        figures=signals_figures(data.signals),
        maps=[Picture(image, f"maps of {name}", name, quality=90) for name, image in data.maps.items()],
        head=HEAD,
        rows=[_row(layer) for layer in data.signals.layers],
    )


def signals_text(data: SignalsPage) -> str:
    """The table and the verdict as plain text."""
    layers = data.signals.layers
    shown = layers if len(layers) <= MAX_TEXT_ROWS else [one for one in layers if one.weight is not None]
    left_out = len(layers) - len(shown)
    note = [f"{left_out} layers without weights are only in the page and the JSON"] if left_out else []
    rows = [_data_row(data.signals), *map(_row, shown)]
    return "\n".join([text_table(HEAD, rows), *note, "", *scale_sentences(data.signals)])


def scale_sentences(signals: Signals) -> list[str]:
    """The loss, and how the scale of activations and gradients changes through the network."""
    sentences = [f"Loss {significant(signals.loss, 4)}."]
    for what, scale, way, size in (
        ("Activations", activation_scale(signals), "first layer with weights to the last", "standard deviation"),
        ("Gradients", gradient_scale(signals), "last layer with weights back to the first", "length"),
    ):
        if scale is not None:
            sentences.append(f"{what} {VERDICTS[scale.verdict]}: from the {way} their {size} {_change(scale)}.")
    return sentences


VERDICTS = {
    Verdict.holds: f"stay within {LIMIT:g} times",
    Verdict.explodes: f"explode (more than {LIMIT:g} times)",
    Verdict.vanishes: f"vanish (less than 1/{LIMIT:g})",
}


def _change(scale: SignalScale) -> str:
    return (
        f"goes from {significant(scale.start)} to {significant(scale.end)}, which is {significant(scale.factor)} times "
        f"in {scale.layers} layers, {significant(scale.factor_a_layer)} a layer"
    )


def _row(layer: LayerSignal) -> Sequence[str]:
    wrong = layer.activation.not_finite
    return [
        layer.name,
        layer.kind,
        " x ".join(map(str, layer.shape)),
        _std(layer.weight.std if layer.weight else None),
        significant(layer.activation.mean),
        significant(layer.activation.std) + (f" ({wrong:,} not finite)" if wrong else ""),
        f"{layer.activation.zeros:.1%}",
        "–" if layer.dead is None else f"{layer.dead:.1%}",
        _std(layer.gradient.std if layer.gradient else None),
        _std(layer.weight_gradient.std if layer.weight_gradient else None),
    ]


def _data_row(signals: Signals) -> Sequence[str]:
    data = signals.data
    empty = [""] * 2
    return ["data", *empty, "", significant(data.mean), significant(data.std), f"{data.zeros:.1%}", "", *empty]


def _std(value: float | None) -> str:
    return "" if value is None else significant(value)


def signals_figures(signals: Signals) -> dict[str, Figure]:
    """Figures by title: standard deviations at the layers with weights (log axis), and zeros in each layer's output.

    Standard deviations of 0 and NaN are left out.
    """
    return {
        "Standard deviations": one_panel(WIDTH, 4.4, lambda axes: _scales(axes, signals, named=True)),
        "Share of zeros": one_panel(WIDTH, 3.2, lambda axes: _zeros(axes, signals, named=True)),
    }


def signals_figure(signals: Signals) -> Figure:
    """Both panels of `signals_figures`, one above the other, for a PNG file."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 1))
        _scales(upper, signals, named=False)
        _zeros(lower, signals, named=True)
        return figure


def _scales(axes: Axes, signals: Signals, *, named: bool) -> None:
    indices = _with_weights(signals)
    layers = [signals.layers[i] for i in indices]
    _stds(axes, indices, [layer.activation for layer in layers], ACCENT, "activations", "o-")
    _stds(axes, indices, [layer.gradient for layer in layers], SECOND, "activation gradients", "o-")
    _stds(axes, indices, [layer.weight for layer in layers], hex_colour(2), "weights", "s--")
    _stds(axes, indices, [layer.weight_gradient for layer in layers], hex_colour(5), "weight gradients", "s--")
    axes.set_yscale("log")
    plain_log_axis(axes)
    axes.set_ylabel("standard deviation")
    legend(axes, columns=2)
    if named:
        _layer_axis(axes, signals)


def _with_weights(signals: Signals) -> list[int]:
    return [i for i, layer in enumerate(signals.layers) if layer.weight is not None]


def _layer_axis(axes: Axes, signals: Signals) -> None:
    """The names of the layers with weights, unless there are too many."""
    indices = _with_weights(signals)
    axes.set_xlabel("layer, in order of execution")
    if 0 < len(indices) <= MAX_NAMED:
        names = [short_name(signals.layers[i].name[-24:], 24) for i in indices]
        axes.set_xticks(indices, names, rotation=90, fontsize=8)


def _stds(
    axes: Axes, indices: Sequence[int], found: Sequence[TensorStatistics | None], colour: str, label: str, line: str
) -> None:
    there = [(x, one.std) for x, one in zip(indices, found, strict=True) if one is not None and one.std > 0]
    if there:
        axes.plot(*zip(*there, strict=True), line, color=colour, label=label, markersize=4, linewidth=1.3)


def _zeros(axes: Axes, signals: Signals, *, named: bool) -> None:
    layers = signals.layers
    shares = np.nan_to_num([layer.activation.zeros for layer in layers])
    dead = np.array([layer.dead or 0.0 for layer in layers])
    axes.bar(range(len(layers)), shares, color=INK, alpha=0.25, width=0.8, label="zeros")
    axes.bar(range(len(layers)), dead, color=hex_colour(1), width=0.8, label="in dead channels")
    axes.set_ylabel("zeros")
    share_axis(axes)
    legend(axes)
    if named:
        _layer_axis(axes, signals)
