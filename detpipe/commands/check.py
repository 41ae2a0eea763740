"""`detpipe check`: find faults in a data set -> check.json, and the same as text."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.commands.tasks import held_shards, making_shard, run_tasks
from detpipe.console import RESULT, amount
from detpipe.datasets.check import CheckedImage, CheckReport, all_entries, check_images, check_source, report_of
from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Severity
from detpipe.datasets.source import Split
from detpipe.runs.command import Command
from detpipe.runs.run_folder import write_split
from detpipe.runs.task_command import TaskCommand
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_value
from detpipe.storage.manifest import Artefact, digest_of, plain
from detpipe.storage.object_storage import is_remote
from detpipe.storage.remote_listing import remote_info
from detpipe.storage.stored_file import container_of

logger = logging.getLogger(__name__)

IMAGES = "images.json"
"""The file of a shard with what was found in its images."""


class FailOn(enum.Enum):
    """The lowest severity that makes `detpipe check` fail."""

    error = "error"
    warning = "warning"
    never = "never"


class DataFaultError(ValueError):
    """The data set has findings at or above `fail_on`."""


@dataclass(kw_only=True)
class Check(TaskCommand):
    """Settings of `detpipe check`."""

    fail_on: FailOn = FailOn.error
    """error, warning or never: the lowest severity of a finding that gives exit status 1."""
    full: bool = True
    """true: decode every image. false: read only image headers and annotations."""


def run(config: Check) -> None:
    """Write and log all faults of the data set. Then raises DataFaultError if one is at or above `fail_on`."""
    if config.task is not None:
        make_shard(config)
        return
    report = inspect(config, full=config.full) if config.tasks is None else inspect_in_tasks(config)
    logger.log(RESULT, "%s", report.to_text())
    logger.log(RESULT, "check: %s -> %s", amount(len(report.findings), "findings"), config.folder.check)
    if config.fail_on is FailOn.never:
        return
    failed = report.at_least(Severity(config.fail_on.value))
    if failed:
        raise DataFaultError(
            f"check: expected no finding at or above fail_on={config.fail_on.value}, got {len(failed)}, listed in "
            f"{config.folder.check}; correct them, or give fail_on=never"
        )


def inspect(config: Command, *, full: bool) -> CheckReport:
    """Check the data set, write check.json, and split.json for an automatic split, and return the findings."""
    return write_report(config, check_source(config.data_source, full=full, workers=config.workers))


def write_report(config: Command, report: CheckReport) -> CheckReport:
    """Write check.json, and split.json for an automatic split. Returns the report."""
    write_split(config.folder, config.data_source)
    write_json(config.folder.check, report.to_json())
    return report


def check_artefact(config: Check, entries: Sequence[tuple[Split, Entry]]) -> Artefact:
    """Return the key of the shards. check.json itself has no manifest: it is always made again."""
    images = [[split.value, str(entry.image_id), str(entry.image), *_state(entry.image)] for split, entry in entries]
    options = {"full": config.full, "options": plain(config.data_source.read_options)}
    return Artefact(config.folder.check, stage="check", settings=options, inputs={"images": digest_of(images)})


def _state(path: Path | None) -> list[int | str]:
    """The size and time or version of a file, or its container: a repaired image is read again."""
    if path is None:
        return []
    place = container_of(path)
    file = path if place is None else place[0]
    try:
        if is_remote(file):
            info = remote_info(file)
            return [info.size, info.version]
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def make_shard(config: Check) -> None:
    """Check the images of one task."""
    entries = all_entries(config.data_source)
    with making_shard(config, check_artefact(config, entries)) as (making, shards):
        if making.needed:
            own = shards.own(entries, config.task)
            images = check_images(config.data_source, own, full=config.full, workers=config.workers)
            write_json(making.path / IMAGES, plain(images))
            making.summary = {"images": len(own)}


def inspect_in_tasks(config: Check) -> CheckReport:
    """As `inspect`, with the images checked by tasks. Raises ShardError for a missing or damaged shard."""
    entries = all_entries(config.data_source)
    with held_shards(config, check_artefact(config, entries)) as (shards,):
        run_tasks(config, "check", [shards], [len(own) for own in shards.parts(entries)])
        images: list[CheckedImage] = []
        for task in range(1, shards.tasks + 1):
            path = shards.finished(task) / IMAGES
            try:
                images += read_value(path, list[CheckedImage])
            except (OSError, DataclassJsonError) as error:
                raise shards.damaged(task, error) from error
        return write_report(config, report_of(config.data_source, entries, images))
