"""experiment=auto against the best recipe chosen afterwards: the loss in COCO AP by data set, from finished runs.

    python benchmarks/auto_recipe.py runs/raccoon data/raccoon runs/cards data/cards

Each pair is a folder with a run folder per experiment (runs/raccoon/fast_rcnn, or with a seed of one digit:
runs/raccoon/fast_rcnn_0), and the data set of these runs. Runs with other names are left out.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import mean

from detpipe.datasets.auto import AutoSource
from detpipe.network.settings import Device, Precision
from detpipe.runs.recipe import COSTS, RunFacts, choose
from detpipe.runs.run_facts import facts_of
from detpipe.storage.dataclass_json import read_object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="RUNS DATA")
    losses = []
    print("| data set | classes | images | objects a class | auto | AP | best | AP | loss |")
    print("|" + "---|" * 9)
    words = parser.parse_args().pairs
    for runs, data in zip(words[::2], words[1::2], strict=True):
        facts = facts_of(AutoSource(root=data).found(), Device.auto, Precision.auto)
        assert facts is not None, data
        row, loss = compared(Path(runs), facts)
        losses.append(loss)
        print(f"| {Path(runs).name} | {facts.classes} | {facts.images} | {facts.objects_per_class:g} | {row}")
    print(f"\nmean loss: {mean(losses):.3f}, largest: {max(losses):.3f}")


def compared(runs: Path, facts: RunFacts) -> tuple[str, float]:
    """The end of a row of the table, and the loss of the chosen recipe in COCO AP."""
    every = {
        re.sub(r"_\d$", "", path.parent.name): float(read_object(path)["coco"]["AP"])
        for path in sorted(runs.glob("*/metrics.json"), reverse=True)  # the first seed is the one that stays
    }
    found = {name: value for name, value in every.items() if name in COSTS}
    experiment = choose(facts).experiment
    if experiment not in found:
        raise SystemExit(f"{runs / experiment}: expected a finished run, got none; the rule chooses this recipe")
    best = max(found, key=lambda name: found[name])
    loss = found[best] - found[experiment]
    return f"{experiment} | {found[experiment]:.3f} | {best} | {found[best]:.3f} | {loss:.3f} |", loss


if __name__ == "__main__":
    main()
