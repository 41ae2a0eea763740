"""`detpipe convert`: write a data set in another format, with a list of what that format can't hold."""

from __future__ import annotations

import enum
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from detpipe.console import RESULT, amount
from detpipe.datasets.conversion import Conversion, NotCarried, read_conversion, writer
from detpipe.datasets.corrected_copy import CopiedImages, place_image
from detpipe.datasets.source import DatasetSource, Split, TooManyBadError
from detpipe.progress import counted
from detpipe.runs.command import Command
from detpipe.runs.kept_dataset import dataset_words
from detpipe.storage.atomic import write_json

logger = logging.getLogger(__name__)

REPORT = "conversion.json"
"""In the written folder: what was converted, and what was not carried over."""
_SHOWN = 3
"""Places of each kind of loss that are shown; all are in the report."""


class Target(enum.Enum):
    """The format that is written."""

    coco = "coco"
    voc = "voc"
    yolo = "yolo"


class Images(enum.Enum):
    """How images get into the new folder. link: hard links, or copies where the disk has none; none: not at all."""

    link = "link"
    copy = "copy"
    none = "none"


@dataclass(kw_only=True)
class Convert(Command):
    """Settings of `detpipe convert`."""

    to: Target | None = None
    """The format that is written: coco, voc or yolo."""
    out: str | None = None
    """The folder that is written. It must be empty or not exist, and be outside the data set."""
    images: Images = Images.link
    """link: hard links of the images, which take no space, and copies where the disk has none; copy: copies; none: only
    annotations."""


@dataclass(frozen=True)
class Lost:
    """One kind of what was not carried over. where: images, files or names."""

    what: str
    count: int
    where: list[str]


@dataclass(frozen=True)
class Report:
    """The content of conversion.json. images, objects: number in each split that was read."""

    source: str
    to: str
    classes: list[str]
    images: dict[str, int]
    objects: dict[str, int]
    not_carried_over: list[Lost]


def run(config: Convert) -> None:
    """Write the data set. The folder gets its name only when everything in it is complete."""
    if config.to is None:
        raise ValueError("to: expected the format to write, got none; give to=coco, to=voc or to=yolo")
    if not config.out:
        raise ValueError("out: expected a new folder for the converted data set, got none; give out=DIR")
    source, out = config.data_source, Path(config.out)
    check_out(out, source)
    lost = NotCarried()
    conversion = read_conversion(source, lost)
    hold_limit(conversion, lost, source.max_bad)
    scratch = out.with_name(f".{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        places = writer(config.to.value)(conversion, scratch, lost)
        if config.images is not Images.none:
            with counted("convert: images", total=len(places), unit="images") as count:
                for path, target in places:
                    place_image(path, target, CopiedImages[config.images.name])
                    count.advance()
        report = report_of(conversion, lost, dataset_words(source), config.to)
        write_json(scratch / REPORT, asdict(report))
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    show(report, out)


def check_out(out: Path, source: DatasetSource) -> None:
    """Raise ValueError if the folder has content, or lies in the data set, which is never written to."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ValueError(f"out: expected a new or empty folder, got {out}, which has content; give another name")
    settings = [getattr(source, name) for name in source.PATHS]
    given = [Path(one) for value in settings for one in (value if isinstance(value, list) else [value]) if one]
    for folder in [*given, *source.named_folders()]:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"out: expected a folder outside the data set, which is never changed, got {out} in {folder}"
            )


def hold_limit(conversion: Conversion, lost: NotCarried, max_bad: float) -> None:
    """Raise TooManyBadError if the share of images that can't be used is above max_bad."""
    kind = "images that can't be used"
    bad, good = lost.counts[kind], sum(len(split.images) for split in conversion.splits)
    if bad > max_bad * (bad + good):
        raise TooManyBadError(
            f"{conversion.title}: {bad} of {bad + good} images can't be used: {'; '.join(lost.where[kind][:3])}. This "
            f"is more than dataset.max_bad={max_bad:g}; correct the images or raise it"
        )


def report_of(conversion: Conversion, lost: NotCarried, source: str, to: Target) -> Report:
    """What was converted and what was not."""
    return Report(
        source=source,
        to=to.value,
        classes=list(conversion.classes),
        images={one.split.value: len(one.images) for one in conversion.splits},
        objects={one.split.value: sum(len(image.objects) for image in one.images) for one in conversion.splits},
        not_carried_over=[Lost(kind, count, lost.where[kind]) for kind, count in lost.counts.most_common()],
    )


def show(report: Report, out: Path) -> None:
    """Print the list of what was not carried over, and how the new data set is read."""
    for one in report.not_carried_over:
        more = ", ..." if len(one.where) > _SHOWN else ""
        logger.log(RESULT, "not carried over: %d %s (%s%s)", one.count, one.what, ", ".join(one.where[:_SHOWN]), more)
    if not report.not_carried_over:
        logger.log(RESULT, "everything was carried over")
    voc_val = report.to == Target.voc.value and Split.val.value in report.images
    words = f"dataset=voc dataset.root={out} dataset.val=val" if voc_val else f"dataset.root={out}"
    logger.log(
        RESULT,
        "convert: %s, %s -> %s, list in %s; read it with %s",
        *(
            amount(sum(report.images.values()), "images"),
            amount(sum(report.objects.values()), "objects"),
            out,
            out / REPORT,
            words,
        ),
    )
