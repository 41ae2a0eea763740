"""The individuals in images as files for tools of camera traps: MegaDetector's JSON, and CSV with rolled-up answers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detpipe.datasets.megadetector import ANIMAL
from detpipe.storage.atomic import replaced, write_bytes
from detpipe.structures import Dataset, Detections, ImageId, ImageRecord, LeftOut
from detpipe.taxonomy.class_tree import Answer, ClassTree
from detpipe.taxonomy.individuals import Individual, individuals

FORMAT_VERSION = "1.6"
"""Of https://lila.science/megadetector-output-format."""
CSV_COLUMNS = ("file", "answer", "level", "probability", "confidence", "class", "x1", "y1", "x2", "y2", "shown")


@dataclass(frozen=True)
class RollUp:
    """A class tree, and the smallest summed probability of an answer."""

    tree: ClassTree
    threshold: float

    def answer(self, one: Individual, classes: Sequence[str]) -> Answer | None:
        """The answer for an individual; None if nothing in the tree is probable enough."""
        return self.tree.answer({classes[label - 1]: p for label, p in one.probabilities.items()}, self.threshold)


def write_megadetector(
    path: Path,
    dataset: Dataset,
    root: Path,
    detections: Mapping[ImageId, Detections],
    *,
    bad: Sequence[LeftOut] = (),
    roll_up: RollUp | None = None,
    typical: float,
    lowest: float,
) -> None:
    """Write all individuals in MegaDetector's format atomically, one image per line; file names are relative to root.

    Each is a detection of the category "animal": `conf` is its confidence, `classifications` has the probability of
    each class, the best first. With a roll-up, an answer above the classes is the first classification, and without an
    answer there are no classifications. bad: unreadable images, which get a `failure`. typical, lowest: the thresholds
    that the file recommends.
    """
    taxa = _taxa(dataset.classes, roll_up)
    ids = {node: str(number) for number, node in enumerate(taxa, start=1)}
    head: dict[str, Any] = {
        "info": {
            "format_version": FORMAT_VERSION,
            "detector": f"detpipe {version('detpipe')}",
            "detector_metadata": {
                "typical_detection_threshold": round(typical, 6),
                "conservative_detection_threshold": round(min(lowest, typical), 6),
            },
        },
        "detection_categories": {"1": ANIMAL},
        "classification_categories": {ids[node]: node[1] for node in taxa},
    }
    if roll_up is not None:
        head["classification_category_descriptions"] = {
            ids[level, name]: roll_up.tree.description(name, level) for level, name in taxa
        }
    with replaced(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, allow_nan=False)[:-1] + ', "images": [')
        separator = ""
        for record, found in _found(dataset, detections):
            boxes = [_detection(one, record, dataset.classes, ids, roll_up) for one in found]
            line: dict[str, Any] = {"file": _relative(record.path, root), "detections": boxes}
            file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
            separator = ","
        for fault in bad:
            line = {"file": _relative(Path(fault.path), root), "detections": None, "failure": fault.reason}
            file.write(f"{separator}\n{json.dumps(line, allow_nan=False)}")
            separator = ","
        file.write("\n]}\n")


def write_individuals(
    path: Path,
    dataset: Dataset,
    root: Path,
    detections: Mapping[ImageId, Detections],
    roll_up: RollUp,
    min_score: float,
) -> None:
    """Write a CSV row for each individual atomically: its answer, its most probable class and its box in pixels.

    answer, level and probability are empty without an answer. shown is 1 for a confidence of at least min_score.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for record, found in _found(dataset, detections):
        for one in found:
            answer = roll_up.answer(one, dataset.classes)
            cells = ["", "", ""]
            if answer is not None:
                cells = [answer.name, roll_up.tree.levels[answer.level], f"{answer.probability:.6g}"]
            best = dataset.classes[next(iter(one.scores)) - 1]
            box = [round(side, 2) for side in one.box.tolist()]
            shown = int(one.confidence >= min_score)
            writer.writerow([_relative(record.path, root), *cells, f"{one.confidence:.6g}", best, *box, shown])
    write_bytes(path, text.getvalue().encode("utf-8", "replace"))


def _found(
    dataset: Dataset, detections: Mapping[ImageId, Detections]
) -> Iterator[tuple[ImageRecord, list[Individual]]]:
    for record in dataset.records:
        own = detections.get(record.image_id)
        yield record, [] if own is None else individuals(own)


def _taxa(classes: Sequence[str], roll_up: RollUp | None) -> list[tuple[int, str]]:
    """Level and name of all classifications: the classes in label order, then the names above them, level by level."""
    above = [
        (level, path[level])
        for level in range(1, 0 if roll_up is None else len(roll_up.tree.levels))
        for path in (roll_up.tree.paths.values() if roll_up is not None else ())
        if path[level]
    ]
    return [*((0, name) for name in classes), *dict.fromkeys(above)]


def _detection(
    one: Individual,
    record: ImageRecord,
    classes: Sequence[str],
    ids: Mapping[tuple[int, str], str],
    roll_up: RollUp | None,
) -> dict[str, Any]:
    height, width = record.image_size
    x1, y1, x2, y2 = one.box.tolist()
    shares = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
    rows = [(ids[0, classes[label - 1]], share) for label, share in one.probabilities.items()]
    if roll_up is not None:
        answer = roll_up.answer(one, classes)
        rows = [] if answer is None else rows
        if answer is not None and answer.level > 0:
            rows.insert(0, (ids[answer.level, answer.name], answer.probability))
    return {
        "category": "1",
        "conf": round(one.confidence, 6),
        "bbox": [round(share, 6) for share in shares],
        "classifications": [[name, round(share, 6)] for name, share in rows],
    }


def _relative(path: Path, root: Path) -> str:
    """The path with slashes, relative to the root if it is below. Bytes that are not UTF-8 become question marks."""
    text = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
