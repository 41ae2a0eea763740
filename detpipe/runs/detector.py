"""A trained detector: a proposer and a region classifier. It takes images and returns Detections."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from detpipe import boxes as geometry
from detpipe.arguments import checked
from detpipe.classify.classifier_folder import ClassifierError, RegionSpec
from detpipe.classify.detect import ScoredRegions, Scorer, of_readable, scored_regions, select_detections
from detpipe.classify.kinds import load_scorer
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import AnyImage, BrokenImageError, as_image
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.proposer import Proposer, SourcedProposals
from detpipe.report.image_detections import ImageDetections
from detpipe.runs.detect_settings import inference_precision, kept_settings
from detpipe.runs.image_stream import ImageStream, image_paths, is_many
from detpipe.runs.operating_point import DEFAULT, shown_from
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.structures import (
    MAX_PIXELS,
    PLAIN_READING,
    Detections,
    Float32Array,
    Image,
    LeftOut,
    Proposals,
    ReadOptions,
)

logger = logging.getLogger(__name__)

_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


os.register_at_fork(after_in_child=_note_fork)


@dataclass(frozen=True, eq=False, repr=False)
class Detector:
    """A proposer, a classifier and the settings of detection.

    spec: classes and backbone as trained. proposer: for images that come without proposals. precision: the one that the
    scorer computes in, for information. options: how images are read, and stretched. best_threshold: the score with the
    best F1 on the test images of the run, 0.5 if it was not evaluated; pictures show detections from this score.

    It may be used in a process forked from the one that loaded it, on a CPU; CUDA does not allow that.
    """

    scorer: Scorer
    spec: RegionSpec
    proposer: Proposer
    config: DetectConfig
    precision: Precision = Precision.auto
    options: ReadOptions = PLAIN_READING
    best_threshold: float = DEFAULT

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order: label k is classes[k - 1]."""
        return self.spec.classes

    def __repr__(self) -> str:
        return f"Detector(classes: {', '.join(self.classes)})"

    @classmethod
    def from_run(
        cls,
        path: str | PathLike[str],
        *,
        device: str = "auto",
        config: DetectConfig | None = None,
        precision: str = "auto",
        proposer: Proposer | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Detector:
        """Load the detector of a run folder.

        device: auto, cpu or cuda. config: default, the settings of the run's own detections on its test images.
        precision: float32 or bf16; auto, that of the same detections. `Detector.precision` says which it is.
        max_pixels: limit on height x width of an image file. Images are stretched as those of the data set were.
        Raises ClassifierError where the folder holds no trained classifier, or broken settings; TypeError or ValueError
        that names a wrong argument.
        """
        checked("path", str, path)
        checked("device", Device, device)
        checked("precision", Precision, precision)
        checked("max_pixels", int, max_pixels)
        if _is_forked:
            with ThreadPoolExecutor(1) as pool:  # for the reason in `score_many`
                return pool.submit(cls._load, Path(path), device, config, precision, proposer, max_pixels).result()
        return cls._load(Path(path), device, config, precision, proposer, max_pixels)

    @classmethod
    def _load(
        cls,
        path: Path,
        device: str,
        config: DetectConfig | None,
        precision: str,
        proposer: Proposer | None,
        max_pixels: int,
    ) -> Detector:
        folder = RunFolder(path)
        torch_device = resolve_device(Device(device))
        kept = kept_settings(folder.classifier)
        config = config or kept.detect
        computed_in = inference_precision(Precision(precision), folder.classifier, torch_device)
        scorer, spec = load_scorer(folder.classifier, config, torch_device, bf16=computed_in is Precision.bf16)
        return cls(
            scorer,
            spec,
            proposer or proposer_of_run(folder),
            config,
            computed_in,
            ReadOptions(max_pixels, kept.stretch),
            _best_threshold(folder.classifier),
        )

    def __call__(self, image: AnyImage, *, threshold: float = 0.0) -> ImageDetections:
        """Detect objects in one image, as `predict`. A folder or a pattern is refused."""
        return self._predict_one(image, None, threshold)

    @overload
    def predict(
        self,
        image: Image | PillowImage.Image,
        proposals: Proposals | npt.ArrayLike | None = None,
        *,
        threshold: float = 0.0,
    ) -> ImageDetections: ...

    @overload
    def predict(
        self,
        image: str | PathLike[str],
        proposals: Proposals | npt.ArrayLike | None = None,
        *,
        threshold: float = 0.0,
    ) -> Any: ...

    def predict(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None = None, *, threshold: float = 0.0
    ) -> ImageDetections | ImageStream:
        """Detect objects in one image: an (H, W, 3) uint8 RGB array, a PIL image, or a path.

        A path may also be a folder or a pattern such as "photos/*.jpg": then as `stream`. For type checkers, calling
        the detector always gives the detections of one image, and `stream` always those of many.
        Other arrays are converted by the rules of `image_file.as_image`: grey (H, W) or (H, W, 1), RGBA (H, W, 4),
        uint16. An opened file gives the same result as its path. proposals: default, those of the detector's own
        proposer; else Proposals or boxes (N, 4), x1 y1 x2 y2 in pixels, the best first, of which
        the parts within the image are classified. A network that proposes itself also does so if `proposals` is empty;
        other detectors then return no detections.
        threshold: detections below this score are left out. It does not go below the score_floor of `config`.
        Label k is self.classes[k - 1]. The result holds a reference to the image, not a copy.
        Raises BrokenImageError for an unreadable file, MissingImageError for a path to nothing, both ValueErrors, and
        ValueError that names the argument for other images and boxes.
        """
        if isinstance(image, (str, PathLike)) and is_many(image):
            if proposals is not None:
                raise ValueError(f"proposals: expected none for the images of {fspath(image)}; use predict_batch")
            return self.stream(image, threshold=threshold)
        return self._predict_one(image, proposals, threshold)

    def _predict_one(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None, threshold: float
    ) -> ImageDetections:
        return self._of_image(next(self.predict_many([self.with_regions(image, proposals)])), image, threshold)

    def stream(
        self, images: str | PathLike[str] | Iterable[str | PathLike[str]], *, threshold: float = 0.0
    ) -> ImageStream:
        """Detect objects in many image files, one after the other, while the next ones are read and proposed on.

        images: a folder, with its subfolders; a pattern such as "photos/*.jpg"; or paths. The result is iterated, gives
        the detections of each image with their `path`, in the order of the paths, and keeps none. Its length is the
        number of files. Unreadable images are named in a warning, counted, and listed in `left_out`. threshold: as in
        `predict`. Raises ValueError if there are no images.
        """
        paths = image_paths(images)

        def detections(left_out: list[LeftOut]) -> Iterator[ImageDetections]:
            regions = (self._regions_or_none(path, left_out) for path in paths)
            for path, found in zip(paths, of_readable(self.predict_many, regions), strict=True):
                if found is not None:
                    yield self._of_image(found, path, threshold)

        return ImageStream(paths, detections)

    def _regions_or_none(self, path: Path, left_out: list[LeftOut]) -> tuple[Image, Float32Array] | None:
        """As `with_regions`; None for an unreadable file, which is added to `left_out`."""
        try:
            return self.with_regions(path)
        except BrokenImageError as error:
            left_out.append(LeftOut.because(path, error))
            logger.warning("left out: %s", left_out[-1])
            return None

    def _of_image(self, found: Detections, image: AnyImage, threshold: float = 0.0) -> ImageDetections:
        kept = found[found.scores >= threshold] if threshold > 0 else found
        floor = max(threshold, self.best_threshold)
        return ImageDetections.of(kept, classes=self.classes, source=image, options=self.options, floor=floor)

    def predict_batch(
        self,
        images: Sequence[AnyImage],
        proposals: Sequence[Proposals | npt.ArrayLike] | None = None,
        *,
        threshold: float = 0.0,
    ) -> list[ImageDetections]:
        """Detect objects in several images. Returns one ImageDetections per image, in order; no images give [].

        The next images are read and proposed on while one is classified. Crops of several images share a batch, so
        scores may differ from those of `predict` in the last bits.
        proposals: one per image. threshold: as in `predict`. Raises ValueError for another number, and as `predict` at
        the first invalid image.
        """
        one_image = isinstance(images, (str, PathLike, PillowImage.Image)) or getattr(images, "ndim", 4) < 4
        if one_image or not isinstance(images, (Sequence, np.ndarray)):
            raise ValueError(f"images: expected a list of images, got one {type(images).__name__}; give [image]")
        if isinstance(proposals, Proposals) or (proposals is not None and not hasattr(proposals, "__len__")):
            raise ValueError(f"proposals: expected a list, one for each image, got one {type(proposals).__name__}")
        if proposals is not None and len(proposals) != len(images):
            raise ValueError(
                f"proposals: expected one for each of {len(images)} images, got {len(proposals)}; pass one per "
                "image, or None"
            )
        given = proposals if proposals is not None else [None] * len(images)
        found = self.predict_many(map(self.with_regions, images, given))
        return [self._of_image(one, image, threshold) for one, image in zip(found, images, strict=True)]

    def with_regions(
        self, image: AnyImage, proposals: Proposals | npt.ArrayLike | None = None
    ) -> tuple[Image, Float32Array]:
        """Return the pixels of an image and the boxes to classify, best first, for `score_many` and `predict_many`.

        A network that proposes itself gets no boxes. Arguments and errors are those of `predict`.
        """
        pixels = as_image(image, self.options)
        if proposals is None and self.spec.PROPOSES:
            return pixels, np.zeros((0, 4), dtype=np.float32)
        image_size = (pixels.shape[0], pixels.shape[1])
        if proposals is None:
            # Rounded as in proposals.lmdb, so that the results equal those of `detpipe detect`.
            proposals = snapped(SourcedProposals(self.proposer(pixels), None), image_size).proposals
        boxes = geometry.clip(as_boxes(proposals), image_size)
        return pixels, boxes[geometry.area(boxes) > 0][: self.config.max_proposals]

    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """Yield the detections of each pair (image, boxes (R, 4)), in order. R = 0 gives no detections.

        Crops are batched across images. Images are read ahead; the memory use is that of a few batches of crops.
        """
        for boxes, scored, image_size in self.score_many(images):
            yield select_detections(boxes, scored, image_size, self.config)

    def score_many(
        self, images: Iterable[tuple[Image, Float32Array]]
    ) -> Iterator[tuple[Float32Array, ScoredRegions, tuple[int, int]]]:
        """Yield the regions (R, 4), their scores and the (height, width) of each image, before any is selected."""
        step = self.config.dedup_step
        distinct = ((image, boxes[geometry.distinct(boxes, step)] if step else boxes) for image, boxes in images)
        scored = scored_regions(self.scorer, distinct)
        if not _is_forked:
            yield from scored
            return
        # The OpenMP threads of PyTorch do not survive a fork, and the thread that forked would wait for them forever. A
        # new thread gets new ones.
        with ThreadPoolExecutor(1) as pool:
            while (one := pool.submit(next, scored, None).result()) is not None:
                yield one


def _best_threshold(classifier: Path) -> float:
    """The score threshold with the best F1. A damaged file is named in a warning: it matters only for pictures."""
    try:
        return shown_from(classifier, None)[0]
    except ClassifierError as error:
        logger.warning("pictures show detections from a score of %.1f, because: %s", DEFAULT, error)
        return DEFAULT


def as_boxes(proposals: Proposals | npt.ArrayLike) -> Float32Array:
    """The boxes (N, 4) of proposals, or of an array of boxes in order, best first; [] gives (0, 4).

    Raises ValueError that names the argument `proposals` for another shape, numbers that are not finite, and boxes with
    negative sides.
    """
    if isinstance(proposals, Proposals):
        return proposals.boxes
    expected = "proposals: expected Proposals or boxes (N, 4), x1 y1 x2 y2 in pixels"
    try:
        given = np.asarray(proposals)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{expected}, got {type(proposals).__name__}, which is no array of numbers") from error
    if given.dtype.kind not in "fiu" or not (given.shape == (0,) or (given.ndim == 2 and given.shape[1] == 4)):
        raise ValueError(f"{expected}, got {type(proposals).__name__} {given.shape} {given.dtype}")
    with np.errstate(over="ignore"):  # infinity is refused
        boxes = given.reshape(-1, 4).astype(np.float32)
    if not np.isfinite(boxes).all():
        raise ValueError(f"{expected}, got NaN, infinity or numbers beyond float32")
    wrong = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(wrong):
        raise ValueError(f"{expected}, x1 <= x2 and y1 <= y2, got {boxes[wrong[0]].tolist()} at {wrong[0]}")
    return boxes
