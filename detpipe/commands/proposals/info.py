"""`detpipe proposals info`: log the content and origin of a proposals.lmdb."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from detpipe.commands.proposals.settings import ProposalsInfo
from detpipe.console import RESULT
from detpipe.proposals.box_columns import scale_of
from detpipe.proposals.methods import method_name
from detpipe.proposals.proposals_db import ProposalsReader, parse_proposals
from detpipe.storage.manifest import Manifest, read_manifest
from detpipe.storage.shard_index import data_files

logger = logging.getLogger(__name__)


@dataclass
class Content:
    """Counts over all records.

    splits: images by split. boxes: number per image. scales: of `box_columns`. sources: number of boxes by source.
    """

    splits: Counter[str] = field(default_factory=Counter)
    boxes: list[int] = field(default_factory=list)
    record_bytes: int = 0
    scales: set[int] = field(default_factory=set)
    sources: Counter[int] = field(default_factory=Counter)


def run(config: ProposalsInfo) -> None:
    """Log the description. Raises ArtefactError for an unfinished database, CorruptRecordError for a damaged one."""
    manifest = read_manifest(config.database)
    logger.log(RESULT, "%s", describe(config.database, manifest, count(config.database)))


def count(database: Path) -> Content:
    """Count the content in one pass over the records."""
    content = Content()
    with ProposalsReader(database) as reader:
        for key, data in reader.records():
            stored = parse_proposals(data, f"{database}, record {key!r}")
            content.splits[key.partition("/")[0]] += 1
            content.boxes.append(len(stored.proposals))
            content.record_bytes += len(data)
            content.scales.add(scale_of(stored.image_size))
            if stored.sources is not None:
                content.sources.update(stored.sources.tolist())
    return content


def describe(database: Path, manifest: Manifest, content: Content) -> str:
    """Return the description as text, one fact per line."""
    settings = manifest.settings["proposals"]
    shown = {name: value for name, value in settings.items() if name not in ("method", "seed")}
    rows = [
        ("method", method_name(settings)),
        ("settings", ", ".join(f"{name}={json.dumps(value)}" for name, value in shown.items())),
        ("seed", str(settings.get("seed"))),
        ("made by", f"detpipe {manifest.detpipe} in {manifest.seconds:.1f} s"),
        ("images", ", ".join(f"{split} {images}" for split, images in content.splits.items()) or "none"),
        ("boxes", _boxes(content.boxes)),
        ("size", _size(content, sum(file.stat().st_size for file in data_files(database)))),
        ("box type", _box_type(content.scales)),
    ]
    if content.sources:
        names = settings.get("sources", [])
        counts = (
            f"{names[number]} {boxes}" for number, boxes in sorted(content.sources.items()) if number < len(names)
        )
        rows.append(("sources", ", ".join(counts)))
    if manifest.bad:
        rows.append(("left out", f"{len(manifest.bad)}: {'; '.join(map(str, manifest.bad[:3]))}"))
    return "\n".join([str(database), *(f"  {name:<9} {text}" for name, text in rows)])


def _boxes(boxes: Sequence[int]) -> str:
    if not boxes:
        return "none"
    low, middle, high = min(boxes), float(np.median(boxes)), max(boxes)
    return f"{sum(boxes)}; per image: minimum {low}, median {middle:g}, maximum {high}"


def _size(content: Content, file_bytes: int) -> str:
    per_box = content.record_bytes / max(sum(content.boxes), 1)
    return f"{per_box:.2f} bytes per box in the records, {file_bytes / 1e6:.1f} MB on disk"


def _box_type(scales: set[int]) -> str:
    """Return the type and unit of the coordinates, and the largest rounding error."""
    if not scales:
        return "none"
    errors = sorted({Fraction(2) ** -(scale + 1) for scale in scales})
    lost = " to ".join(str(error) for error in dict.fromkeys((errors[0], errors[-1])))
    whole = "; whole pixels are exact" if min(scales) >= 0 else ""
    return (
        f"uint16 in units of 2^-s pixels, s {' to '.join(map(str, _ends(scales)))}: "
        f"rounding error at most {lost}{whole}"
    )


def _ends(scales: set[int]) -> list[int]:
    return sorted({min(scales), max(scales)})
