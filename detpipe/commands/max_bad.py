"""How many unreadable images a command that writes a record an image puts up with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detpipe.datasets.source import TooManyBadError

logger = logging.getLogger(__name__)


def hold_max_bad(bad: Sequence[str], total: int, max_bad: float, setting: str) -> None:
    """Name the images that have no record; raise TooManyBadError where their share is above max_bad.

    bad: "file: reason" each. total: images, bad ones too; none are fine. setting: what the command calls the limit.
    """
    for line in bad:
        logger.warning("left out: %s", line)
    if len(bad) > max_bad * total:
        raise TooManyBadError(
            f"{len(bad)} of {total} images can't be read, more than {setting}={max_bad:g}: {'; '.join(bad[:3])}. "
            "Mend or remove them, or raise it"
        )
