"""`detpipe make-db`: a list of images, one folder per class, or MNIST files -> an LMDB of Caffe's Datum.

It replaces Caffe's convert_imageset and convert_mnist_data.
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
from detpipe.commands.tasks import held_shards, keep_shards, making_shard, opened_shard, run_tasks
from detpipe.console import RESULT
from detpipe.datasets.folder_scan import is_inside, real_folders
from detpipe.datasets.idx import read_idx_images
from detpipe.datasets.labelled_images import (
    LabelledImages,
    label_gaps,
    read_class_folders,
    read_class_names,
    read_image_list,
)
from detpipe.datasets.source import TooManyBadError, hold_max_bad
from detpipe.parallel import ordered_map
from detpipe.progress import counted, progress
from detpipe.runs.task_command import LmdbCommand
from detpipe.storage.content_digest import ContentDigest
from detpipe.storage.datum import parse_datum
from detpipe.storage.lmdb_pages import is_begun
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter
from detpipe.storage.manifest import Artefact, Making, digest_of
from detpipe.storage.shard_index import data_files
from detpipe.storage.sharded_lmdb import open_lmdb
from detpipe.storage.shards import Shards, forget_merge
from detpipe.structures import MAX_PIXELS, LeftOut

logger = logging.getLogger(__name__)


class OtherSizeError(ValueError):
    """check_size is set and an image has another size than the first."""


@dataclass(kw_only=True)
class MakeDb(LmdbCommand):
    """Settings of `detpipe make-db`."""

    list: str | None = None
    """A text file, one "path label" per line, paths relative to `root`; null: the folders in `root` are classes."""
    root: str = "."
    """The folder of the paths in `list`; without `list`, a folder with one folder of images per class."""
    outside: bool = False
    """Also read images outside of `root`: paths with ../, absolute paths, and links to elsewhere."""
    idx_images: str | None = None
    """A file of grey images in MNIST's format (IDX, or IDX.gz), instead of a list or folders."""
    idx_labels: str | None = None
    """The file of the labels of `idx_images`."""
    first: int = 0
    """Number of images to skip at the start of the list, folders or file."""
    count: int | None = None
    """Number of images to store after `first`; null: all the others."""
    out: str | None = None
    """The folder of the database to write."""
    classes: str | None = None
    """With `list` or `idx_labels`: a text file with one class name per line, in label order."""
    resize: str | None = None
    """HEIGHTxWIDTH changes the aspect ratio, as in Caffe; short:SIDE scales the shorter side; none keeps the size;
    null: 256x256 for image files, none for IDX."""
    encode: Encode = Encode.none
    """none stores raw pixels, identical to Caffe's tool; jpg and png store compressed images."""
    quality: int = 95
    """JPEG quality of OpenCV, 1 to 100, with encode=jpg."""
    shuffle: bool = True
    """Store the images in random order, given by `seed`."""
    grey: bool = False
    """Store grey images with one channel."""
    check_size: bool = False
    """Fail if the stored images do not all have the same size."""
    num_shards: int = 1
    """Number of databases to divide the records into."""
    max_bad: float = 0.01
    """The share of images, 0 to 1, that may be unreadable; the command fails above it."""
    max_pixels: int = MAX_PIXELS
    """Limit on height x width of an image, in its file and as it is stored. A larger one counts as unreadable."""
    verify: bool = False
    """Read and decode all records after writing, also of an existing database."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.idx_images is None) != (self.idx_labels is None):
            raise ValueError("idx_images and idx_labels: expected both or none, got one; give both files of the set")
        if self.idx_images is not None and self.list is not None:
            raise ValueError("list and idx_images: expected one of them, got both; leave one out")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: expected at least 1, got {self.max_pixels}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality: expected 1 to 100, got {self.quality}")
        size = Resize.parse(self.resize_as).size
        if size is not None:
            try:
                self.form.check(size)
            except ValueError as error:
                raise ValueError(f"resize: {error}") from error
        if self.first < 0:
            raise ValueError(f"first: expected at least 0, got {self.first}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count: expected at least 1, or null for all, got {self.count}")
        if not 1 <= self.num_shards <= 99_999:
            raise ValueError(f"num_shards: expected 1 to 99999, got {self.num_shards}")
        if self.num_shards > 1 and not self.merge:
            raise ValueError(
                f"num_shards: expected 1 beside merge=false, got {self.num_shards}; each task keeps its own database"
            )
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad: expected a share from 0 to 1, got {self.max_bad}")
        if self.classes is not None and self.list is None and self.idx_labels is None:
            raise ValueError(
                "classes: expected list=FILE or idx_labels=FILE with it, got neither; leave it out, folders have names"
            )

    @property
    def resize_as(self) -> str:
        """`resize`, or its default."""
        if self.resize is not None:
            return self.resize
        return "256x256" if self.idx_images is None else "none"

    @property
    def form(self) -> ImageForm:
        """How images are stored."""
        return ImageForm(Resize.parse(self.resize_as), self.encode, self.grey, self.quality, self.max_pixels)

    @property
    def source(self) -> str:
        """Where the images come from, for messages."""
        return self.idx_images or self.list or self.root

    @property
    def database(self) -> Path:
        """The path of the database. Raises ValueError if `out` is not set."""
        if self.out is None:
            raise ValueError("out: expected the folder of the database, got none; give out=DB")
        return Path(self.out)


def run(config: MakeDb) -> None:
    """Write the database, or resume an unfinished one."""
    path = config.database
    images = read_images(config)
    if images.classes is None and (gaps := label_gaps([image.label for image in images.images])):
        logger.warning("make-db: %s: %s; train-cls refuses these labels", config.source, gaps)
    log_outside(config, images)
    artefact = Artefact(path, stage="make-db", settings=settings(config, images), inputs={"images": digest(images)})
    if config.task is not None:
        make_shard(config, images, artefact)
        return
    with (
        held_shards(config, artefact, merge=config.merge) as shards,
        artefact.making(overwrite=config.overwrite) as making,
    ):
        if making.needed:
            making.bad = make_in_tasks(config, images, shards[0]) if shards else write_images(config, images, making)
            try:
                hold_max_bad(making.bad, len(images.images), config.max_bad, "max_bad")
            except TooManyBadError:
                for one in shards:
                    one.retry_bad(delete=False)
                raise
            making.summary = summarize(path, config.num_shards)
    if config.verify:
        verify(path, artefact)
    summary = artefact.manifest.summary
    logger.log(
        RESULT,
        "make-db: %d images of %d labels in %.1f s, %.1f MB -> %s",
        summary["images"],
        len(summary["labels"]),
        artefact.manifest.seconds,
        summary["megabytes"],
        path,
    )


def log_outside(config: MakeDb, images: LabelledImages) -> None:
    """Log images outside of the root. Only with `outside` can a list have such images."""
    if config.outside:
        real = real_folders([images.root])
        files = [images.path(image) for image in images.images if image.grey is None and image.fault is None]
        paths = [path for path in files if not is_inside(path, real)]
        if paths:
            logger.warning("make-db: %d images are outside of %s, as %s", len(paths), images.root, paths[0])


def read_images(config: MakeDb) -> LabelledImages:
    """Return the images given by `first` and `count` of the list, folders or IDX files.

    Raises ValueError if there are fewer images.
    """
    images = read_source(config)
    end = len(images.images) if config.count is None else config.first + config.count
    if not config.first < end <= len(images.images):
        raise ValueError(
            f"{config.source}: expected at least {max(end, config.first + 1)} images for first={config.first} and "
            f"count={config.count}, got {len(images.images)}; give smaller numbers"
        )
    return replace(images, images=images.images[config.first : end])


def read_source(config: MakeDb) -> LabelledImages:
    """Return all images of the list, folders or IDX files. Raises ValueError for an empty list."""
    classes = None if config.classes is None else read_class_names(Path(config.classes))
    if config.idx_images is not None and config.idx_labels is not None:
        return read_idx_images(Path(config.idx_images), Path(config.idx_labels), classes)
    if config.list is None:
        return read_class_folders(Path(config.root), outside=config.outside)
    images = read_image_list(Path(config.list), Path(config.root), classes, outside=config.outside)
    if not images.images:
        raise ValueError(f'{config.list}: expected one image per line, got an empty list; add lines "path label"')
    return images


def settings(config: MakeDb, images: LabelledImages) -> dict[str, object]:
    """Return the settings that change the content."""
    names = ("encode", "shuffle", "check_size", "num_shards")
    chosen: dict[str, object] = {name: getattr(config, name) for name in names}
    chosen["resize"], chosen["grey"] = config.resize_as, config.grey or config.idx_images is not None
    chosen["seed"] = config.seed if config.shuffle else None
    chosen["quality"] = config.quality if config.encode is Encode.jpg else None
    chosen["classes"] = images.classes
    return chosen


def digest(images: LabelledImages) -> str:
    """Return the digest of names, labels and file sizes (-1: missing file), or pixels. It is independent of `root`."""
    rows: list[list[object]] = []
    for image in images.images:
        if image.grey is not None:
            rows.append([image.name, image.label, hashlib.blake2b(image.grey.tobytes(), digest_size=16).hexdigest()])
            continue
        path = images.path(image)
        is_there = image.fault is None and path.is_file()
        rows.append([image.name, image.label, path.stat().st_size if is_there else -1])
    return digest_of(rows)


def plan(config: MakeDb, images: LabelledImages) -> list[list[ImageTask]]:
    """Return the images of each shard in the order of their keys: a pure function of images, settings and seed.

    Images without a file have an index, but no task.
    """
    order = image_order(len(images.images), shuffle=config.shuffle, seed=config.seed)
    tasks: list[ImageTask | None] = []
    for index, original in enumerate(order):
        image = images.images[original]
        task = ImageTask(images.path(image), image.label, image_key(index, image.name), config.form, image.grey)
        tasks.append(task if image.fault is None else None)
    ends = np.linspace(0, len(tasks), config.num_shards + 1).round().astype(int)
    return [[task for task in tasks[begin:end] if task is not None] for begin, end in pairwise(ends)]


def write_images(config: MakeDb, images: LabelledImages, making: Making) -> Sequence[LeftOut]:
    """Write the missing records. Returns the unreadable images.

    Raises Interrupted after a signal, OtherSizeError with check_size.
    """
    bad = without_file(images)
    shards = shard_paths(config.database, config.num_shards)
    return [*bad, *write_records(config, shards, plan(config, images), making)]


def without_file(images: LabelledImages) -> list[LeftOut]:
    """Return the images that can't be read because their list names no file that may be read."""
    return [LeftOut(image.name, image.fault) for image in images.images if image.fault is not None]


