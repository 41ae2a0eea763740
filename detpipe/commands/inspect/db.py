"""`detpipe inspect db`: read every record of a database of images -> statistics, pictures and a page."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.classify.database_sample import evenly_by_class, image_numbers, read_at
from detpipe.classify.images.contents import DatabaseContents, Fault, PixelStatistics, read_contents
from detpipe.classify.images.database import describe_runs
from detpipe.commands.inspect.settings import InspectDb
from detpipe.console import RESULT
from detpipe.datasets.labelled_images import label_gaps
from detpipe.report.curves import to_png
from detpipe.report.database_page import (
    CELL,
    DatabasePage,
    SampledImage,
    database_text,
    label_figure,
    mean_image,
    sheet,
    write_database_page,
)
from detpipe.report.drawing import image_to_png, scaled
from detpipe.report.text_table import as_bytes
from detpipe.runs.image_database import manifest_classes
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.storage.datum import parse_datum, unpack_image
from detpipe.storage.links import refuse_link
from detpipe.storage.manifest import Manifest, find_manifest

logger = logging.getLogger(__name__)

STAGES = ("make-db", "crop")
"""The commands that write databases of images."""
NAMED_REPEATS = 3
"""Number of groups of equal records that are listed."""


class DatabaseFaultError(ValueError):
    """A database with unreadable records, or that differs from its manifest."""


def run(config: InspectDb) -> None:
    """Read every record and write the results. Raises DatabaseFaultError at the end if there are faults."""
    path = config.database
    manifest = image_manifest(path)
    contents = read_contents(path)
    names = label_names(contents, manifest)
    faults = [*contents.faults, *manifest_faults(contents, manifest)]
    data = DatabasePage(
        subtitle=str(path),
        facts=describe(contents, manifest),
        labels=contents.label_counts(),
        names=names,
        faults=faults,
        fault_count=contents.fault_count + len(faults) - len(contents.faults),
        sample=list(
            sampled(
                contents,
                names,
                config.sample,
                config.seed,
                of_crops=manifest is not None and manifest.stage == "crop",
            )
        ),
        seed=config.seed,
        mean=None if contents.mean is None else mean_image(contents.mean),
    )
    if config.out is None:
        refuse_link(config.out_folder)
    written = write(config.out_folder, data, contents)
    for fault in faults:
        logger.warning("%s: %s", fault.where, fault.reason)
    logger.log(RESULT, "%s", database_text(data))
    logger.log(RESULT, "inspect db: %d records -> %s", len(contents.records), ", ".join(map(str, written)))
    if faults:
        raise DatabaseFaultError(
            f"{path}: expected no faults, got {data.fault_count}, listed above and in {written[0]}; make the database "
            f"again. The first: {faults[0].where}: {faults[0].reason}"
        )


def image_manifest(path: Path) -> Manifest | None:
    """Return the manifest of the database, finished or not; None for Caffe's. Raises ValueError for other outputs."""
    manifest = find_manifest(path)
    if manifest is not None and manifest.stage not in STAGES:
        raise ValueError(
            f"{path}: expected a database of images from make-db, crop or Caffe, got the output of "
            f"`detpipe {manifest.stage}`; give db=DB"
        )
    return manifest


def label_names(contents: DatabaseContents, manifest: Manifest | None) -> dict[int, str]:
    """Return the name of each label in the database, or its number if it has no name."""
    names = (manifest_classes(manifest) if manifest is not None else None) or ()
    return {label: names[label] if label < len(names) else str(label) for label in contents.label_counts()}


