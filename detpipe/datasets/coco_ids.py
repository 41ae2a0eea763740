"""Ids in COCO files. Some programs write a number as text ("7", "000007") or as a whole float (7.0, pandas).

Two ids are the same if they are equal as written, or, where this matches nothing, if they are the same number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from detpipe.structures import ImageId

Name = TypeVar("Name", int, ImageId)
_WHOLE = re.compile(r"\d{1,40}(\.0{1,10})?", re.ASCII)


def plain_id(value: object) -> ImageId | None:
    """The id as an integer or a text that is not empty; a whole float is an integer. None for any other value."""
    if type(value) is int:  # the usual one, of thousands in a file
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) or (isinstance(value, str) and value) else None


def number_of(value: object) -> int | None:
    """The integer that an id means: 7 for 7, 7.0, "7", "007" and "7.0". None for any other value."""
    if type(value) is int:
        return value
    value = plain_id(value)
    if isinstance(value, str):
        return int(value.strip().partition(".")[0]) if _WHOLE.fullmatch(value.strip()) else None
    return value


@dataclass(frozen=True)
class IdMatcher:
    """Finds the id that a value in a file means.

    names: from each accepted name of an image to its id. numbers: from the number that an id or a name means. Both are
    without ambiguous ones, but an exact id always counts.
    """

    names: Mapping[ImageId, ImageId]
    numbers: Mapping[int, ImageId]

    @classmethod
    def of(cls, images: Iterable[tuple[ImageId, Sequence[str]]]) -> IdMatcher:
        """images: each id with its other names."""
        names: dict[ImageId, ImageId | None] = {}
        numbers: dict[int, ImageId | None] = {}
        own: dict[ImageId, ImageId] = {}
        for image_id, others in images:
            own[image_id] = image_id
            for name in {str(image_id), *others}:
                names[name] = None if name in names else image_id
            for number in {number_of(name) for name in (image_id, *others)} - {None}:
                assert number is not None
                numbers[number] = None if number in numbers else image_id
        return cls({**_known(names), **own}, _known(numbers))

    def find(self, value: object) -> ImageId | None:
        """The id that the value means: as written, else as a number. None for an unknown value."""
        name = plain_id(value)
        if name is not None and name in self.names:
            return self.names[name]
        number = number_of(value)
        return None if number is None else self.numbers.get(number)


def _known(found: Mapping[Name, ImageId | None]) -> dict[Name, ImageId]:
    return {name: image_id for name, image_id in found.items() if image_id is not None}
