"""The page of a network's signals: do they keep their size, the numbers of each layer, and what some layers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.inspect.signal_scale import LIMIT, SignalScale, Verdict, activation_scale, gradient_scale
from detpipe.inspect.signals import LayerSignal, Signals
from detpipe.report import page
from detpipe.report.page import Picture
from detpipe.report.signal_figures import signals_figure
from detpipe.report.text_table import significant, text_table
from detpipe.storage.atomic import write_text
from detpipe.structures import Image

HEAD = (
    *("layer", "type", "output", "weights std", "activations mean", "activations std", "zeros", "dead"),
    *("gradients std", "weight gradients std"),
)
MAX_TEXT_ROWS = 40
"""A network of more layers shows in the terminal only those with weights; the page has all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SignalsPage:
    """What the page shows.

    subtitle: the network and its images. maps: pictures of feature maps beside the image, by the layer's name.
    """

    subtitle: str
    signals: Signals
    maps: Mapping[str, Image]


def write_signals_page(path: Path, data: SignalsPage) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, render(data))


def render(data: SignalsPage) -> str:
    """The page as HTML."""
    return page.render(
        "signals.html",
        data.subtitle,
        sentences=scale_sentences(data.signals),
        figure=signals_figure(data.signals),
        maps=[Picture(image, f"maps of {name}", name, quality=90) for name, image in data.maps.items()],
        head=HEAD,
        rows=[_row(layer) for layer in data.signals.layers],
    )


def signals_text(data: SignalsPage) -> str:
    """The verdict and a table as plain text."""
    layers = data.signals.layers
    shown = layers if len(layers) <= MAX_TEXT_ROWS else [one for one in layers if one.weight is not None]
    left_out = len(layers) - len(shown)
    note = [f"{left_out} layers without weights are in the page and the JSON"] if left_out else []
    rows = [_data_row(data.signals), *map(_row, shown)]
    return "\n".join([text_table(HEAD, rows), *note, "", *scale_sentences(data.signals)])


def scale_sentences(signals: Signals) -> list[str]:
    """Of the loss, the activations and the gradients: what becomes of their size."""
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