def write_records(
    config: MakeDb, shards: Sequence[Path], planned: Sequence[Sequence[ImageTask]], making: Making
) -> list[LeftOut]:
    """Write the missing records of databases (shards). Returns the unreadable images. Raises as `write_images`."""
    bad: list[LeftOut] = []
    size = SameSize(first_size(shards[0]))
    tasks = missing_tasks(shards, planned)
    total = sum(map(len, planned))
    if len(tasks) < total:
        logger.info("make-db: %d of %d images already done", total - len(tasks), total)
    # The pixels of IDX files are in memory: sending them to a worker would take longer than storing them.
    workers = config.workers if config.idx_images is None else 0
    made = ordered_map(
        make_image_record, [task for _, task in tasks], workers=workers, describe=lambda task: str(task.path)
    )
    results = zip(tasks, progress(made, "make-db", total=len(tasks), unit="images"), strict=True)
    with making.stoppable() as stop:
        for shard, group in groupby(results, key=lambda result: result[0][0]):
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


def make_shard(config: MakeDb, images: LabelledImages, whole: Artefact) -> None:
    """Write the records of one task: a part of the stored order, in one database."""
    with making_shard(config, whole) as (making, shards):
        if making.needed:
            own = shards.own([task for tasks in plan(config, images) for task in tasks], config.task)
            making.bad = write_records(config, [making.path], [own], making)
            making.summary = {"images": len(own), "records": len(own) - len(making.bad)}


