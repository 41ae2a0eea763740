"""`detpipe check`: find faults in a data set -> check.json, and the same as text."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from detpipe.console import RESULT
from detpipe.datasets.check import CheckReport, check_source
from detpipe.datasets.findings import Severity
from detpipe.runs.command import Command
from detpipe.runs.run_folder import write_split
from detpipe.storage.atomic import write_json

logger = logging.getLogger(__name__)


class FailOn(enum.Enum):
    """The lowest severity that makes `detpipe check` fail."""

    error = "error"
    warning = "warning"
    never = "never"


class DataFaultError(ValueError):
    """The data set has findings at or above `fail_on`."""


@dataclass(kw_only=True)
class Check(Command):
    """Settings of `detpipe check`."""

    fail_on: FailOn = FailOn.error
    """error, warning or never: the lowest severity of a finding that gives exit status 1."""
    full: bool = True
    """true: decode every image. false: read only image headers and annotations."""


def run(config: Check) -> None:
    """Write and log all faults of the data set. Then raises DataFaultError if one is at or above `fail_on`."""
    report = inspect(config, full=config.full)
    logger.log(RESULT, "%s", report.to_text())
    logger.log(RESULT, "check: %d findings -> %s", len(report.findings), config.folder.check)
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
    report = check_source(config.data_source, full=full, workers=config.workers)
    write_split(config.folder, config.data_source)
    write_json(config.folder.check, report.to_json())
    return report
