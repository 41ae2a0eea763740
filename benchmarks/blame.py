"""Why detectors fail: the tables of `detpipe blame` with intervals, and the advice, for given run folders.

    python benchmarks/blame.py runs/cards/rcnn runs/cards/fast_rcnn [--against runs/cards/rcnn] [--no-objects]

Each run folder needs the detections of its own data set, and remembers this data set. Nothing is written into it. For
detections of another program, use the command. The markdown table has a row for each run; the whole tables follow.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detpipe.commands.blame import blame
from detpipe.commands.blame_settings import Blame
from detpipe.diagnosis.causes import STAGES
from detpipe.diagnosis.false_detections import FalseType
from detpipe.diagnosis.result import BlameResult, Estimate
from detpipe.report.blame_table import blame_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--against", type=Path, help="another run folder, compared with each")
    parser.add_argument("--no-objects", action="store_true", help="do not classify the objects' own boxes")
    options = parser.parse_args()
    results: list[tuple[str, BlameResult, float]] = []
    for run in options.runs:
        begun = time.perf_counter()
        result = blame(
            Blame(
                run_dir=str(run),
                against=None if options.against is None else str(options.against),
                classify_objects=not options.no_objects,
            )
        ).result
        results.append(("/".join(run.parts[-2:]), result, time.perf_counter() - begun))
    for table in (missed_table, false_table, oracle_table):
        print(table(results), end="\n\n")
    for name, result, seconds in results:
        print(f"== {name} ({seconds:.0f} s)\n\n{blame_text(result)}\n")


def missed_table(results: list[tuple[str, BlameResult, float]]) -> str:
    """Number and dAP of each cause; only of runs with traces."""
    rows = ["| run | mAP@0.5 | missed | " + " | ".join(cause.value for cause in STAGES) + " |"]
    rows.append("|" + "---|" * (len(STAGES) + 3))
    for name, result, _ in results:
        cells = []
        for cause in STAGES:
            worth = result.worth.get(cause.value)
            cells.append(cell(result.missed.get(cause, 0), None if worth is None else worth.missed))
        rows.append(
            f"| {name} | {interval(result.map)} | {result.n_missed} of {result.objects} | {' | '.join(cells)} |"
        )
    return "\n".join(rows)


def false_table(results: list[tuple[str, BlameResult, float]]) -> str:
    """Number and dAP of each type."""
    rows = ["| run | false | " + " | ".join(kind.value for kind in FalseType) + " |"]
    rows.append("|" + "---|" * (len(FalseType) + 2))
    for name, result, _ in results:
        cells = [cell(result.false[kind], result.worth[kind.value].false) for kind in FalseType]
        rows.append(f"| {name} | {result.n_false} | {' | '.join(cells)} |")
    return "\n".join(rows)


def oracle_table(results: list[tuple[str, BlameResult, float]]) -> str:
    """The mAP with perfect stages, the first advice, and the time."""
    rows = ["| run | perfect proposals | perfect classes | perfect boxes | first advice | at most | seconds |"]
    rows.append("|" + "---|" * 7)
    for name, result, seconds in results:
        stages = [interval(result.oracle[stage]) for stage in ("proposals", "classes", "boxes")]
        first = result.advice[0] if result.advice else None
        text = "none" if first is None else first.text.partition(":")[0]
        most = "" if first is None else interval(first.at_most)
        rows.append(f"| {name} | {' | '.join(stages)} | {text} | {most} | {seconds:.0f} |")
    return "\n".join(rows)


def cell(number: int, worth: Estimate | None) -> str:
    """12: +0.031 [0.010, 0.052]."""
    return (
        str(number)
        if worth is None or not number
        else f"{number}: {worth.value:+.3f} [{worth.low:.3f}, {worth.high:.3f}]"
    )


def interval(one: Estimate | None) -> str:
    """0.812 [0.771, 0.850]."""
    return "" if one is None else f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


if __name__ == "__main__":
    main()
