"""`detpipe export`: the detector of a run as one ONNX file that runs without detpipe, and detector.json to use it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.class_path import load_class
from detpipe.classify.classifier_folder import ClassifierError, RegionSpec
from detpipe.classify.export.description import (
    DESCRIPTION,
    GRAPH,
    Calibration,
    ExportDescription,
    ImageForm,
    read_description,
)
from detpipe.classify.fast_rcnn.network import FastRcnnSpec
from detpipe.classify.fast_rcnn.scorer import tiles_of
from detpipe.classify.kinds import kind_in, load_region_spec
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec
from detpipe.commands.detector_settings import Export, Quantize
from detpipe.console import RESULT
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import DatasetSource, Split
from detpipe.network.settings import Precision
from detpipe.progress import progress
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.detector import Detector
from detpipe.runs.fitted_image import FittedImage
from detpipe.runs.model_card import FILE as CARD
from detpipe.runs.model_card import keep_exported_card
from detpipe.runs.operating_point import FILE as OPERATING_POINT
from detpipe.runs.operating_point import kept_operating_point
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.atomic import write_json
from detpipe.storage.links import refuse_links
from detpipe.storage.manifest import Artefact, ArtefactError, manifest_path, plain, read_manifest
from detpipe.structures import Float32Array, Image

logger = logging.getLogger(__name__)

STAGE = "export"

CHECKED = 3
"""Number of images on which the written file is compared with the detector."""

FILL = ImageForm().fill
"""Level of the pixels beside an image in a graph of a fixed size."""

Shown = tuple[Image, Float32Array]
"""An image and its proposals (R, 4)."""


def run(config: Export) -> None:
    """Write the detector and its description into a folder. A second call does nothing."""
    from detpipe.classify.export.graph_file import check_onnx_packages

    if config.out is None:
        refuse_links(config.folder.path)
    spec = load_region_spec(config.folder.classifier)
    refuse_tiles(spec, config)
    check_onnx_packages()
    content = description(config, spec)
    artefact = Artefact(
        config.out_folder,
        stage=STAGE,
        settings=content,
        inputs={"classifier": read_manifest(config.folder.classifier).digest},
    )
    refuse_other_stages(artefact, overwrite=config.overwrite)
    if kept_settings(config.folder.classifier).precision is Precision.bf16:
        logger.warning(
            "export: the run's own detections were computed in bf16, the exported network computes in float32: its "
            "scores differ a little; `detpipe detect precision=float32 overwrite=true` measures it"
        )
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            making.summary = write(config, content)
    keep_operating_point(config)
    keep_exported_card(config.folder, config.out_folder, read_description(config.out_folder))
    report(config, artefact)


def keep_operating_point(config: Export) -> None:
    """Copy the threshold of the run's last evaluation, if there is one, for `OnnxDetector`."""
    point, path = kept_operating_point(config.folder.classifier), config.out_folder / OPERATING_POINT
    if point is None:
        path.unlink(missing_ok=True)
    elif not path.is_file() or kept_operating_point(config.out_folder) != point:
        write_json(path, plain(point))


def refuse_tiles(spec: RegionSpec, config: Export) -> None:
    """Raise ClassifierError for a detector that works on tiles: the exported graph takes one image at its scale."""
    if not isinstance(spec, FastRcnnSpec | MultiBoxFastRcnnSpec):
        return
    tiles = tiles_of(spec, config.detect)
    if tiles.used:
        raise ClassifierError(
            f"export: expected a detector without tiles, got tiles of {tiles.size} pixels; give "
            "detect.fast_rcnn.tiles.size=0, and cut the tiles before the exported network"
        )


def has_attention(spec: RegionSpec) -> bool:
    """Whether the regions of an image attend to each other."""
    return isinstance(spec, FastRcnnSpec | MultiBoxFastRcnnSpec) and spec.head.attention > 0


