"""The tables of a diagnosis in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detpipe.diagnosis.causes import Cause
from detpipe.diagnosis.false_detections import FalseType
from detpipe.diagnosis.result import BlameResult, Comparison, Estimate, Group
from detpipe.report.text_table import number, text_table

CAUSES: dict[Cause, str] = {
    Cause.no_proposal: "no proposal near it",
    Cause.budget: "its proposal was not classified (detect.max_proposals)",
    Cause.box_regression: "box regression moved its proposal away",
    Cause.background: "classified as background",
    Cause.wrong_class: "classified as another class",
    Cause.threshold: "correct, but below the threshold",
    Cause.suppressed: "its box was removed, or counts for a neighbour",
    Cause.localisation: "a box of its class is near, but off",
    Cause.missed: "no detection near it",
}
"""Each cause in words."""
TYPES: dict[FalseType, str] = {
    FalseType.wrong_class: "an object of another class",
    FalseType.localisation: "its class, but the box is off",
    FalseType.both: "another class, and the box is off",
    FalseType.duplicate: "an object that was already found",
    FalseType.background: "no object",
    FalseType.unlabelled: "possibly an object without a label",
}
"""Each type in words."""
WORST = 8
"""Classes in the table, those with the most errors first."""


def blame_text(result: BlameResult) -> str:
    """All tables: causes, types, perfect stages, groups, comparison and advice."""
    return "\n\n".join(part for part in _parts(result) if part)


def _parts(result: BlameResult) -> Iterator[str]:
    yield (
        f"{result.dataset}: {result.images} images, {result.objects} objects, VOC10 mAP@0.5 {_interval(result.map)}; "
        f"threshold {result.threshold:.3f} ({result.threshold_why})"
    )
    rows = [
        [f"{cause.value}: {CAUSES[cause]}", str(n), _signed(result.worth[cause.value].missed)]
        for cause, n in result.missed.items()
    ]
    yield text_table([f"missed objects: {result.n_missed}", "number", "dAP"], rows)
    rows = [
        [f"{kind.value}: {TYPES[kind]}", str(n), _signed(result.worth[kind.value].false)]
        for kind, n in result.false.items()
    ]
    yield text_table([f"false detections: {result.n_false}", "number", "dAP"], rows) + f"\n{result.second_opinion}"
    rows = [[f"perfect {name}", _interval(one)] for name, one in result.oracle.items()]
    yield text_table(["mAP with", ""], rows)
    worst = sorted(result.breakdown.classes, key=lambda one: -(one.n_missed + one.n_false))[:WORST]
    yield _groups("class", worst)
    yield _groups("object size", result.breakdown.sizes)
    yield _groups("distance to the next of its class", result.breakdown.crowding, false=False)
    if result.comparison is not None:
        yield _compared(result.comparison)
    yield _advice(result)


def _groups(name: str, groups: Sequence[Group], *, false: bool = True) -> str:
    rows = []
    for one in groups:
        most = max(one.missed, key=lambda cause: one.missed[cause]).value if one.n_missed else "–"
        rows.append([one.name, str(one.objects), str(one.n_missed), most, *([str(one.n_false)] if false else [])])
    return text_table([name, "objects", "missed", "most often", *(["false"] if false else [])], rows)


def _compared(comparison: Comparison) -> str:
    head = (
        f"against {comparison.other} (mAP {_interval(comparison.other_map)}, threshold "
        f"{comparison.other_threshold:.3f}): {_signed(comparison.difference)}, p = {number(comparison.p)}"
    )
    rows = [
        [f"{before} -> {after}", str(objects)]
        for (before, after), objects in comparison.changes.items()
        if before != after
    ]
    return head + ("\n" + text_table(["there -> here", "objects"], rows) if rows else "\nNo object changed.")


def _advice(result: BlameResult) -> str:
    if not result.advice:
        return "Next: no error costs so much that advice would be more than a guess."
    lines = []
    for index, one in enumerate(result.advice, start=1):
        typed = f" [{' '.join(one.settings)}]" if one.settings else ""
        lines.append(f"{index}. {one.text}{typed} At most {_signed(one.at_most)}.")
    return "Next:\n" + "\n".join(lines)


def _interval(one: Estimate | None) -> str:
    """0.812 [0.771, 0.850], or a dash."""
    if one is None:
        return number(None)
    return f"{number(one.value)} [{number(one.low)}, {number(one.high)}]"


def _signed(one: Estimate | None) -> str:
    """+0.012 [0.001, 0.030], or a dash."""
    if one is None or one.value != one.value:
        return number(None)
    value, low, high = (round(part, 3) + 0.0 for part in (one.value, one.low, one.high))  # no -0.000
    return f"{value:+.3f} [{number(low)}, {number(high)}]"
