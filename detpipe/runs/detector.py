"""A trained detector: a proposer and a region classifier. It takes images and returns Detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from detpipe import boxes as geometry
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.detect import ScoredRegions, Scorer, scored_regions, select_detections
from detpipe.classify.kinds import load_scorer
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import from_pillow, read_image
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.proposer import Proposer, SourcedProposals
from detpipe.runs.detect_settings import inference_precision, kept_settings
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.structures import Detections, Float32Array, Image, Proposals

AnyImage = Image | PillowImage.Image | str | PathLike[str]
"""(H, W, 3) uint8 RGB, a PIL image, or a path."""


@dataclass(frozen=True, eq=False)
class Detector:
    """A proposer, a classifier and the settings of detection.

    spec: classes and backbone as trained. proposer: for images that come without proposals. precision: the one that the
    scorer computes in, for information.
    """

    scorer: Scorer
    spec: RegionSpec
    proposer: Proposer
    config: DetectConfig
    precision: Precision = Precision.auto

    @classmethod
    def from_run(
        cls,
        path: str | PathLike[str],
        *,
        device: str = "auto",
        config: DetectConfig | None = None,
        precision: str = "auto",
        proposer: Proposer | None = None,
    ) -> Detector:
        """Load the detector of a run folder.

        device: auto, cpu or cuda. config: default, the settings of the run's own detections on its test images.
        precision: float32 or bf16; auto, that of the same detections. `Detector.precision` says which it is.
        Raises ClassifierError where the folder holds no trained classifier, or broken settings.
        """
        folder = RunFolder(Path(path))
        torch_device = resolve_device(Device(device))
        config = config or kept_settings(folder.classifier).detect
        computed_in = inference_precision(Precision(precision), folder.classifier, torch_device)
        scorer, spec = load_scorer(folder.classifier, config, torch_device, bf16=computed_in is Precision.bf16)
        return cls(scorer, spec, proposer or proposer_of_run(folder), config, computed_in)

    def predict(self, image: AnyImage, proposals: Proposals | None = None) -> Detections:
        """Detect objects in one image: an (H, W, 3) uint8 RGB array, a PIL image, or a path.

        An opened file gives the same result as its path. proposals: default, those of the detector's own proposer. A
        network that proposes itself also does so if `proposals` is empty; other detectors then return no detections.
        Label k is self.spec.classes[k - 1].
        Raises BrokenImageError for an unreadable file, ValueError for another type or shape, or no pixels.
        """
        return next(self.predict_many([self._with_regions(image, proposals)]))

    def predict_batch(
        self, images: Sequence[AnyImage], proposals: Sequence[Proposals] | None = None
    ) -> list[Detections]:
        """Detect objects in several images. Returns one Detections per image, in order; no images give [].

        The next images are read and proposed on while one is classified. Crops of several images share a batch, so
        scores may differ from those of `predict` in the last bits.
        proposals: one per image. Raises ValueError for another number, and as `predict` at the first invalid image.
        """
        if proposals is not None and len(proposals) != len(images):
            raise ValueError(
                f"proposals: expected one for each of {len(images)} images, got {len(proposals)}; pass one per "
                "image, or None"
            )
        given = proposals if proposals is not None else [None] * len(images)
        return list(self.predict_many(map(self._with_regions, images, given)))

    def _with_regions(self, image: AnyImage, proposals: Proposals | None) -> tuple[Image, Float32Array]:
        """Return the pixels of an image and the boxes to classify."""
        pixels = as_pixels(image)
        if proposals is None and self.spec.PROPOSES:
            return pixels, np.zeros((0, 4), dtype=np.float32)
        if proposals is None:
            # Rounded as in proposals.lmdb, so that the results equal those of `detpipe detect`.
            image_size = (pixels.shape[0], pixels.shape[1])
            proposals = snapped(SourcedProposals(self.proposer(pixels), None), image_size).proposals
        return pixels, proposals.top(self.config.max_proposals).boxes

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
        yield from scored_regions(self.scorer, distinct)


def as_pixels(image: AnyImage) -> Image:
    """Convert an image or a path to an (H, W, 3) uint8 RGB array with H, W > 0. Raises as `Detector.predict`."""
    if isinstance(image, (str, PathLike)):
        return read_image(Path(image))
    pixels = from_pillow(image) if isinstance(image, PillowImage.Image) else image
    if not isinstance(pixels, np.ndarray):
        raise ValueError(
            f"expected an image as a path, a PIL image or an (H, W, 3) uint8 RGB array, got {type(pixels).__name__}"
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"expected an (H, W, 3) uint8 RGB image with H, W > 0, got {pixels.shape} {pixels.dtype}")
    return pixels
