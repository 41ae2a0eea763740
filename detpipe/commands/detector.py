"""The trained detector as one object: a proposer and a region classifier, image in, Detections out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from detpipe.classify.classifier import ClassifierSpec, load_classifier
from detpipe.classify.detect import DetectConfig, RegionScorer, Scorer, scored_regions, select_detections
from detpipe.classify.device import Device, resolve_bf16, resolve_device
from detpipe.commands.command import RunFolder
from detpipe.datasets.image_file import read_image
from detpipe.proposals.box_columns import snapped
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search import SelectiveSearch
from detpipe.proposals.sourced import SourcedProposals
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Detections, Float32Array, Image, Proposals

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Detector:
    """Proposer, classifier and the settings between them.

    spec: classes and crops as trained. proposer: for images that come without proposals.
    """

    scorer: Scorer
    spec: ClassifierSpec
    proposer: Proposer
    config: DetectConfig

    @classmethod
    def from_run(
        cls,
        path: str | PathLike[str],
        *,
        device: str = "auto",
        config: DetectConfig | None = None,
        proposer: Proposer | None = None,
    ) -> Detector:
        """The detector in a run folder. proposer: default, the one that made the run's own proposals.

        device: auto, cpu or cuda.
        Raises ClassifierError where the folder holds no trained classifier.
        """
        folder = RunFolder(Path(path))
        network, spec = load_classifier(folder.classifier)
        config = config or DetectConfig()
        where = resolve_device(Device(device))
        scorer = RegionScorer(
            network,
            spec.crops,
            device=where,
            bf16=resolve_bf16(config.precision, where),
            compiled=config.compile,
            batch_size=config.batch_size,
        )
        return cls(scorer, spec, proposer or proposer_of_run(folder), config)

    def predict(
        self, image: Image | PillowImage.Image | str | PathLike[str], proposals: Proposals | None = None
    ) -> Detections:
        """The detections of one image: (H, W, 3) uint8 RGB, a PIL image, or a path.

        proposals: where things might be; default, the detector's own proposer looks.
        Label k is self.spec.classes[k - 1].
        Raises BrokenImageError for an unreadable file, ValueError for another array.
        """
        pixels = as_pixels(image)
        if proposals is None:
            # As `detpipe detect` finds them in proposals.lmdb: the same regions give the same detections.
            image_size = (pixels.shape[0], pixels.shape[1])
            proposals = snapped(SourcedProposals(self.proposer(pixels), None), image_size).proposals
        regions = proposals.top(self.config.max_proposals)
        return next(self.predict_many([(pixels, regions.boxes)]))

    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """The detections of each (image, region boxes) pair, in order; crops are batched across images.

        The images are read ahead; memory is that of a few batches of crops.
        """
        for boxes, scored, image_size in scored_regions(self.scorer, images):
            yield select_detections(boxes, scored, image_size, self.config)


def proposer_of_run(folder: RunFolder) -> Proposer:
    """The proposer that made the run's proposals, or selective search where that one needs more than an image."""
    if not folder.proposals.is_dir():
        return SelectiveSearch()
    description = read_manifest(folder.proposals).settings["proposals"]
    proposer = proposer_of(description)
    if proposer is not None and proposer.from_pixels:
        return proposer
    logger.warning(
        "%s: made by %s; new images are looked at with selective search", folder.proposals, method_name(description)
    )
    return SelectiveSearch()


def as_pixels(image: Image | PillowImage.Image | str | PathLike[str]) -> Image:
    """Any of the three kinds of image as (H, W, 3) uint8 RGB."""
    if isinstance(image, (str, PathLike)):
        return read_image(Path(image))
    if isinstance(image, PillowImage.Image):
        return np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"wanted an (H, W, 3) uint8 RGB image, got {image.shape} {image.dtype}")
    return image
