"""A trained detector: a proposer and a region classifier. It takes images and returns Detections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from detpipe import boxes as geometry
from detpipe.arguments import checked
from detpipe.classify.classifier_folder import RegionSpec
from detpipe.classify.detect import ScoredRegions, Scorer, scored_regions, select_detections
from detpipe.classify.kinds import load_scorer
from detpipe.classify.settings import DetectConfig
from detpipe.network.allocator import free_mkl_buffers
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device, Precision
from detpipe.proposals.proposer import Proposer
from detpipe.runs.detect_settings import inference_precision, kept_settings
from detpipe.runs.image_predictor import ImagePredictor, best_threshold_of
from detpipe.runs.operating_point import DEFAULT
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.object_storage import is_remote
from detpipe.storage.remote_folder import RemoteFolder
from detpipe.structures import (
    MAX_PIXELS,
    PLAIN_READING,
    Detections,
    Float32Array,
    Image,
    Proposals,
    ReadOptions,
)

_is_forked = False


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


os.register_at_fork(before=free_mkl_buffers, after_in_child=_note_fork)


@dataclass(frozen=True, eq=False, repr=False)
class Detector(ImagePredictor):
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
        """Load the detector of a run folder, also of one in object storage (s3://...), of which a copy is kept here.

        device: auto, cpu or cuda. config: default, the settings of the run's own detections on its test images.
        precision: float32 or bf16; auto, as for these detections. `Detector.precision` says which it is.
        max_pixels: limit on height x width of an image file. Images are stretched as the data set's images were.
        Raises ClassifierError where the folder holds no trained classifier, or broken settings; TypeError or ValueError
        that names a wrong argument.
        """
        checked("path", str, path)
        checked("device", Device, device)
        checked("precision", Precision, precision)
        checked("max_pixels", int, max_pixels)
        if is_remote(path):
            remote = RemoteFolder(str(path))
            remote.pull()
            path = remote.path
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
            best_threshold_of(folder.classifier),
        )

    @property
    def proposes_itself(self) -> bool:
        """Whether the network needs no proposals."""
        return self.spec.PROPOSES

    @property
    def max_proposals(self) -> int:
        """The number of proposals of an image that are classified: the best ones."""
        return self.config.max_proposals

    def proposed(self, image: Image) -> Proposals:
        """The proposals of `proposer`."""
        return self.proposer(image)

    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """Yield the detections of each pair (image, boxes (R, 4)), in order. R = 0 gives no detections.

        Crops are batched across images. Images are read ahead; the memory holds a few batches of crops.
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
