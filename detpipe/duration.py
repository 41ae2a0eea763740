"""Durations as people type them: 90s, 5min, 1h30min."""

from __future__ import annotations

import re

SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
"""Seconds of each unit, from long to short."""
LONGEST = 30 * 24 * 3600.0
"""The longest duration in seconds: 30 days."""
_PARTS = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<min>\d+(?:\.\d+)?)min)?(?:(?P<s>\d+(?:\.\d+)?)s)?", re.ASCII)


def seconds_of(text: str, name: str) -> float:
    """The seconds of a duration. Spaces are ignored; units stand in the order h, min, s, each once.

    name: the setting, for the message. Raises ValueError for text that is not a duration, for 0, and above 30 days.
    """
    found = _PARTS.fullmatch(re.sub(r"\s", "", text))
    if found is None or not found[0]:
        hint = f"; give {name}={text.strip()}s or {name}={text.strip()}min" if text.strip().isdecimal() else ""
        raise ValueError(
            f"{name}: expected a duration with its unit, as 90s, 5min, 1h or 1h30min, got {text[:40]!r}{hint}"
        )
    seconds = sum(SECONDS[unit] * float(number) for unit, number in found.groupdict().items() if number)
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"{name}: expected a duration above 0 and of at most 720h (30 days), got {text[:40]!r}")
    return seconds