def manifest_faults(contents: DatabaseContents, manifest: Manifest | None) -> Iterator[Fault]:
    """Yield the differences of a finished database from its manifest: number and digest of records, class names."""
    if manifest is None or not manifest.complete:
        return
    count = len(contents.records) + contents.unreadable
    wanted = manifest.summary.get("images" if manifest.stage == "make-db" else "crops")
    if wanted is not None and wanted != count:
        yield Fault("manifest", f"expected {wanted} records, got {count}")
    elif manifest.summary.get("content") not in (None, contents.digest):
        yield Fault("manifest", "expected the records as written, got others; make the database again")
    classes = manifest_classes(manifest)
    nameless = [label for label in contents.label_counts() if classes is not None and label >= len(classes)]
    if classes is not None and nameless:
        yield Fault("manifest", f"expected labels of {len(classes)} classes, got label {nameless[0]}")


def describe(contents: DatabaseContents, manifest: Manifest | None) -> dict[str, str]:
    """Return the facts by name."""
    shards = f" in {len(contents.shards)} shards" if len(contents.shards) > 1 else ""
    unreadable = f" readable, {contents.unreadable:,} unreadable" if contents.unreadable else ""
    facts = {
        "records": f"{len(contents.records):,}{unreadable}{shards}, {as_bytes(contents.bytes)}",
        "made by": made_by(manifest),
    }
    if not len(contents.records):
        return facts
    kinds = contents.kind_counts().items()
    facts |= {
        "stored as": ", ".join(f"{kind}" if len(kinds) == 1 else f"{kind} {count:,}" for kind, count in kinds),
        "sizes": describe_sizes(contents.size_counts()),
        "pixels": "; ".join(describe_pixels(contents.pixels[planes]) for planes in sorted(contents.pixels)),
        "labels": describe_labels(contents, manifest),
        "order": describe_runs(contents.labels) or "labels are mixed",
        "repeats": describe_repeats(contents),
    }
    return facts


def made_by(manifest: Manifest | None) -> str:
    """Return the command that wrote the database."""
    if manifest is None:
        return "unknown: no manifest, as for databases of Caffe"
    return f"detpipe {manifest.stage}, version {manifest.detpipe}" + ("" if manifest.complete else "; NOT FINISHED")


def describe_sizes(sizes: Mapping[tuple[int, int, int], int]) -> str:
    """Return one size, up to three sizes with counts, or the range and the most frequent: height x width x channels."""
    texts = [f"{height} x {width} x {channels}" for height, width, channels in sizes]
    counts = list(sizes.values())
    if len(texts) == 1:
        return f"{texts[0]} (height x width x channels)"
    if len(texts) <= 3:
        return ", ".join(f"{text}: {count:,}" for text, count in zip(texts, counts, strict=True))
    sides = np.array(list(sizes))
    ranges = [
        f"{name} {low} to {high}"
        for name, low, high in zip(("height", "width", "channels"), sides.min(axis=0), sides.max(axis=0), strict=True)
    ]
    return f"{len(texts):,} sizes, {', '.join(ranges)}; most frequent {texts[0]} ({counts[0]:,})"


def describe_pixels(pixels: PixelStatistics) -> str:
    """Return the mean and standard deviation of each plane."""
    names = ("blue", "green", "red") if len(pixels.mean) == 3 else ("grey",)
    planes = zip(names, pixels.mean, pixels.std, strict=True)
    return "mean (std) " + ", ".join(f"{name} {mean:.3f} ({std:.3f})" for name, mean, std in planes)


def describe_labels(contents: DatabaseContents, manifest: Manifest | None) -> str:
    """Return the number of labels, the records per label, and classes without records."""
    counts = contents.label_counts()
    few, many = min(counts.values()), max(counts.values())
    text = f"{len(counts):,}, from {min(counts)} to {max(counts)}; {few:,} to {many:,} records per label"
    classes = manifest_classes(manifest) if manifest is not None else None
    empty = [name for label, name in enumerate(classes or ()) if label not in counts]
    some = ", ".join(empty[:3]) + (", …" if len(empty) > 3 else "")
    gaps = label_gaps(counts) if classes is None else ""
    text += f"; {gaps}" if gaps else ""
    return text + (f"; {len(empty):,} classes without records: {some}" if empty else "")


