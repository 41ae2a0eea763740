"""The page of `detpipe labels audit` and `detpipe labels next`, on which a person corrects labels.

It is one file with the pictures inside. "Save corrections" downloads corrections.json for `detpipe labels apply`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detpipe.datasets.image_file import read_image
from detpipe.labels.corrections import checked_box
from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.suspects import Suspect
from detpipe.parallel import ordered_map
from detpipe.progress import progress
from detpipe.report import page
from detpipe.report.drawing import scaled, to_jpeg
from detpipe.report.figure_style import hex_colour
from detpipe.storage.atomic import write_text
from detpipe.storage.encoded_image import BrokenImageError
from detpipe.structures import ImageId, ImageRecord

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels of the image."""
ImageKey = tuple[str | None, ImageId]
"""Split and image id. The split is None for images outside of a data set."""
SCRIPTS = ("dom.js", "labels_records.js", "labels_classes.js", "labels_boxes.js", "labels.js")


@dataclass(frozen=True, kw_only=True)
class LabelledObject:
    """An object of the annotation file. id: of the annotation, as text, if the format has ids (COCO)."""

    box: Box
    label: str
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class PageImage:
    """An image of the page. objects: all of its annotation, in the order of the file; none for an unlabelled image."""

    record: ImageRecord
    objects: Sequence[LabelledObject] = ()


@dataclass(frozen=True, kw_only=True)
class PredictedBox:
    """A box that the detector proposes, with its class and its score in [0, 1]. Raises ValueError if it is empty."""

    box: Box
    label: str
    score: float

    def __post_init__(self) -> None:
        checked_box(self.box)


@dataclass(frozen=True, kw_only=True)
class ImageToLabel:
    """An image without labels. boxes: drawn in advance, maybe none. why: one sentence, why this image was chosen."""

    image: ImageId
    boxes: Sequence[PredictedBox]
    why: str = ""
    split: str | None = None


PageItem = Suspect | ImageToLabel


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelsPage:
    """The content of the page.

    dataset: digest of the labels, which corrections.json repeats. classes: of the data set, among which a person
    chooses. items: what is shown one after another, in this order: suspects, or images to label. images: the image of
    each item by split and id; others are not stored in the page. Raises ValueError for an item without its image, and
    for a suspect whose object its image does not have.
    """

    title: str
    subtitle: str
    dataset: str
    classes: Sequence[str]
    items: Sequence[PageItem]
    images: Mapping[ImageKey, PageImage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.items:
            key = (item.split, item.image)
            if key not in self.images:
                raise ValueError(f"labels page: expected an image for each item, got none for {item.image!r}")
            if isinstance(item, Suspect) and item.object is not None:
                count = len(self.images[key].objects)
                if item.object >= count:
                    raise ValueError(
                        f"labels page: image {item.image!r}: expected an object from 0 to {count - 1}, "
                        f"got {item.object}"
                    )


def write_labels_page(
    path: Path, data: LabelsPage, config: LabelsPageConfig | None = None, *, workers: int = 0
) -> None:
    """Write the page to `path` atomically. Its decisions are kept in the browser under the name of this file.

    config: null for the defaults. workers: threads that read images, as in `resolve_workers`. A page without items says
    that there is nothing to do. An image that can't be read has no picture; its items are there.
    """
    write_text(path, render(data, path.name, config or LabelsPageConfig(), workers=workers))


def render(data: LabelsPage, file: str, config: LabelsPageConfig, *, workers: int = 0) -> str:
    """The page as HTML. file: its name. Otherwise as `write_labels_page`."""
    items = data.items[: config.most]
    shown = list(dict.fromkeys((item.split, item.image) for item in items))
    numbers = {key: number for number, key in enumerate(shown)}
    return page.render(
        "labels.html",
        data.subtitle,
        scripts=SCRIPTS,
        data={
            "file": file,
            "dataset": data.dataset,
            "classes": [[name, hex_colour(label)] for label, name in enumerate(data.classes, start=1)],
            "images": [_image_row(key, data.images[key]) for key in shown],
            "items": _item_rows(items, numbers),
        },
        title=data.title,
        is_audit=not any(isinstance(item, ImageToLabel) for item in items),
        left_out=len(data.items) - len(items),
        pictures=_pictures([data.images[key].record for key in shown], config, workers),
    )


def _image_row(key: ImageKey, image: PageImage) -> dict[str, Any]:
    """An image without its picture. id: as JSON text, which JavaScript can't round as it does large integers."""
    height, width = image.record.image_size
    return {
        "id": json.dumps(key[1]),
        "split": key[0],
        "name": image.record.path.name,
        "width": width,
        "height": height,
        "objects": [[*map(float, one.box), one.label, one.id] for one in image.objects],
    }


def _item_rows(items: Sequence[PageItem], numbers: Mapping[ImageKey, int]) -> list[dict[str, Any]]:
    """The items. key: by which the browser knows an item again, also if the page is written again in another order."""
    rows = []
    seen: Counter[str] = Counter()
    for item in items:
        content = _suspect_row(item) if isinstance(item, Suspect) else _unlabelled_row(item)
        identity = json.dumps([item.split, item.image, content["kind"], content["object"], content["boxes"]])
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        seen[key] += 1
        image = numbers[item.split, item.image]
        rows.append({"key": f"{key}.{seen[key]}", "image": image, "why": item.why, **content})
    return rows


def _suspect_row(item: Suspect) -> dict[str, Any]:
    after = item.suggestion
    return {
        "kind": item.kind.value,
        "score": item.score,
        "object": item.object,
        "boxes": [[*map(float, item.box), item.label, None]],
        "action": after.action.value,
        "label": after.label,
        "box": None if after.box is None else [*map(float, after.box)],
    }


def _unlabelled_row(item: ImageToLabel) -> dict[str, Any]:
    boxes = [[*map(float, one.box), one.label, one.score] for one in item.boxes]
    return {"kind": "unlabelled", "score": None, "object": None, "boxes": boxes}


def _pictures(records: Sequence[ImageRecord], config: LabelsPageConfig, workers: int) -> list[Markup]:
    """The base64 text of each picture's JPEG; "" for an image that can't be read."""
    read = partial(_picture, side=config.side, quality=config.quality)
    texts = ordered_map(read, records, workers=workers, max_threads=64)
    shown = progress(texts, "pictures of the page", total=len(records), unit="images")
    return [Markup(text) for text in shown]


def _picture(record: ImageRecord, *, side: int, quality: int) -> str:
    try:
        image = read_image(record.path, record.options)
    except (BrokenImageError, OSError):
        return ""
    scale = min(1.0, side / max(image.shape[:2]))
    return base64.b64encode(to_jpeg(scaled(image, scale) if scale < 1 else image, quality)).decode("ascii")