def make_in_tasks(config: MakeDb, images: LabelledImages, shards: Shards) -> list[LeftOut]:
    """Run the tasks, and merge or keep their shards. Returns the unreadable images.

    Raises ShardError for a missing or damaged shard, OtherSizeError with check_size.
    """
    planned = plan(config, images)
    tasks = [task for of_database in planned for task in of_database]
    run_tasks(config, "make-db", [shards], [len(own) for own in shards.parts(tasks)])
    if config.check_size:
        size = SameSize(None)
        for number, own in enumerate(shards.parts(tasks), start=1):
            with opened_shard(shards, number) as reader:
                stored = next((task for task in own if task.key in reader), None)
                if stored is not None:  # all images of a shard have the same size
                    datum = parse_datum(reader.get(stored.key), str(reader.path))
                    size.hold(stored, (datum.height, datum.width))
    if config.merge:
        merge_shards(config, planned, shards)
    else:
        keep_shards(shards, records="records")
    return [*without_file(images), *shards.bad()]


def merge_shards(config: MakeDb, planned: Sequence[Sequence[ImageTask]], shards: Shards) -> None:
    """Copy the records of all shards, as `write_images` would write them.

    Raises ShardError for a missing or damaged shard.
    """
    tasks = [task for of_database in planned for task in of_database]
    sizes = [manifest.summary["records"] for manifest in shards.manifests()]
    numbers = [number for number, own in enumerate(shards.parts(tasks), start=1) for _ in own]
    shard_of = {task.key: number for task, number in zip(tasks, numbers, strict=True)}
    with counted("merge", total=len(tasks), unit="images") as count:
        for database, of_database in zip(shard_paths(config.database, config.num_shards), planned, strict=True):
            forget_merge(database)
            with LmdbWriter(database) as writer:
                for number, group in groupby(of_database, key=lambda task: shard_of[task.key]):
                    with opened_shard(shards, number) as reader:
                        if len(reader) != sizes[number - 1]:
                            raise shards.damaged(number, f"{len(reader)} records, not {sizes[number - 1]}")
                        for task in group:
                            count.advance()
                            if task.key in reader:  # others are unreadable
                                writer.put(task.key, reader.get(task.key))


