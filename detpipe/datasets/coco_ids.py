"""Ids in COCO files. Some programs write a number as text ("7", "000007") or as a whole float (7.0, pandas).

Two ids are the same if they are equal as written, or, where this matches nothing, if they are the same number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from detpipe.structures import ImageId

_WHOLE = re.compile(r"\d{1,40}(\.0{1,10})?", re.ASCII)


def plain_id(value: object) -> ImageId | None:
    """The id as an integer or a text that is not empty; a whole float is an integer. None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) or (isinstance(value, str) and value) else None


def number_of(value: object) -> int | None:
    """The integer that an id means: 7 for 7, 7.0, "7", "007" and "7.0". None for any other value."""
    value = plain_id(value)
    if isinstance(value, str):
        return int(value.strip().partition(".")[0]) if _WHOLE.fullmatch(value.strip()) else None
    return value


def find_id(value: object, known: Mapping[ImageId, ImageId]) -> ImageId | None:
    """The id that `value` means. known: of `ids_by_name`. None if there is none."""
    name = plain_id(value)
    if name is None:
        return None
    number = number_of(name)
    return known.get(name, None if number is None else known.get(number))


def ids_by_name(names: Iterable[tuple[ImageId, Iterable[ImageId]]]) -> dict[ImageId, ImageId]:
    """From each accepted name of an image to its id.

    names: each id with its other names. The number that an id means is a name of it, too. A name that fits several
    images counts only as an exact id.
    """
    fits: dict[ImageId, set[ImageId]] = {}
    own: dict[ImageId, ImageId] = {}
    for image_id, others in names:
        own[image_id] = image_id
        number = number_of(image_id)
        for name in {str(image_id), *others, *(() if number is None else (number,))}:
            fits.setdefault(name, set()).add(image_id)
    return {name: next(iter(ids)) for name, ids in fits.items() if len(ids) == 1} | own
