"""`detpipe proposals recall`: recall of proposals, alone or compared -> recall_curves.json, .png, .html."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detpipe.commands.proposals.settings import ProposalsRecall
from detpipe.console import RESULT, amount
from detpipe.metrics.bootstrap import LEVEL, ImageBootstrap
from detpipe.metrics.method_recall import MethodRecall, compare, difference_text, measure_method, recall_text
from detpipe.metrics.overlap_table import OverlapTable, overlap_table
from detpipe.metrics.recall_curves import log_budgets
from detpipe.progress import progress
from detpipe.proposals.methods import method_name
from detpipe.proposals.proposals_db import find_database
from detpipe.report.curves import to_png
from detpipe.report.recall_page import RecallPage, recall_curves_figure, write_recall_page
from detpipe.runs.stored_split import StoredSplit, open_split
from detpipe.storage.atomic import write_bytes, write_json

logger = logging.getLogger(__name__)

IOU_BUDGETS = (100, 1000)
"""Numbers of proposals for which recall is plotted against IoU (Hosang et al., PAMI 2015, section 4)."""


def run(config: ProposalsRecall) -> None:
    """Measure the recall of the proposals, and of those in `against`, on one split."""
    first = config.open_split()
    dataset = first.dataset
    if dataset.ground_truth is None:
        raise ValueError(
            f"{dataset.name}: expected annotations to evaluate against, got no annotations; give a split with boxes"
        )
    others = [open_split(find_database(path), config.split, dataset) for path in config.against]
    stored = by_name([first, *others])
    tables = {name: make_table(one, config.budgets) for name, one in stored.items()}
    bootstrap = ImageBootstrap.draw(len(dataset), config.resamples, config.seed)
    methods = {
        name: measure_method(table, bootstrap, dataset.classes, config.budgets, IOU_BUDGETS)
        for name, table in tables.items()
    }
    write_all(config, stored, methods)


def by_name(stored: Sequence[StoredSplit]) -> dict[str, StoredSplit]:
    """Return the databases by their names in tables and plots: the run folder's name, or its path if two are equal.

    Raises ValueError for a database that is given twice.
    """
    folders = [one.path.resolve().parent for one in stored]
    names = [folder.name for folder in folders]
    named: dict[str, StoredSplit] = {}
    for folder, one in zip(folders, stored, strict=True):
        if folders.count(folder) > 1:
            raise ValueError(
                f"against: expected other proposals than the first, each once, got {one.path} twice; remove one"
            )
        named[folder.name if names.count(folder.name) == 1 else str(one.path.parent)] = one
    return named


def make_table(stored: StoredSplit, budgets: Sequence[int]) -> OverlapTable:
    """Return the best IoU of each object at all budgets of plots and tables, in one pass over the boxes."""
    truth = stored.dataset.measured_truth
    assert truth is not None  # checked in `run`
    wanted = sorted({*log_budgets(), *IOU_BUDGETS, *budgets})
    proposals = progress(stored.proposals(), "recall", total=len(stored.dataset), unit="images")
    return overlap_table(truth, proposals, len(stored.dataset.classes), wanted)


def write_all(config: ProposalsRecall, stored: Mapping[str, StoredSplit], methods: Mapping[str, MethodRecall]) -> None:
    """Write the numbers, the picture and the page, and log the paths. stored and methods have the same names."""
    name_of_first, first = next(iter(methods.items()))
    dataset = stored[name_of_first].dataset
    paired = {name: compare(first, other) for name, other in methods.items() if other is not first}
    sources = {name: f"{_method(one)}, {one.path}" for name, one in stored.items()}
    json_file, png_file, html_file = (config.folder.path / f"recall_curves.{kind}" for kind in ("json", "png", "html"))
    content: dict[str, Any] = {
        "split": config.split.value,
        "resamples": config.resamples,
        "seed": config.seed,
        "level": LEVEL,
        "methods": {name: _content(stored[name], method) for name, method in methods.items()},
        "first_minus": {
            name: {"budgets": list(first.budgets), **{measure: one.to_json() for measure, one in differences.items()}}
            for name, differences in paired.items()
        },
    }
    write_json(json_file, content)
    write_bytes(png_file, to_png(recall_curves_figure({name: method.curves for name, method in methods.items()})))
    page = RecallPage(
        subtitle=dataset.name, methods=methods, paired=paired, sources=sources, resamples=config.resamples
    )
    write_recall_page(html_file, page)
    texts = (recall_text(methods), difference_text(name_of_first, paired, first.budgets[-1]))
    logger.log(RESULT, "\n%s", "\n\n".join(filter(None, texts)))
    logger.log(RESULT, "recall: %s -> %s, %s, %s", amount(len(dataset), "images"), json_file, png_file, html_file)


def _content(stored: StoredSplit, method: MethodRecall) -> dict[str, Any]:
    return {"method": _method(stored), "proposals": stored.manifest.digest, **method.to_json()}


def _method(stored: StoredSplit) -> str:
    return method_name(stored.manifest.settings["proposals"])
