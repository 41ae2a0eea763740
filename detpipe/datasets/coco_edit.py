"""Changes annotations in a COCO file. The text of all other records stays as it is: ids, unknown fields, numbers.

The text is changed in place, because a JSON writer would write all numbers and spaces in its own way.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.datasets.coco import CocoFileError, records_of_objects
from detpipe.datasets.coco_ids import number_of, plain_id
from detpipe.datasets.coco_object import rotation_of
from detpipe.datasets.object_edits import Box, NewImage, ObjectEdit, decimal
from detpipe.structures import ImageId

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
Record = dict[str, Any]


@dataclass
class _Array:
    """A list of records, and where each is in the text.

    start, end: the list with its brackets. places: start and end of each record.
    """

    start: int
    end: int
    records: list[Record]
    places: list[tuple[int, int]]


def edited_coco_file(
    data: bytes,
    path: Path,
    edits: Mapping[ImageId, Sequence[ObjectEdit]],
    category_ids: Mapping[str, int],
    new_images: Sequence[NewImage] = (),
) -> bytes:
    """The bytes of a COCO file with the edits; without edits, the same bytes.

    A new class changes `category_id`. A new box changes `bbox` and `area`, which becomes the area of the box; a
    `segmentation` becomes [], because it is where the object was, and CVAT's `rotation` becomes 0. All other fields
    stay, `id` too. An added annotation has the next free id, `iscrowd` 0 and an empty `segmentation`, and stands behind
    the others.
    path: for messages. edits: by image id, with the indices of `Entry.objects`. category_ids: the id of each class that
    the edits name; a class that the file lacks gets a record in `categories`. new_images: they get the next free ids,
    or their names in a file whose ids are texts.
    Raises CocoFileError if the file is no longer one that `read_coco_file` has read.
    """
    if not any(edits.values()) and not new_images:
        return data
    encoding = json.detect_encoding(data)
    text = data.decode(encoding, "surrogatepass")
    arrays = _arrays(text, path)
    of_objects = records_of_objects({key: array.records for key, array in arrays.items()})
    images = {plain_id(one.get("id")): one.get("id") for one in arrays["images"].records}  # 7.0 means 7
    has_names = any(isinstance(one.get("id"), str) for one in arrays["images"].records)
    highest = max((number_of(one.get("id")) or 0 for one in arrays["images"].records), default=0)
    new_records: list[Record] = []
    for number, image in enumerate(new_images, start=highest + 1):
        height, width = image.image_size
        own_id: ImageId = image.name if has_names else number
        file_name = f"{image.name}{image.path.suffix}"
        new_records.append({"id": own_id, "file_name": file_name, "height": height, "width": width})
        edits = {**edits, own_id: image.objects}
        images[own_id] = own_id
    annotations = arrays["annotations"]
    rows = {id(record): row for row, record in enumerate(annotations.records)}
    changed: dict[int, Record | None] = {}
    added: list[Record] = []
    next_id = max((number_of(one.get("id")) or 0 for one in annotations.records), default=0)
    for image_id, some in edits.items():
        for edit in some:
            if edit.index is not None:
                record = of_objects[image_id][edit.index]
                changed[rows[id(record)]] = None if edit.is_removed else _changed(record, edit, category_ids)
            else:
                next_id += 1
                assert edit.name is not None
                assert edit.box is not None
                added.append(
                    {
                        "id": next_id,
                        "image_id": images[image_id],
                        "category_id": category_ids[edit.name],
                        **_box_fields(edit.box),
                    }
                    | {"iscrowd": 0, "segmentation": []}
                )
    known = {str(one.get("name")).strip() for one in arrays["categories"].records}
    used = dict.fromkeys(edit.name for some in edits.values() for edit in some if edit.name is not None)
    categories = [_category(name, category_ids[name], arrays["categories"]) for name in used if name not in known]
    pieces = [
        (arrays["images"].start, arrays["images"].end, _array_text(text, arrays["images"], {}, new_records)),
        (annotations.start, annotations.end, _array_text(text, annotations, changed, added)),
        (arrays["categories"].start, arrays["categories"].end, _array_text(text, arrays["categories"], {}, categories)),
    ]
    for start, end, new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    return text.encode(encoding, "surrogatepass")


def _changed(record: Record, edit: ObjectEdit, category_ids: Mapping[str, int]) -> Record:
    new = dict(record)
    if edit.name is not None:
        new["category_id"] = category_ids[edit.name]
    if edit.box is not None:
        new |= _box_fields(edit.box)
        if "segmentation" in new:
            new["segmentation"] = []
        if rotation_of(record):
            new["attributes"] = {**record["attributes"], "rotation": 0.0}
    return new


def _box_fields(box: Box) -> Record:
    """bbox and area. The numbers have few decimals if the reader then finds the same box in float32."""
    x1, y1, x2, y2 = map(decimal, box)
    bbox = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
    if [decimal(bbox[0] + bbox[2]), decimal(bbox[1] + bbox[3])] != [x2, y2]:
        bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return {"bbox": [_plain(value) for value in bbox], "area": _plain(round(bbox[2] * bbox[3], 6))}


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _category(name: str, number: int, others: _Array) -> Record:
    more = {"supercategory": name} if any("supercategory" in one for one in others.records) else {}
    return {"id": number, "name": name, **more}


def _array_text(text: str, array: _Array, changed: Mapping[int, Record | None], added: Sequence[Record]) -> str:
    """The text of a list with changed records, without those that are None, and with added ones behind the others."""
    if not changed and not added:
        return text[array.start : array.end]
    places = array.places
    first, last = (places[0][0], places[-1][1]) if places else (array.start + 1, array.start + 1)
    between = [""] + [text[one[1] : two[0]] for one, two in itertools.pairwise(places)]
    indent = text[array.start + 1 : first]
    usual = between[-1] if len(between) > 1 else f",{indent or ' '}"
    parts: list[str] = []
    for row, (start, end) in enumerate(places):
        record = changed.get(row, array.records[row])
        if record is not None:
            own = json.dumps(record, ensure_ascii=False) if row in changed else text[start:end]
            parts += [between[row] or usual if parts else "", own]
    for record in added:
        parts += [usual if parts else "", json.dumps(record, ensure_ascii=False)]
    return f"[{indent}{''.join(parts)}{text[last : array.end]}" if places else f"[{''.join(parts)}]"


def _arrays(text: str, path: Path) -> dict[str, _Array]:
    """The lists of images, annotations and categories of a COCO file."""
    found: dict[str, _Array] = {}
    place = _after_space(text, 0)
    try:
        if text[place] != "{":
            raise ValueError("expected an object")
        place = _after_space(text, place + 1)
        while text[place] != "}":
            key, place = _DECODER.raw_decode(text, place)
            place = _after_space(text, _after_space(text, place) + 1)  # the colon
            if key in ("images", "annotations", "categories"):
                found[key] = _array(text, place)
                place = found[key].end
            else:
                _, place = _DECODER.raw_decode(text, place)
            place = _after_space(text, place)
            if text[place] == ",":
                place = _after_space(text, place + 1)
    except (ValueError, IndexError) as error:
        raise CocoFileError(f"{path}: expected the COCO file that was read before, got another: {error}") from error
    lacking = [key for key in ("images", "annotations", "categories") if key not in found]
    if lacking:
        raise CocoFileError(f'{path}: expected "{lacking[0]}", got a COCO file without; add an empty list')
    return found


def _array(text: str, start: int) -> _Array:
    """The list at a place of the text; null is an empty one."""
    if text[start] != "[":
        _, end = _DECODER.raw_decode(text, start)
        return _Array(start, end, [], [])
    records, places = [], []
    place = _after_space(text, start + 1)
    while text[place] != "]":
        record, end = _DECODER.raw_decode(text, place)
        records.append(record)
        places.append((place, end))
        place = _after_space(text, end)
        if text[place] == ",":
            place = _after_space(text, place + 1)
    return _Array(start, place + 1, records, places)


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return place if match is None else match.end()