def description(config: Export, spec: RegionSpec) -> dict[str, Any]:
    """Return the content of detector.json: classes, inputs, outputs, proposals and the settings inside the graph."""
    from detpipe.classify.export.onnx_graph import OPSET

    detect, kept = config.detect, kept_settings(config.folder.classifier)
    calibration = Calibration(images=config.calibration_images, folder=config.calibration)
    return ExportDescription(
        opset=OPSET,
        kind=spec.KIND,
        classes=spec.classes,
        category_ids=spec.category_ids,
        needs_boxes=not spec.PROPOSES,
        inputs=config.form.inputs(proposals=not spec.PROPOSES),
        outputs=config.form.outputs(detect.max_detections),
        image=ImageForm(stretch=kept.stretch, size=config.form.size),
        batch=config.batch,
        proposals=None if spec.PROPOSES else proposer_of_run(config.folder).describe(),
        detect={
            "max_proposals": detect.max_proposals,
            "score_floor": detect.score_floor,
            "nms_iou": detect.nms_iou,
            "vote_iou": detect.vote_iou,
            "max_detections": detect.max_detections,
            **({"duplicates": detect.fast_rcnn.duplicates.value} if has_attention(spec) else {}),
        },
        precision=Precision.float32.value,
        quantize=config.quantize.value,
        calibration=calibration if config.quantize is Quantize.int8 else None,
    ).to_json()


def write(config: Export, content: dict[str, Any]) -> dict[str, Any]:
    """Write both files. Returns how far the detections of the file and of the detector agree."""
    from detpipe.classify.export.graph_file import LEAST_AGREEMENT, Agreement, Run, compare, write_onnx
    from detpipe.classify.export.quantised import quantised

    eager = replace(config.detect, compile=False)
    files = calibration_files(config) if config.quantize is Quantize.int8 else []
    detector = Detector.from_run(config.folder.path, device="cpu", config=eager, precision="float32")
    shown = [fitted(one, config) for one in images_to_compare(config, detector)]
    wanted = list(detector.predict_many(shown))
    logger.info("export: tracing the network, about a minute")
    kind = kind_in(config.folder.classifier)
    assert kind.export is not None, kind.description
    exporting = load_class(kind.export)(detector.scorer.network, detector.spec, eager)

    def check(graph: Run) -> Agreement:
        found = [graph(image, boxes) for image, boxes in progress(shown, "compare", total=len(shown), unit="images")]
        return compare(zip(wanted, found, strict=True))

    least = LEAST_AGREEMENT
    if config.quantize is Quantize.int8:
        given = (fitted(detector.with_regions(path), config) for path in files)
        images = progress(given, "calibrate", total=len(files), unit="images")
        samples = (sample for image, boxes in images for sample in exporting.samples(image, boxes))
        exporting.parts[exporting.CONVOLUTIONS] = quantised(exporting.parts[exporting.CONVOLUTIONS], samples)
        least = 0.0  # its scores differ by more than rounding; the result line tells the share
    agreement = write_onnx(exporting.model(config.form), config.out_folder / GRAPH, check, least=least)
    write_json(config.out_folder / DESCRIPTION, content)
    if not detector.proposes_itself:
        detector.proposer.keep(config.out_folder)
    return {
        "compared_images": len(shown),
        "compared_detections": agreement.detections // 2,
        "same": agreement.share,
        "largest_difference": agreement.scores,
        "largest_distance": agreement.pixels,
        "calibrated_on": sorted(path.name for path in files),
    }


def calibration_files(config: Export) -> list[Path]:
    """The images to calibrate on: evenly spaced training images of the run, or images of the given folder.

    Test images of the run in that folder are left out, so that an evaluation on them is fair. Raises ValueError if no
    image is left.
    """
    if config.calibration is None:
        files = images_of(config.data_source, Split.train)
    else:
        files = images_of(ImageFolderSource(root=config.calibration), Split.test)
        tested = {path.resolve() for path in test_images_of_run(config)}
        free = [path for path in files if path.resolve() not in tested]
        if len(free) < len(files):
            logger.warning(
                "calibration: left out %d of the %d images of %s, which are test images of the run",
                *(len(files) - len(free), len(files), config.calibration),
            )
        files = free
    if not files:
        raise ValueError(
            "calibration: expected images that are not test images of the run, found none; give a folder of other "
            "images, calibration=DIR"
        )
    return spread(files, config.calibration_images)


