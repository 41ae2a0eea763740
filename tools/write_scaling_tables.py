"""Writes docs/scaling.md: time, disk, memory and files of each stage for growing numbers of images, from constants.

python tools/write_scaling_tables.py

After a new measurement, change the row of its stage in STAGES. The text is in tools/scaling_page.md. tests/test_docs.py
fails where the page is not what this writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
TEXT = Path(__file__).with_name("scaling_page.md")
"""The text of the page, with the names of TABLES in braces."""
SIZES = tuple(10**power for power in range(4, 9))
TASK = 10_000
"""Images of a task in the tables; so tasks=K has one hundred tasks for a million images."""
MOST_TASKS = 9999
"""As in detpipe/storage/shards.py."""
PART = 512
"""Images of a part of `detect out=DIR`, as in detpipe/commands/detect_parts.py."""

HEADER = 0.0004
"""Core-seconds to read one image's header and objects, which every process does for all images: coco_train, read for
the second time in one process (0.37 ms; the first time 1.0 ms; images of 64x48 pixels 0.23 ms)."""
HELD = 9_600
"""Bytes of memory for one image with seven objects, as in COCO, in every process that loads the annotations: peak of
`CocoSource.load` of 20,000 images, less the interpreter's. With one object 3,600."""
ENTRY = 690
"""Bytes of memory for one image of `detect source=DIR out=DIR`: peak of `DetectedImages.entries` of 20,000 files."""


@dataclass(frozen=True)
class Stage:
    """The constants of a stage, for one image with the default settings, and for one process.

    seconds: on one core. disk: bytes. files: of the whole stage, and of each shard that is kept. megabytes: of memory
    for a few images. held: bytes of memory for each image of the data set, in every process. own: bytes of memory for
    each image that the process itself works on. merged: bytes of memory for each image in the driver, at the end of
    `tasks=K`. shards: whether the stage has `tasks=K`.
    """

    name: str
    seconds: float
    disk: float
    files: int
    megabytes: int
    held: int
    own: int
    merged: int
    shards: bool = True
    part: int | None = None
    """Images of a file, where the number of files grows with the images."""