def describe_repeats(contents: DatabaseContents) -> str:
    """Return the number of duplicate records, with the keys of the first ones."""
    groups = contents.repeats()
    if not groups:
        return "no duplicate records"
    records = contents.records
    shown = [records["place"][group[:2]].tolist() for group in groups[:NAMED_REPEATS]]
    keys = {
        place: key.decode(errors="replace") for place, key, _ in read_at(contents.shards, set(np.ravel(shown).tolist()))
    }
    pairs = ", ".join(f"{keys[one]} = {other}" for one, other in ((a, keys[b]) for a, b in shown))
    copies = sum(len(group) - 1 for group in groups)
    wrong = sum(contents.is_contradiction(group) for group in groups)
    labels = f"; {wrong:,} images have several labels" if wrong else ""
    return f"{copies:,} duplicate records{labels}: {pairs}{', …' if len(groups) > len(shown) else ''}"


def sampled(
    contents: DatabaseContents, names: Mapping[int, str], count: int, seed: int, *, of_crops: bool
) -> Iterator[SampledImage]:
    """Yield small images of some records for the contact sheet, in label order. of_crops: several records an image."""
    places = contents.records["place"]
    images = image_numbers(contents.shards)[places] if of_crops and count and len(places) else None
    chosen = evenly_by_class(contents.labels, count, seed, images)
    records = contents.records[chosen]
    wanted = set(records["place"].tolist())
    pictures = (
        {place: small_image(key, value) for place, key, value in read_at(contents.shards, wanted)} if wanted else {}
    )
    for place, label in zip(records["place"].tolist(), records["label"].tolist(), strict=True):
        key, image = pictures[place]
        yield SampledImage(label, names[label], key, image)


def small_image(key: bytes, value: bytes) -> tuple[str, Any]:
    """Return the key as text, and the image with a longer side of at most two cells of the sheet."""
    image = unpack_image(parse_datum(value, repr(key)), repr(key))
    return key.decode(errors="replace"), scaled(image, min(1.0, 2 * CELL / max(image.shape[:2])))


def write(folder: Path, data: DatabasePage, contents: DatabaseContents) -> Sequence[Path]:
    """Write all files; returns their paths, the numbers first. Outdated pictures of an earlier call are deleted."""
    json_file, page_file = folder / "inspect_db.json", folder / "inspect_db.html"
    pictures = {
        "labels.png": to_png(label_figure(data.labels, data.names)) if data.labels else None,
        "contact_sheet.png": image_to_png(
            sheet(
                [one.image for one in data.sample],
                [one.caption for one in data.sample],
                [one.label for one in data.sample],
            )
        )
        if data.sample
        else None,
        "mean.png": image_to_png(data.mean) if data.mean is not None else None,
    }
    write_json(json_file, as_json(data, contents))
    write_database_page(page_file, data)
    for name, picture in pictures.items():
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_bytes(folder / name, picture)
    return [json_file, page_file, *(folder / name for name, picture in pictures.items() if picture is not None)]


def as_json(data: DatabasePage, contents: DatabaseContents) -> dict[str, Any]:
    """Return all numbers and faults."""
    return {
        "database": data.subtitle,
        "records": len(contents.records),
        "unreadable": contents.unreadable,
        "faults": [{"where": fault.where, "reason": fault.reason} for fault in data.faults],
        "kinds": contents.kind_counts(),
        "sizes": [
            {"height": h, "width": w, "channels": c, "records": n} for (h, w, c), n in contents.size_counts().items()
        ],
        "labels": {str(label): {"name": data.names[label], "records": n} for label, n in data.labels.items()},
        "pixels": {str(planes): {"mean": one.mean, "std": one.std} for planes, one in contents.pixels.items()},
        "repeats": sum(len(group) - 1 for group in contents.repeats()),
        "facts": dict(data.facts),
    }
