"""`detpipe make-db`: a list of images, a folder a class, or MNIST's files -> an LMDB of Caffe's Datum.

It does the work of Caffe's convert_imageset and convert_mnist_data.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from detpipe.classify.images.database import (
    BrokenImage,
    Encode,
    ImageForm,
    ImagesReader,
    ImageTask,
    Resize,
    image_key,
    image_order,
    make_image_record,
    shard_paths,
)
from detpipe.datasets.idx import read_idx_images
from detpipe.datasets.labelled_images import LabelledImages, read_class_folders, read_class_names, read_image_list
from detpipe.datasets.source import hold_max_bad
from detpipe.parallel import ordered_map
from detpipe.progress import progress
from detpipe.runs.command import Command
from detpipe.storage.content_digest import ContentDigest
from detpipe.storage.datum import parse_datum
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter
from detpipe.storage.manifest import Artefact, Making, digest_of
from detpipe.structures import LeftOut

logger = logging.getLogger(__name__)


class OtherSizeError(ValueError):
    """With check_size, an image of another size than the first."""


@dataclass(kw_only=True)
class MakeDb(Command):
    """Settings of `detpipe make-db`."""

    list: str | None = None
    """A file of lines "path label", paths from `root`; null takes the folders in `root` as classes."""
    root: str = "."
    """The folder that paths start from; without `list`, the folder of a folder a class."""
    idx_images: str | None = None
    """A file of grey images in MNIST's form (IDX, also as .gz), in place of a list or folders."""
    idx_labels: str | None = None
    """The file of their labels."""
    first: int = 0
    """How many images, of the list, the folders or the file in their order, to pass over."""
    count: int | None = None
    """How many to take from there; null takes all that are left."""
    out: str | None = None
    """The database to write: a folder."""
    classes: str | None = None
    """With `list` or `idx_labels`: a file of class names, a line each, in label order."""
    resize: str | None = None
    """HEIGHTxWIDTH warps, as Caffe does; short:SIDE keeps the shape; none keeps the size; null is 256x256 for image
    files and none for IDX."""
    encode: Encode = Encode.none
    """none stores pixels as Caffe's tool does to the byte; jpg and png store files."""
    quality: int = 95
    """OpenCV's JPEG quality, 1 to 100."""
    shuffle: bool = True
    """Store in an order drawn from `seed`."""
    grey: bool = False
    """Store one plane of brightness."""
    check_size: bool = False
    """Fail at the first image whose stored size is another than that of those before."""
    num_shards: int = 1
    """Databases to spread the records over, each a part of the order."""
    max_bad: float = 0.01
    """The share of images that may be unreadable; above it, the command fails."""
    verify: bool = False
    """Read every record back and decode it when all are written (and when they were there already)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.idx_images is None) != (self.idx_labels is None):
            raise ValueError("idx_images and idx_labels: expected both or none, got one; give both files of the set")
        if self.idx_images is not None and self.list is not None:
            raise ValueError("list and idx_images: expected one of them, got both")
        Resize.parse(self.resize_as)
        if self.first < 0:
            raise ValueError(f"first: expected at least 0, got {self.first}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count: expected at least 1, or null for all, got {self.count}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality: expected 1 to 100, got {self.quality}")
        if not 1 <= self.num_shards <= 99_999:
            raise ValueError(f"num_shards: expected 1 to 99999, got {self.num_shards}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: expected a share from 0 to 1, got {self.max_bad}")
        if self.classes is not None and self.list is None and self.idx_labels is None:
            raise ValueError("classes: goes with list=FILE or idx_labels=FILE; folders are named by themselves")

    @property
    def resize_as(self) -> str:
        """`resize`, or what it is where nobody said."""
        if self.resize is not None:
            return self.resize
        return "256x256" if self.idx_images is None else "none"

    @property
    def source(self) -> str:
        """Where the images come from, for messages."""
        return self.idx_images or self.list or self.root

    @property
    def database(self) -> Path:
        """Where it is written. Raises ValueError where nobody said."""
        if self.out is None:
            raise ValueError("out: expected the folder of the database, got none; give out=DB")
        return Path(self.out)


def run(config: MakeDb) -> None:
    """Write the database, or go on with one that was not finished."""
    path = config.database
    images = read_images(config)
    artefact = Artefact(path, stage="make-db", settings=settings(config, images), inputs={"images": digest(images)})
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            making.bad = write_images(config, images, making)
            hold_max_bad(making.bad, len(images.images), config.max_bad, "max_bad")
            making.summary = summarize(path, config.num_shards)
    if config.verify:
        verify(path, artefact)
    summary = artefact.manifest.summary
    logger.info(
        "make-db: %d images of %d labels in %.1f s, %.1f MB -> %s",
        summary["images"],
        len(summary["labels"]),
        artefact.manifest.seconds,
        summary["megabytes"],
        path,
    )


def read_images(config: MakeDb) -> LabelledImages:
    """The images of the list, of the folders or of the IDX files, those that `first` and `count` choose.

    Raises ValueError where there are none, or fewer than `first` and `count` ask for.
    """
    images = read_source(config)
    end = len(images.images) if config.count is None else config.first + config.count
    if not config.first < end <= len(images.images):
        raise ValueError(
            f"{config.source}: expected at least {max(end, config.first + 1)} images for first={config.first} and "
            f"count={config.count}, got {len(images.images)}"
        )
    return replace(images, images=images.images[config.first : end])


def read_source(config: MakeDb) -> LabelledImages:
    """All images of the list, of the folders or of the IDX files. Raises ValueError for an empty list."""
    classes = None if config.classes is None else read_class_names(Path(config.classes))
    if config.idx_images is not None and config.idx_labels is not None:
        return read_idx_images(Path(config.idx_images), Path(config.idx_labels), classes)
    if config.list is None:
        return read_class_folders(Path(config.root))
    images = read_image_list(Path(config.list), Path(config.root), classes)
    if not images.images:
        raise ValueError(f"{config.list}: expected images, a line each, got an empty list")
    return images


def settings(config: MakeDb, images: LabelledImages) -> dict[str, object]:
    """All that changes the content."""
    names = ("encode", "shuffle", "check_size", "num_shards")
    chosen: dict[str, object] = {name: getattr(config, name) for name in names}
    chosen["resize"], chosen["grey"] = config.resize_as, config.grey or config.idx_images is not None
    chosen["seed"] = config.seed if config.shuffle else None
    chosen["quality"] = config.quality if config.encode is Encode.jpg else None
    chosen["classes"] = images.classes
    return chosen


def digest(images: LabelledImages) -> str:
    """Digest of names, labels and file sizes (-1 for a file that isn't there), or pixels. The root may be moved."""
    rows: list[list[object]] = []
    for image in images.images:
        if image.grey is not None:
            rows.append([image.name, image.label, hashlib.blake2b(image.grey.tobytes(), digest_size=16).hexdigest()])
            continue
        path = images.path(image)
        rows.append([image.name, image.label, path.stat().st_size if path.is_file() else -1])
    return digest_of(rows)


def plan(config: MakeDb, images: LabelledImages) -> list[list[ImageTask]]:
    """The images of each shard in the order of their keys: a pure function of the images, settings and seed."""
    form = ImageForm(Resize.parse(config.resize_as), config.encode, config.grey, config.quality)
    order = image_order(len(images.images), shuffle=config.shuffle, seed=config.seed)
    tasks = []
    for place, chosen in enumerate(order):
        image = images.images[chosen]
        tasks.append(ImageTask(images.path(image), image.label, image_key(place, image.name), form, image.grey))
    ends = np.linspace(0, len(tasks), config.num_shards + 1).round().astype(int)
    return [tasks[begin:end] for begin, end in pairwise(ends)]


def write_images(config: MakeDb, images: LabelledImages, making: Making) -> Sequence[LeftOut]:
    """Write all records that are not there yet; returns the images that could not be read.

    Raises Interrupted after a signal, OtherSizeError with check_size.
    """
    bad: list[LeftOut] = []
    shards = shard_paths(config.database, config.num_shards)
    size = SameSize(first_size(shards[0]))
    left = missing(shards, plan(config, images))
    if len(left) < len(images.images):
        logger.info("make-db: %d of %d images were done before", len(images.images) - len(left), len(images.images))
    # Pixels that are at hand are stored sooner than handed to a worker.
    workers = config.workers if config.idx_images is None else 0
    made = ordered_map(
        make_image_record, [task for _, task in left], workers=workers, describe=lambda task: str(task.path)
    )
    results = zip(left, progress(made, "make-db", total=len(left), unit="image"), strict=True)
    with making.stoppable() as stop:
        for shard, group in groupby(results, key=lambda one: one[0][0]):
            with LmdbWriter(shard) as writer:
                for (_, task), result in group:
                    if isinstance(result, BrokenImage):
                        bad.append(LeftOut.because(task.path, result.reason))
                    else:
                        if config.check_size:
                            size.hold(task, result.size)
                        writer.put(result.key, result.value)
                    if stop:
                        break
            if stop:
                break
    return bad


def missing(shards: Sequence[Path], tasks: Sequence[Sequence[ImageTask]]) -> list[tuple[Path, ImageTask]]:
    """The tasks without a record, each with its shard; every shard is made where it is not there."""
    left = []
    for shard, of_shard in zip(shards, tasks, strict=True):
        with LmdbWriter(shard) as writer:
            left += [(shard, task) for task in of_shard if task.key not in writer]
    return left


@dataclass
class SameSize:
    """check_size: all images have the (height, width) of the first; None before it."""

    wanted: tuple[int, int] | None

    def hold(self, task: ImageTask, size: tuple[int, int]) -> None:
        """Raise OtherSizeError where the image has another size."""
        self.wanted = self.wanted or size
        if size != self.wanted:
            raise OtherSizeError(
                f"{task.path}: expected {self.wanted} (height, width) as the first image, got {size}; "
                "give resize=HEIGHTxWIDTH, or check_size=false"
            )


def first_size(path: Path) -> tuple[int, int] | None:
    """(height, width) of the first record of a database that may not be there; None without one."""
    if not (path / "data.mdb").is_file():
        return None
    with LmdbReader(path) as reader:
        for _, record in reader.items():
            datum = parse_datum(record, str(path))
            return datum.height, datum.width
    return None


def summarize(path: Path, shards: int) -> dict[str, object]:
    """Counts, and the digest of all records in their order, which `verify` compares: raw ones have no checksum."""
    labels: dict[int, int] = {}
    for label in (parse_datum(record, str(path)).label for _, record in records(path, shards)):
        labels[label] = labels.get(label, 0) + 1
    paths = shard_paths(path, shards)
    return {
        "images": sum(labels.values()),
        "labels": {str(label): labels[label] for label in sorted(labels)},
        "megabytes": round(sum((shard / "data.mdb").stat().st_size for shard in paths) / 1e6, 1),
        "content": content_digest(path, shards),
    }


def records(path: Path, shards: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values, shard after shard."""
    for shard in shard_paths(path, shards):
        with LmdbReader(shard) as reader:
            yield from reader.items()


def content_digest(path: Path, shards: int) -> str:
    """Of all keys and records in their order."""
    found = ContentDigest()
    for key, record in records(path, shards):
        found.add(key, record)
    return found.hexdigest()


def verify(path: Path, artefact: Artefact) -> None:
    """Compare the records with their digest and decode each. Raises CorruptDatumError or ValueError at a fault."""
    shards = int(artefact.manifest.settings["num_shards"])
    if content_digest(path, shards) != artefact.manifest.summary["content"]:
        raise ValueError(f"{path}: its records are not those that were written; run make-db with overwrite=true")
    with ImagesReader(path) as reader:
        for place in progress(range(len(reader)), "verify", total=len(reader), unit="image"):
            reader.planes(place)
    logger.info("make-db: all %d images of %s are whole", artefact.manifest.summary["images"], path)
