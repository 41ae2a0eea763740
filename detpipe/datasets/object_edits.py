"""Changes to the objects of one image in its annotation file. The writers of VOC and COCO apply them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detpipe.datasets.entry import RawObject

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class ObjectEdit:
    """One change.

    index: of the object among the objects of its `Entry`; None adds an object. is_removed: the object is removed. name
    and box: the new ones; None keeps the object's own. The box is half-open, x1 y1 x2 y2, on the pixels that the
    file's own boxes are on. Raises ValueError if an added object lacks one of them.
    """

    index: int | None = None
    is_removed: bool = False
    name: str | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.index is None and (self.is_removed or self.name is None or self.box is None):
            raise ValueError("expected a name and a box of an added object, got none")


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """An image that a copy of a data set gets in addition. It becomes a training image.

    path: its file. name: the file's name without suffix in the copy, which no other image has. image_size: (height,
    width) as it is shown. objects: edits that add its objects.
    """

    path: Path
    name: str
    image_size: tuple[int, int]
    objects: tuple[ObjectEdit, ...]


def edited_objects(objects: Sequence[RawObject], edits: Sequence[ObjectEdit]) -> list[RawObject]:
    """The objects after the edits: changed ones in their places, without removed ones, then added ones in order.

    No edits give the same objects. An object whose box is changed has the area of the box.
    """
    by_index = {edit.index: edit for edit in edits if edit.index is not None}
    found = [_edited(one, by_index.get(index)) for index, one in enumerate(objects)]
    added = [RawObject(edit.name, edit.box) for edit in edits if edit.index is None and edit.name and edit.box]
    return [one for one in found if one is not None] + added


def _edited(one: RawObject, edit: ObjectEdit | None) -> RawObject | None:
    if edit is None:
        return one
    if edit.is_removed:
        return None
    if edit.box is not None:
        one = replace(one, box=edit.box, area=None, written=None)
    return replace(one, name=edit.name) if edit.name is not None else one


def decimal(value: float) -> float:
    """The number with the fewest decimals that is the same in float32, in which a data set has its boxes."""
    return float(str(np.float32(value)))
