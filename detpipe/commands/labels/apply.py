"""`detpipe labels apply`: write a corrected copy of the data set, and a run folder that needs only new heads."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from detpipe.commands.labels.apply_settings import LabelsApply
from detpipe.console import RESULT, amount
from detpipe.datasets.corrected_copy import annotated_source, source_folders, write_corrected_copy
from detpipe.datasets.entry import RawObject
from detpipe.datasets.object_edits import decimal, edited_objects
from detpipe.datasets.source import DatasetSource, Split
from detpipe.labels.corrections import Action, CorrectionError, Corrections, read_corrections
from detpipe.labels.planned_edits import PlannedEdits, plan_edits
from detpipe.runs.corrected_run import carry_results, without_new
from detpipe.runs.kept_dataset import dataset_words, keep_dataset
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import RunFolder, images_digest, load_splits
from detpipe.storage.atomic import write_json
from detpipe.structures import Dataset

logger = logging.getLogger(__name__)

SHOWN = 20
"""Changes that are shown; all are in changes.json."""
CHANGES, RUN = "changes.json", "run"
Splits = Mapping[Split, Dataset]


def run(config: LabelsApply) -> None:
    """Write the corrected data set. The folder gets its name only when everything in it is complete."""
    corrections = read_corrections(config.corrections_file)
    source, out = annotated_source(config.data_source), config.out_folder
    check_out(out, source)
    splits = load_splits(source)
    check_digest(config, corrections, splits)
    planned = plan_edits(
        source,
        splits,
        corrections.corrections,
        allow_new_classes=config.allow_new_classes,
        reviewed=corrections.reviewed,
        new_from=None if config.source is None else Path(config.source),
    )
    if source.classes is not None:
        source = replace(source, classes=[*source.classes, *planned.new_classes])
    scratch = out.with_name(f".{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        copy = write_corrected_copy(source, scratch, planned.edits, config.images, planned.new_images)
        corrected = load_splits(copy)
        check_copy(source, copy, planned)
        check_images(splits, corrected)
        write_changes(scratch / CHANGES, corrections.dataset, labels_digest(corrected), planned)
        carried = carry_results(config.folder, RunFolder(scratch / RUN), splits, corrected)
        final = moved_source(copy, scratch, out)
        keep_dataset(RunFolder(scratch / RUN), final)
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(out, final, planned, carried)


def check_out(out: Path, source: DatasetSource) -> None:
    """Raise ValueError if the folder exists, or lies in the data set, which is never written to."""
    if out.exists() or out.is_symlink():
        raise ValueError(f"out: expected a new folder, got {out}, which exists; give another name, or move it away")
    for folder in source_folders(source):
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"out: expected a folder outside the data set, which is never changed, got {out} in {folder}"
            )


def check_digest(config: LabelsApply, corrections: Corrections, splits: Splits) -> None:
    """Raise CorrectionError unless the corrections are of the labels that the data set has now.

    An audit of some splits has the digest of these.
    """
    some = [subset for count in range(1, len(splits) + 1) for subset in combinations(splits, count)]
    if corrections.dataset not in [labels_digest({split: splits[split] for split in subset}) for subset in some]:
        raise CorrectionError(
            f"{config.corrections_file}: expected corrections of this data set "
            f"({', '.join(dataset.name for dataset in splits.values())}), got corrections of other labels, images or "
            "classes; give the run_dir and the dataset settings of the audit. If the labels have changed since, audit "
            "them again"
        )


def check_copy(source: DatasetSource, copy: DatasetSource, planned: PlannedEdits) -> None:
    """Raise CorrectionError unless the copy, as it is read, has exactly the objects that were planned."""
    new_objects = {one.name: edited_objects((), one.objects) for one in planned.new_images}
    for split in (one for one in Split if source.has(one)):
        before, after = source.entries(split), copy.entries(split)
        ids = {entry.image_id for entry in before}
        more = [entry for entry in after if entry.image_id not in ids]
        after = [entry for entry in after if entry.image_id in ids]
        if [entry.image_id for entry in before] != [entry.image_id for entry in after]:
            raise CorrectionError(f"{split.value}: expected the same images in the corrected data set, got others")
        for entry in more:
            name = "" if entry.image is None else entry.image.stem
            if list(map(_values, new_objects.pop(name, []))) != list(map(_values, entry.objects)):
                raise CorrectionError(f"{split.value}: expected the new images in the copy, got {entry.image_id!r}")
        for old, new in zip(before, after, strict=True):
            wanted = edited_objects(old.objects, planned.edits.get((old.origin, old.image_id), []))
            if list(map(_values, wanted)) != list(map(_values, new.objects)):
                raise CorrectionError(
                    f"{old.origin}, image {old.image_id!r}: expected the corrected objects in the copy, got others; "
                    "report this file as a fault of detpipe"
                )
    if new_objects:
        raise CorrectionError(f"expected the new images in the copy, got none for {', '.join(new_objects)}")


def _values(one: RawObject) -> tuple[Any, ...]:
    return one.name, tuple(map(decimal, one.box)), one.difficult, one.crowd


def check_images(before: Splits, after: Splits) -> None:
    """Raise CorrectionError unless the copy has the same images, and maybe more."""
    for split, dataset in before.items():
        if images_digest(dataset) != images_digest(without_new(after[split], dataset)):
            raise CorrectionError(
                f"{dataset.name}: expected the same images in the corrected data set, got others; an image may have "
                "changed in the meantime: run the command again"
            )


def write_changes(path: Path, before: str, after: str, planned: PlannedEdits) -> None:
    """Write changes.json. before, after: the digests of the labels."""
    changes = [{**asdict(one), "action": one.action.value} for one in planned.changes]
    write_json(
        path,
        {"dataset": before, "corrected": after, "without_effect": planned.without_effect, "changes": changes},
    )


def moved_source(source: DatasetSource, old: Path, new: Path) -> DatasetSource:
    """The source of a folder that was renamed."""

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        path = Path(value)
        return str(new / path.relative_to(old)) if path.is_relative_to(old) else value

    paths = {name: getattr(source, name) for name in source.PATHS}
    return replace(source, **{name: moved(value) for name, value in paths.items() if value is not None})


def report(out: Path, source: DatasetSource, planned: PlannedEdits, carried: list[str]) -> None:
    """Log the changes, and how to train on the corrected data set."""
    for one in planned.changes[:SHOWN]:
        logger.log(RESULT, "  %s", one)
    if len(planned.changes) > SHOWN:
        logger.log(RESULT, "  and %d more, in %s", len(planned.changes) - SHOWN, out / CHANGES)
    counts = Counter(one.action for one in planned.changes)
    said = (
        ", ".join(f"{counts[action]} {word}" for action, word in WORDS.items() if counts[action]) or "no object changed"
    )
    images = len({(one.split, one.image) for one in planned.changes})
    idle = f"; {planned.without_effect} corrections say what is there already" if planned.without_effect else ""
    if planned.new_images:
        said += f", {amount(len(planned.new_images), 'new images')} for training"
    logger.log(RESULT, "labels apply: %s in %s%s -> %s, %s", said, amount(images, "images"), idle, out, CHANGES)
    logger.log(RESULT, "data set: %s", dataset_words(source))
    kept = f"with the {', '.join(carried)} of the old run" if carried else "which starts from nothing"
    logger.log(
        RESULT,
        "run folder: %s, %s; train with `detpipe run run_dir=%s` and the old run's settings",
        out / RUN,
        kept,
        out / RUN,
    )


WORDS = {Action.add: "added", Action.remove: "removed", Action.change: "changed"}
