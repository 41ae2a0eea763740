"""VOC's lists of one class (ImageSets/Main/cat_train.txt): -1, 0 or 1 behind the name of each image.

1: the image has an object of the class. 0: it has only difficult ones. -1: it has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from detpipe.datasets.entry import RawObject

_LINE = re.compile(rb"(.*\S)([ \t]+(?:-1|0|1))([ \t\r]*)")


def class_flag(objects: Iterable[RawObject], name: str) -> int:
    """The flag of a class for an image with these objects; -1 without objects."""
    difficult = [one.difficult for one in objects if one.name == name]
    return -1 if not difficult else int(not all(difficult))


def with_flags(data: bytes, flags: Mapping[str, int]) -> bytes:
    """The bytes of a list with the flags of some images changed; other lines and the columns stay.

    flags: by the name of the image as the list has it. Names that are not in the list, or without a flag, are ignored.
    """
    new = {name.encode(): str(flag).encode() for name, flag in flags.items()}
    lines = data.split(b"\n")
    for row, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is not None and (flag := new.get(match[1].strip())) is not None and match[2].strip() != flag:
            lines[row] = match[1] + (b" " + flag).rjust(len(match[2])) + match[3]
    return b"\n".join(lines)
