"""`detpipe inspect attention`: the regions that detections attended to -> inspect_attention.png, .json."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from detpipe.classify.detect import Selection, select
from detpipe.classify.fast_rcnn.scorer import FastRcnnScorer
from detpipe.commands.explain import find_image
from detpipe.commands.inspect.settings import InspectAttention
from detpipe.console import RESULT
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import Split
from detpipe.report.attention_picture import Attended, DetectionAttention, attention_picture
from detpipe.report.drawing import image_to_png
from detpipe.runs.detector import Detector
from detpipe.storage.atomic import write_bytes, write_json
from detpipe.structures import Float32Array, Image, Int64Array

logger = logging.getLogger(__name__)


def run(config: InspectAttention) -> None:
    """Detect objects in an image, and draw which regions each detection attended to."""
    detector = Detector.from_run(config.run_dir, device=config.device.value)
    check_layers(config, detector)
    path, image = shown_image(config, detector)
    found = attention_of(config, detector, image)
    out = config.folder.path if config.out is None else Path(config.out)
    json_file, png_file = (out / f"inspect_attention.{kind}" for kind in ("json", "png"))
    write_json(json_file, {"image": str(path), "detections": [asdict(one) for one in found]})
    write_bytes(png_file, image_to_png(attention_picture(image, found)))
    for one in found:
        strongest = f", {one.regions[0].weight:.0%} to the strongest other region" if one.regions else ""
        logger.log(RESULT, "%s %.2f: %.0f %% to itself%s", one.name, one.score, 100 * one.own, strongest)
    logger.log(RESULT, "inspect attention: %d detections in %s -> %s, %s", len(found), path, json_file, png_file)


def check_layers(config: InspectAttention, detector: Detector) -> None:
    """Raise ValueError for a detector without attention or with tiles, and for a layer or head that it lacks."""
    scorer = detector.scorer
    if not isinstance(scorer, FastRcnnScorer) or scorer.network.attention is None:
        attends = getattr(scorer.network, "attention", None) is not None
        remedy = (
            "set detect.fast_rcnn.tiles.size to 0 in its detect.json" if attends else "train one with head.attention=2"
        )
        raise ValueError(
            "run_dir: expected a detector with head.attention above 0 that scores whole images, got "
            f"{'tiles' if attends else 'no attention'} in {config.run_dir}; {remedy}"
        )
    attention = scorer.network.attention
    given = (("layer", config.layer, len(attention.layers)), ("attention_head", config.attention_head, attention.heads))
    for name, value, most in given:
        if value is not None and value > most:
            raise ValueError(f"{name}: expected 1 to {most}, got {value}")


def shown_image(config: InspectAttention, detector: Detector) -> tuple[Path, Image]:
    """Return the path and the pixels of `image`, a file or a test image. Raises ValueError for neither."""
    if not config.image:
        raise ValueError("image: expected an image file or a test image, got none; give image=NAME")
    if Path(config.image).is_file():
        return Path(config.image), read_image(Path(config.image), detector.options)
    record = find_image(config.data_source.load(Split.test), config.image)
    return record.path, read_image(record.path, record.options)


def attention_of(config: InspectAttention, detector: Detector, image: Image) -> list[DetectionAttention]:
    """Return the best detections with the regions that they attended to."""
    assert isinstance(detector.scorer, FastRcnnScorer)
    ((boxes, scored, size),) = detector.score_many([detector.with_regions(image)])
    selection = select(boxes, scored, size, detector.config)
    rows = regions_of(selection)[: config.detections]
    if not len(rows):
        return []
    weights = detector.scorer.attention(image, boxes)[-1 if config.layer is None else config.layer - 1]
    shown = weights.mean(axis=0) if config.attention_head is None else weights[config.attention_head - 1]
    detections = selection.detections
    return [
        DetectionAttention(
            name=detector.classes[int(detections.labels[number]) - 1],
            score=float(detections.scores[number]),
            box=_box(detections.boxes[number]),
            own=float(shown[row, row]),
            regions=strongest(shown[row], int(row), boxes, config.regions),
        )
        for number, row in enumerate(rows)
    ]


def regions_of(selection: Selection) -> Int64Array:
    """Return the region that each detection was made from, (D,)."""
    rows = [one.rows[one.kept] for one in selection.classes]
    return np.concatenate([*rows, np.zeros(0, dtype=np.int64)])[selection.order]


def strongest(weights: Float32Array, own: int, boxes: Float32Array, count: int) -> tuple[Attended, ...]:
    """Return the `count` regions with the largest weights (R,), without the region itself."""
    order = [int(row) for row in np.argsort(-weights, kind="stable") if row != own][:count]
    return tuple(Attended(box=_box(boxes[row]), weight=float(weights[row])) for row in order)


def _box(box: Float32Array) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(value, 2) for value in box.tolist())
    return x1, y1, x2, y2
