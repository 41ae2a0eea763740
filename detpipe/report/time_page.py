"""The page of the cost of a training step: time, multiply-adds and memory by layer and by layer type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detpipe.inspect.step_cost import LayerCost, StepCost, total
from detpipe.inspect.step_time import Seconds
from detpipe.report import page
from detpipe.report.figure_style import ACCENT, SECOND, STYLE, WIDTH, legend, one_panel, short_name
from detpipe.report.page import Cell
from detpipe.report.text_table import as_bytes, as_count, text_table
from detpipe.storage.atomic import write_text

COLUMNS = ["forward ms", "backward ms", "share", "parameters", "multiply-adds", "output", "kept"]
TOP = 20
"""Number of the slowest layers in the terminal."""
MAX_BARS = 25
"""Maximum number of layers in the figure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimePage:
    """The content of the page. subtitle: the network and its images. machine: device, precision, threads."""

    subtitle: str
    machine: str
    cost: StepCost


def write_time_page(path: Path, data: TimePage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: TimePage) -> str:
    """The page as HTML."""
    cost = data.cost
    return page.render(
        "time.html",
        f"{data.subtitle}; {data.machine}",
        sum_head=("whole step", *SUM_HEAD),
        sums=_sum_rows(cost),
        sum_note=SUM_NOTE,
        memory=_memory(cost),
        figures=time_figures(cost),
        columns=COLUMNS,
        types=_kind_rows(cost),
        layers=[_layer_row(layer, cost) for layer in cost.layers],
    )


def time_text(data: TimePage) -> str:
    """The tables as plain text: layer types, the slowest layers, and the sums compared with whole steps."""
    cost = data.cost
    slowest = cost.slowest()[:TOP]
    parts = [
        text_table(["type", "layers", *COLUMNS], _kind_rows(cost)),
        text_table(
            ["slowest layers", "type", "output shape", *COLUMNS],
            [[*_who(one), *_cells(one, cost)] for one in slowest],
        ),
        f"{text_table(['whole step', *SUM_HEAD], _sum_rows(cost))}\n{SUM_NOTE}",
        _memory(cost),
    ]
    return "\n\n".join(parts)


SUM_NOTE = (
    '"between the layers": work outside of layers, such as scaling the input, residual sums, functional attention and '
    "the loss. Medians don't add up exactly; the last row is the time of a step."
)
SUM_HEAD = ("forward ms", "backward ms", "both ms", "mean ms")


def _sum_rows(cost: StepCost) -> list[list[str]]:
    """The sum of the layers, the whole steps in which they were measured, and steps without hooks."""
    layers = total("layers", cost.layers)
    sums, watched = (layers.forward, layers.backward, layers.seconds, layers.mean), _whole(cost.watched)
    return [
        ["sum of the layers", *map(_ms, sums)],
        ["between the layers", *(_ms(all_of - part) for all_of, part in zip(watched, sums, strict=True))],
        ["the same steps, whole", *map(_ms, watched)],
        ["steps without hooks", *map(_ms, _whole(cost.whole))],
    ]


def _whole(seconds: Seconds) -> tuple[float, float, float, float]:
    forward, backward = seconds.median
    return forward, backward, forward + backward, sum(seconds.mean)


def _kind_rows(cost: StepCost) -> list[list[str]]:
    rows = [[kind, str(count), *_cells(layer, cost)] for kind, (count, layer) in cost.by_kind().items()]
    return [*rows, ["all layers", str(len(cost.layers)), *_cells(total("", cost.layers), cost)]]


def _layer_row(layer: LayerCost, cost: StepCost) -> list[str | Cell]:
    forward, backward, share, *rest = _cells(layer, cost)
    return [*_who(layer), forward, backward, Cell(share, bar=min(_share(layer, cost), 1)), *rest]


def _who(layer: LayerCost) -> tuple[str, str, str]:
    return layer.name, layer.kind, " x ".join(map(str, layer.shape))


def _cells(layer: LayerCost, cost: StepCost) -> list[str]:
    return [
        _ms(layer.forward),
        _ms(layer.backward),
        f"{_share(layer, cost):.1%}",
        as_count(layer.parameters),
        as_count(layer.multiply_adds),
        as_bytes(layer.output),
        as_bytes(layer.kept),
    ]


def _share(layer: LayerCost, cost: StepCost) -> float:
    """The layer's share of the total time of all layers."""
    return layer.seconds / max(total("", cost.layers).seconds, 1e-12)


def _memory(cost: StepCost) -> str:
    layers = total("", cost.layers)
    return (
        f"{as_count(cost.parameters)} parameters ({as_bytes(4 * cost.parameters)} in float32, and as much for the "
        f"gradients). One step: {as_bytes(layers.output)} of outputs, {as_bytes(layers.kept)} kept for the backward "
        f"pass, {as_bytes(cost.peak)} at the peak."
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def time_figures(cost: StepCost) -> dict[str, Figure]:
    """Figures by title: bars of milliseconds by layer type and by layer, the slowest first, at most MAX_BARS each."""
    return {
        title: one_panel(WIDTH, _height(rows), partial(_bars, rows=rows, title=title))
        for title, rows in _slowest(cost).items()
    }


def time_figure(cost: StepCost) -> Figure:
    """The panels of `time_figures` next to each other, for a PNG file."""
    parts = _slowest(cost)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, max(map(_height, parts.values()))), layout="constrained")
        for axes, (title, rows) in zip(figure.subplots(1, 2, width_ratios=(1, 1.5)), parts.items(), strict=True):
            _bars(axes, rows, title)
        return figure


def _slowest(cost: StepCost) -> dict[str, Sequence[LayerCost]]:
    """The bars of each panel by its title."""
    kinds = [layer for _, layer in cost.by_kind().values()][:MAX_BARS]
    layers = cost.slowest()[:MAX_BARS]
    title = "by layer, the slowest" if len(layers) < len(cost.layers) else "by layer"
    return {"by type": kinds, title: layers}


def _height(rows: Sequence[LayerCost]) -> float:
    """Of a panel with these bars, in inches."""
    return 0.22 * max(len(rows), 3) + 1.2


def _bars(axes: Axes, rows: Sequence[LayerCost], title: str) -> None:
    positions = range(len(rows))
    forward, backward = [1e3 * row.forward for row in rows], [1e3 * row.backward for row in rows]
    axes.barh(positions, forward, color=ACCENT, label="forward")
    if any(backward):
        axes.barh(positions, backward, left=forward, color=SECOND, label="backward")
    axes.set_yticks(positions, [short_name(row.name[-24:], 24) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"milliseconds {title}")
    legend(axes)