def missing_tasks(shards: Sequence[Path], tasks: Sequence[Sequence[ImageTask]]) -> list[tuple[Path, ImageTask]]:
    """Return the tasks without a record, each with its shard. Creates missing shards."""
    missing = []
    for shard, shard_tasks in zip(shards, tasks, strict=True):
        with LmdbWriter(shard) as writer:
            missing += [(shard, task) for task in shard_tasks if task.key not in writer]
    return missing


@dataclass
class SameSize:
    """check_size: the (height, width) of all images; None before the first image."""

    wanted: tuple[int, int] | None

    def hold(self, task: ImageTask, size: tuple[int, int]) -> None:
        """Raise OtherSizeError if the image has another size."""
        self.wanted = self.wanted or size
        if size != self.wanted:
            raise OtherSizeError(
                f"{task.path}: expected {self.wanted} (height, width) as the first image, got {size}; "
                "give resize=HEIGHTxWIDTH, or check_size=false"
            )


def first_size(path: Path) -> tuple[int, int] | None:
    """Return the (height, width) of the first record of a database; None if it is empty or missing."""
    if not is_begun(path):
        return None
    with LmdbReader(path) as reader:
        for _, record in reader.items():
            datum = parse_datum(record, str(path))
            return datum.height, datum.width
    return None


def summarize(path: Path, shards: int) -> dict[str, object]:
    """Return counts, and the digest of all records in order for `verify`, since raw records have no checksum."""
    labels: dict[int, int] = {}
    for label in (parse_datum(record, str(path)).label for _, record in records(path, shards)):
        labels[label] = labels.get(label, 0) + 1
    files = [file for shard in shard_paths(path, shards) for file in data_files(shard)]
    return {
        "images": sum(labels.values()),
        "labels": {str(label): labels[label] for label in sorted(labels)},
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "content": content_digest(path, shards),
    }


def records(path: Path, shards: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values, shard after shard."""
    for shard in shard_paths(path, shards):
        with open_lmdb(shard) as reader:
            yield from reader.items()


def content_digest(path: Path, shards: int) -> str:
    """Return the digest of all keys and records in order."""
    content = ContentDigest()
    for key, record in records(path, shards):
        content.add(key, record)
    return content.hexdigest()


def verify(path: Path, artefact: Artefact) -> None:
    """Compare the records with their digest and decode each. Raises CorruptDatumError or ValueError for damage."""
    shards = int(artefact.manifest.settings["num_shards"])
    if content_digest(path, shards) != artefact.manifest.summary["content"]:
        raise ValueError(f"{path}: expected the records as written, got others; run make-db with overwrite=true")
    with ImagesReader(path) as reader:
        for index in progress(range(len(reader)), "verify", total=len(reader), unit="images"):
            reader.planes(index)
    logger.log(RESULT, "make-db: all %d images of %s are valid", artefact.manifest.summary["images"], path)
