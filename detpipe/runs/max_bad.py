"""How many unreadable images a command that writes a record an image puts up with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detpipe.datasets.source import TooManyBadError
from detpipe.structures import LeftOut

logger = logging.getLogger(__name__)


def hold_max_bad(bad: Sequence[LeftOut], total: int, max_bad: float, setting: str) -> None:
    """Name the images that have no record; raise TooManyBadError where their share is above max_bad.

    total: images, bad ones too; none are fine. setting: what the command calls the limit.
    """
    for one in bad:
        logger.warning("left out: %s", one)
    if len(bad) > max_bad * total:
        first = "; ".join(map(str, bad[:3]))
        raise TooManyBadError(
            f"{len(bad)} of {total} images can't be read, more than {setting}={max_bad:g}: {first}. "
            "Mend or remove them, or raise it"
        )