# One row for each stage. Sources: "notes" is benchmarks/notes; "photos" are the 100 images of voc2012_100 (500x375) or
# the 317 and 164 of coco_train and coco_val (640x480) with the default settings, CPU time; "growth" is
# benchmarks/growth.py with 300 and 3,000 images of 64x48 pixels; "counted" is the sum of the arrays that the code has.
# CPU times of "photos" and "growth" are from one core that other programs used as well.
STAGES = (
    # seconds: photos, coco_train less coco_val. megabytes, own: growth (90 and 95 MB with 3,600 held: no more).
    Stage("check", 0.005, 0, 1, 90, held=HELD, own=0, merged=0),
    # seconds: notes/proposals.md, 36.4 images/s with one worker. disk: photos, proposals.lmdb. megabytes: photos, with
    # the compiler on first use. own: growth, no growth seen.
    Stage("propose", 0.027, 24_000, 3, 350, held=HELD, own=0, merged=0),
    # seconds: photos, 75 images, less the start. disk: photos, crops.lmdb, 64 crops of 128x128. megabytes: photos.
    # own: counted, 64 regions of 44 bytes with five arrays, and keys of 72 bytes. merged: counted, keys twice.
    Stage("crop", 0.028, 585_000, 6, 130, held=HELD, own=8_500, merged=9_200),
    # seconds: notes/stored_features.md, 240 s for 385 and 100 images, one thread. disk: photos, 139 regions of 8,192
    # numbers for a training image (sampling=dense, features.mirrored); a test image has all its proposals, 16.4 MB.
    # megabytes: photos. own, merged: counted, 132 bytes for a region, its key of 57, and a copy of both when written.
    Stage("features", 0.5, 2_300_000, 11, 1600, held=HELD, own=50_000, merged=50_000),
    # seconds: BENCHMARKS.md, 170 crops/s on two cores, one pass over 64 crops. megabytes: photos. own: counted, a key
    # of 72 bytes and 40 of labels, overlaps and places for each crop.
    Stage("train-cls, crops", 0.75, 0, 10, 1550, held=0, own=7_200, merged=0, shards=False),
    # seconds: notes/stored_features.md, two_layers, 33 s for 43,607 regions, one thread, 139 of an image. own: photos,
    # the store in float32 (`examples_of`): 139 regions of 8,192 numbers, and half as much while it is copied.
    Stage("train-cls, stored features", 0.1, 0, 10, 1600, held=0, own=6_900_000, merged=0, shards=False),
    # seconds: BENCHMARKS.md, joint network in bf16, 38.4 images/s on two cores. disk: ten detections of 89 bytes in a
    # COCO result file. megabytes: growth. own: counted, three arrays for ten detections, and the trace of each object.
    Stage("detect", 0.052, 890, 2, 1180, held=HELD, own=3_600, merged=3_600),
    # As detect. disk: ten drawn detections of an image in `parts_table`, 512 images. own: growth (1,173 and 1,184 MB).
    Stage("detect, out=DIR", 0.052, 320, 1, 1180, held=ENTRY, own=200, merged=200, part=PART),
    # seconds, megabytes, own: growth, ten boxes of an image, less 3,600 held.
    Stage("eval", 0.005, 0, 3, 1020, held=HELD, own=16_000, merged=0, shards=False),
    # seconds: 200 JPEGs of imagenet_sample less 20 of them, raw, 256x256. disk: the same. held: counted.
    # Pages of an LMDB that the system maps are not counted here: it takes them back when memory is short.
    Stage("make-db", 0.0036, 201_000, 3, 110, held=700, own=0, merged=0),
)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/scaling.md."""
    return TEXT.read_text(encoding="utf-8").format(task=f"{TASK:,}", **{name: make() for name, make in TABLES.items()})


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown of a table. No rows give its head alone."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_size(value: Callable[[Stage, int], str], stages: Sequence[Stage]) -> str:
    """A table with a row for each stage and a column for each number of images."""
    return table(
        ["stage", *(f"{size:,}" for size in SIZES)], [[name_of(s), *(value(s, n) for n in SIZES)] for s in stages]
    )


def name_of(stage: Stage) -> str:
    """The command of a stage as code, and what follows it."""
    command, comma, rest = stage.name.partition(", ")
    rest = f"`{rest}`" if "=" in rest else rest
    return f"`{command}`{comma}{rest}"


def tasks_of(images: int) -> int:
    """The K of tasks=K in the tables."""
    return min(max(images // TASK, 1), MOST_TASKS)


def constants() -> str:
    """What each stage takes for an image."""
    rows = [
        [
            name_of(s),
            duration(s.seconds),
            size(s.disk),
            f"{s.megabytes:,} MB",
            size(s.held),
            size(s.own),
            size(s.merged),
        ]
        for s in STAGES
    ]
    head = [
        "stage",
        "time on one core",
        "disk",
        "memory for few images",
        "in every process",
        "own images",
        "in the driver",
    ]
    return table(head, rows)


def times() -> str:
    """The time of each stage on one core."""
    return by_size(lambda stage, images: duration(stage.seconds * images), STAGES)


def disks() -> str:
    """The disk that each stage needs."""
    return by_size(lambda stage, images: size(stage.disk * images), [one for one in STAGES if one.disk])


def memory_alone() -> str:
    """The memory of each stage in one process."""
    return by_size(lambda stage, images: size(memory(stage, stage.held + stage.own, images)), STAGES)


def memory_of_driver() -> str:
    """The memory of the driver of tasks=K."""
    stages = [one for one in STAGES if one.shards]
    return by_size(lambda stage, images: size(memory(stage, stage.held + stage.merged, images)), stages)


def memory_of_task() -> str:
    """The memory of a process that makes the shards of tasks=K, or of an actor of a stream, which gets paths."""

    def of_task(stage: Stage, images: int) -> str:
        held = 0 if stage.part is not None else stage.held * images
        return size(stage.megabytes * 1e6 + held + stage.own * -(-images // tasks_of(images)))

    return by_size(of_task, [one for one in STAGES if one.shards])


def memory(stage: Stage, slope: int, images: int) -> float:
    """Bytes of one process with so many bytes for each image."""
    return stage.megabytes * 1e6 + slope * images


def files() -> str:
    """The number of files of each stage, merged, and in kept shards where there are any."""

    def number(stage: Stage, images: int) -> str:
        if stage.part is not None:
            return f"{-(-images // stage.part) + 1:,}"
        if stage.name in ("propose", "crop", "make-db"):
            return f"{stage.files}; {stage.files * (tasks_of(images) + 1):,}"
        return f"{stage.files}"

    return by_size(number, STAGES)


def starts() -> str:
    """What every process does before its first image, and what all tasks together do."""
    rows = [
        ["one process", *(duration(HEADER * images) for images in SIZES)],
        [f"all tasks of {TASK:,} images", *(duration(HEADER * images * tasks_of(images)) for images in SIZES)],
    ]
    return table(["time on one core", *(f"{images:,}" for images in SIZES)], rows)


def duration(seconds: float) -> str:
    """Seconds in a unit that a person can compare, to two digits."""
    for unit, name in ((365.25 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * unit or (unit == 1 and seconds >= 1):
            return f"{two_digits(seconds / unit)} {name}"
    return f"{two_digits(seconds * 1000)} ms"


def size(count: float) -> str:
    """Bytes in a decimal unit, to two digits; 0 is a dash."""
    for power, name in ((5, "PB"), (4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{two_digits(count / 1000**power)} {name}"
    return f"{two_digits(count)} bytes" if count else "-"


def two_digits(value: float) -> str:
    """A number rounded to two digits, without an exponent."""
    return f"{float(f'{value:.2g}'):,g}" if value < 1000 else f"{round(value, -2):,.0f}"


TABLES = {
    "constants": constants,
    "times": times,
    "starts": starts,
    "disks": disks,
    "memory_alone": memory_alone,
    "memory_of_driver": memory_of_driver,
    "memory_of_task": memory_of_task,
    "files": files,
}

if __name__ == "__main__":
    main()
