"""The trained detector as one object: a proposer and a region classifier, image in, Detections out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from detpipe import boxes as geometry
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.detect import Scorer, scored_regions, select_detections
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
    """Proposer, classifier and the settings between them.

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
        """The detector in a run folder. proposer: default, the one that made the run's own proposals.

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
        """The detections of one image: (H, W, 3) uint8 RGB, a PIL image, or a path. An opened file is as its path.

        proposals: where things might be; default, the detector's own proposer looks. A network that proposes by itself
        does so for an empty list, too.
        Label k is self.spec.classes[k - 1].
        Raises BrokenImageError for an unreadable file, ValueError for anything else, and for an image without pixels.
        """
        return next(self.predict_many([self._with_regions(image, proposals)]))

    def predict_batch(
        self, images: Sequence[AnyImage], proposals: Sequence[Proposals] | None = None
    ) -> list[Detections]:
        """`predict` of each image, in order; no images give []. Raises as it does, at the first image that is wrong.

        The next images are read and proposed on while one is classified, and crops of several share a batch, whose
        sums may differ from a single image's in the last bits.
        proposals: one for each image. Raises ValueError where their number is another.
        """
        if proposals is not None and len(proposals) != len(images):
            raise ValueError(f"proposals: expected one for each of {len(images)} images, got {len(proposals)}")
        given = proposals if proposals is not None else [None] * len(images)
        return list(self.predict_many(map(self._with_regions, images, given)))

    def _with_regions(self, image: AnyImage, proposals: Proposals | None) -> tuple[Image, Float32Array]:
        """An image's pixels and the boxes that are classified."""
        pixels = as_pixels(image)
        if proposals is None and self.spec.PROPOSES:
            return pixels, np.zeros((0, 4), dtype=np.float32)
        if proposals is None:
            # As `detpipe detect` finds them in proposals.lmdb: the same regions give the same detections.
            image_size = (pixels.shape[0], pixels.shape[1])
            proposals = snapped(SourcedProposals(self.proposer(pixels), None), image_size).proposals
        return pixels, proposals.top(self.config.max_proposals).boxes

    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """The detections of each (image, region boxes) pair, in order; crops are batched across images.

        The images are read ahead; memory is that of a few batches of crops.
        """
        step = self.config.dedup_step
        told_apart = ((image, boxes[geometry.distinct(boxes, step)] if step else boxes) for image, boxes in images)
        for boxes, scored, image_size in scored_regions(self.scorer, told_apart):
            yield select_detections(boxes, scored, image_size, self.config)


def as_pixels(image: AnyImage) -> Image:
    """Any of the three kinds of image as (H, W, 3) uint8 RGB with H, W > 0. Raises as `Detector.predict`."""
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
