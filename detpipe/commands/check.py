"""`detpipe check`: the data gate. A data set -> check.json, and the same as text."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from detpipe.datasets.check import CheckReport, check_source
from detpipe.datasets.findings import Severity
from detpipe.runs.command import Command
from detpipe.storage.atomic import write_json

logger = logging.getLogger(__name__)


class FailOn(enum.Enum):
    """The mildest finding that makes `detpipe check` fail."""

    error = "error"
    warning = "warning"
    never = "never"


class DataFaultError(ValueError):
    """The data set has findings at or above `fail_on`."""


@dataclass(kw_only=True)
class Check(Command):
    """Settings of `detpipe check`."""

    fail_on: FailOn = FailOn.error
    """Exit with status 1 where there is a finding of this severity or a worse one."""
    full: bool = True
    """Decode every image; false looks at headers and annotations only."""


def run(config: Check) -> None:
    """List all faults of the data set. Raises DataFaultError at or above `fail_on`, after writing them."""
    report = inspect(config, full=config.full)
    logger.info("%s", report.to_text())
    logger.info("check: %d findings -> %s", len(report.findings), config.folder.check)
    if config.fail_on is FailOn.never:
        return
    failed = report.at_least(Severity(config.fail_on.value))
    if failed:
        raise DataFaultError(
            f"{len(failed)} findings at or above fail_on={config.fail_on.value}, listed in {config.folder.check}; "
            "mend them, or run with fail_on=never"
        )


def inspect(config: Command, *, full: bool) -> CheckReport:
    """The findings, also written to check.json."""
    report = check_source(config.data_source, full=full, workers=config.workers)
    write_json(config.folder.check, report.to_json())
    return report
