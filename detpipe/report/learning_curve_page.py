"""The page of a learning curve: accuracy against the number of training images, and what limits the detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from detpipe.diagnosis.bottleneck import Bottleneck, Lever
from detpipe.metrics.bootstrap import Resampled
from detpipe.metrics.learning_curve import LearningCurve, PowerLaw
from detpipe.report import page
from detpipe.report.figure_style import ACCENT, INK, SECOND, STYLE, WIDTH, legend, share_axis
from detpipe.report.page import interval_cell
from detpipe.report.text_table import number, text_table
from detpipe.storage.atomic import write_text

NAMES = {Lever.labels: "more labels", Lever.proposals: "better proposals", Lever.pixels: "more pixels"}


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurvePage:
    """The content of the page.

    subtitle: the test split. draws: trainings for each number of images. resamples: of the test images. head: its name.
    """

    subtitle: str
    curve: LearningCurve
    limits: Bottleneck
    draws: int
    resamples: int
    head: str


def write_learning_curve_page(path: Path, data: LearningCurvePage) -> None:
    """Write the page to `path` atomically."""
    write_text(path, render(data))


def render(data: LearningCurvePage) -> str:
    """The page as HTML."""
    law = data.curve.power_law
    return page.render(
        "learning_curve.html",
        data.subtitle,
        content=data,
        sentence=learning_curve_sentence(data.curve, data.limits),
        figure=learning_curve_figure(data.curve, data.limits),
        alt=learning_curve_alt(data.curve),
        law=_law_sentence(data.curve, law),
        points=[(f"{point.images:,}", interval_cell(point.map), *_spread(point.draws)) for point in data.curve.points],
        gains=[
            (NAMES[lever], interval_cell(gain), _reason(lever, data.curve, data.limits))
            for lever, gain in data.limits.gains.items()
        ],
        sizes=[
            (f"{one.name} third", f"{one.objects:,}", f"{one.side:.0f}", interval_cell(one.found))
            for one in data.limits.sizes
        ],
    )


def learning_curve_text(curve: LearningCurve) -> str:
    """The points as a table for the terminal."""
    rows = []
    for point in curve.points:
        low, high = (end.item() for end in point.map.interval)
        rows.append([f"{point.images:,}", number(point.map.value.item()), number(low), number(high)])
    return text_table(["images", "mAP", "low", "high"], rows)


def learning_curve_sentence(curve: LearningCurve, limits: Bottleneck) -> str:
    """One sentence: more labels, better proposals or more pixels, with the numbers that say so."""
    best = limits.best
    parts = {lever: f"{NAMES[lever]} {_gain(gain)}" for lever, gain in limits.gains.items()}
    if best is None:
        return f"Nothing is shown to help: the estimated gains of mAP are {', '.join(parts.values())}."
    others = ", ".join(text for lever, text in parts.items() if lever is not best)
    reason = f"{_gain(limits.gains[best])} mAP: {_reason(best, curve, limits)}"
    name = NAMES[best].capitalize()
    if not limits.certain:
        return f"{name} would probably help most ({reason}), but the test images are too few to be certain; {others}."
    rivals = " and ".join(NAMES[lever] for lever in limits.as_good)
    doubt = f", though not certainly more than {rivals}" if rivals else ""
    return f"{name} would help most{doubt} ({reason}); {others}."


def _gain(gain: Resampled) -> str:
    """+0.034 [0.010, 0.060], or "unknown"."""
    value = gain.value.item()
    if np.isnan(value):
        return "unknown"
    low, high = (end.item() for end in gain.interval)
    return f"{value:+.3f}" if np.isnan(low) else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _reason(lever: Lever, curve: LearningCurve, limits: Bottleneck) -> str:
    """The measurement behind an estimate, as a part of a sentence."""
    if lever is Lever.labels:
        before, last = curve.points[-2:]
        return (
            f"mAP rose from {number(before.map.value.item())} with {before.images:,} images to "
            f"{number(last.map.value.item())} with {last.images:,}"
        )
    if lever is Lever.proposals:
        return f"proposals cover {_percent(limits.proposal_recall)} of the objects of a class"
    if not limits.sizes:
        return "too few objects to compare sizes"
    small, large = limits.sizes[0], limits.sizes[-1]
    return (
        f"of the objects that proposals cover, {_percent(small.found)} of the smallest third are found "
        f"and {_percent(large.found)} of the largest"
    )


def _percent(share: Resampled) -> str:
    value = share.value.item()
    return "an unknown share" if np.isnan(value) else f"{100 * value:.0f} %"


def _law_sentence(curve: LearningCurve, law: PowerLaw | str) -> str:
    if isinstance(law, str):
        return f"No power law is drawn: {law}."
    twice = 2 * curve.points[-1].images
    low, high = (number(end.item()) for end in law.at(twice).interval)
    return (
        f"Dashed: the power law 1 - mAP = a × images^-b with b = {law.exponent.value.item():.2f}. For {twice:,} images "
        f"it gives an mAP of {number(law.at(twice).value.item())} ({low} – {high}), if the curve goes on like this."
    )


def _spread(draws: tuple[float, ...]) -> tuple[str, str]:
    return number(min(draws)), number(max(draws))


def learning_curve_alt(curve: LearningCurve) -> str:
    """The figure in words."""
    pairs = [f"{number(point.map.value.item())} with {point.images:,} images" for point in curve.points]
    return f"mAP over the number of training images: {', '.join(pairs)}"


def learning_curve_figure(curve: LearningCurve, limits: Bottleneck) -> Figure:
    """mAP with intervals over the number of training images on a log axis, each draw as a dot, and the power law."""
    numbers = [point.images for point in curve.points]
    values = [point.map.value.item() for point in curve.points]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.add_subplot()
        ends = [[end.item() for end in point.map.interval] for point in curve.points]
        if not np.isnan(ends).any():
            # A percentile interval of few resamples may leave the value out.
            below, above = ([abs(end[i] - value) for end, value in zip(ends, values, strict=True)] for i in (0, 1))
            axes.errorbar(numbers, values, yerr=[below, above], color=ACCENT, capsize=4, linewidth=1.2, zorder=2)
        axes.plot(numbers, values, color=ACCENT, marker="o", markersize=5, label="mAP", zorder=3)
        draws = [(point.images, value) for point in curve.points for value in point.draws]
        axes.plot(*zip(*draws, strict=True), ".", color=INK, markersize=4, alpha=0.5, label="one training", zorder=4)
        law = curve.power_law
        if isinstance(law, PowerLaw):
            x = np.geomspace(numbers[0], 2 * numbers[-1], 40)
            axes.plot(x, [law.at(one).value.item() for one in x], "--", color=SECOND, linewidth=1.2, label="power law")
        limit = limits.proposal_recall.value.item()
        if not np.isnan(limit):
            axes.axhline(limit, color=INK, linewidth=1, linestyle=":", label="recall of the proposals")
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{images:,}" for images in numbers])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel="VOC10 mAP@0.5")
        share_axis(axes, percent=False)
        legend(axes, 2)
        return figure