def test_images_of_run(config: Export) -> list[Path]:
    """The run's test images; [] if the data set can't be read."""
    try:
        return images_of(config.data_source, Split.test)
    except (OSError, ValueError) as error:
        logger.info("export: the images of the data set can't be read (%s)", error)
        return []


def images_of(source: DatasetSource, split: Split) -> list[Path]:
    """The images of a split, without those that are missing; [] if there is no such split."""
    entries = source.entries(split) if source.has(split) else []
    return [entry.image for entry in entries if entry.image is not None and entry.fault is None]


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """Evenly spaced ones of the files, at most `most`."""
    rows = np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int).tolist()
    return [files[row] for row in rows]


def images_to_compare(config: Export, detector: Detector) -> list[Shown]:
    """Some of the run's test images with their proposals. Without test images: images of random colours."""
    files = spread(test_images_of_run(config), CHECKED)
    try:
        shown = [detector.with_regions(path) for path in files]
    except (OSError, ValueError) as error:
        logger.info("export: the images of the data set can't be read (%s)", error)
        shown = []
    if not shown:
        logger.info("export: the file is compared on noise")
    return shown or noise(detector)


def fitted(shown: Shown, config: Export) -> Shown:
    """An image and its proposals brought to the size of the graph's input, if it has one."""
    return shown if config.form.size is None else FittedImage(shown[0], config.form.size, FILL).given(shown[1])


def noise(detector: Detector) -> list[Shown]:
    """Images of random colours in several sizes, and random proposals."""
    generator = np.random.default_rng(0)
    shown = []
    for height, width in ((240, 321), (333, 250), (480, 640))[:CHECKED]:
        image = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
        image = np.ascontiguousarray(image.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])
        corner = generator.uniform(0, 0.8, (60, 2)) * (width, height)
        far = np.minimum(corner + generator.uniform(0.1, 1, (60, 2)) * (width, height), (width, height))
        boxes = np.concatenate([corner, far], axis=1).astype(np.float32)
        shown.append(detector.with_regions(image, None if detector.spec.PROPOSES else boxes))
    return shown


def refuse_other_stages(artefact: Artefact, *, overwrite: bool) -> None:
    """Raise ArtefactError if the folder has the output of another command, which overwrite=true would delete.

    Also raised for an unreadable manifest if the folder has files that no export writes.
    """
    try:
        found = artefact.found()
    except ArtefactError as error:
        own = {manifest_path(artefact.path).name, DESCRIPTION, GRAPH, OPERATING_POINT, CARD}
        others = sorted(path.name for path in artefact.path.iterdir() if path.name not in own)
        if others:
            raise ArtefactError(
                f"{artefact.path}: expected the folder of an export, got one with a broken manifest and other files "
                f"({', '.join(others[:3])}); move it away, or give another folder as out="
            ) from error
        if not overwrite:
            raise
        return
    if found is not None and found.stage != STAGE:
        raise ArtefactError(
            f"{artefact.path}: expected the folder of an export, got one of `detpipe {found.stage}`; "
            "give another folder as out="
        )


def report(config: Export, artefact: Artefact) -> None:
    """Log the result."""
    path, summary = config.out_folder / GRAPH, artefact.manifest.summary
    logger.log(
        RESULT,
        "export: %s, %.1f MB; %d detections in %d images: %.1f %% equal the detector's, largest difference of "
        "their scores: %.1g, of their corners: %.1g pixels; description: %s",
        path,
        path.stat().st_size / 1e6,
        summary["compared_detections"],
        summary["compared_images"],
        100 * summary["same"],
        summary["largest_difference"],
        summary["largest_distance"],
        config.out_folder / DESCRIPTION,
    )
