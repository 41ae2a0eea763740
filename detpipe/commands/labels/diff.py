"""`detpipe labels diff`: compare labels that were edited in another tool with the data set -> corrections.json."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from detpipe.commands.labels.exchange_settings import LabelsDiff
from detpipe.console import RESULT
from detpipe.labels.corrections import Action, Corrections, write_corrections
from detpipe.labels.label_diff import diff_labels
from detpipe.labels.tools.coco_file import read_coco_labels
from detpipe.labels.tools.cvat_xml import read_cvat
from detpipe.labels.tools.exchange import EditedImage, ToolFileError
from detpipe.labels.tools.fiftyone import read_fiftyone
from detpipe.labels.tools.label_studio import read_label_studio
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import load_splits
from detpipe.storage.input_file import read_input
from detpipe.storage.input_json import read_json

logger = logging.getLogger(__name__)

NAMED = 3
"""Unknown images that are named; the others are counted."""


def run(config: LabelsDiff) -> None:
    """Write corrections.json: what was added, removed and changed. Images that are not in the file stay as they are."""
    splits = load_splits(config.data_source)
    edited = read_edited(config.edited_file)
    diff = diff_labels(splits, labels_digest(splits), edited, tolerance=config.tolerance)
    if diff.unknown:
        more = f" and {len(diff.unknown) - NAMED} more" if len(diff.unknown) > NAMED else ""
        logger.warning(
            "%s: %d images are not in the data set, or not only once, and are left out: %s%s",
            config.edited_file,
            len(diff.unknown),
            ", ".join(diff.unknown[:NAMED]),
            more,
        )
    if not diff.images:
        raise ToolFileError(
            f"{config.edited_file}: expected edited labels of images of the data set, got none; give the "
            "run_dir of the export"
        )
    write_corrections(Path(config.out), Corrections(dataset=labels_digest(splits), corrections=diff.corrections))
    counts = Counter(one.action for one in diff.corrections)
    logger.log(
        RESULT,
        "labels diff: %d added, %d removed, %d changed in %d images, %d of which have changes -> %s",
        counts[Action.add],
        counts[Action.remove],
        counts[Action.change],
        diff.images,
        len({(one.split, one.image) for one in diff.corrections}),
        config.out,
    )


def read_edited(path: Path) -> list[EditedImage]:
    """Read the file of a tool, whose format its content shows. Raises ToolFileError for any other content."""
    expected = "edited labels: COCO, CVAT for images 1.1, Label Studio's JSON or FiftyOne's labels.json"
    start = read_input(path, expected)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PK"):
        raise ToolFileError(f"{path}: expected {expected}, got a zip file; unpack it, and give the file in it")
    if start.startswith(b"<"):
        return read_cvat(path)
    content = read_json(path, expected)
    if isinstance(content, list):
        return read_label_studio(path)
    if isinstance(content, dict) and "labels" in content and "annotations" not in content:
        return read_fiftyone(path)
    return read_coco_labels(path)
