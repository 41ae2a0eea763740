"""An exported detector: the folder that `detpipe export` writes, used as a `Detector`, without torch and numba."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

from detpipe.arguments import checked
from detpipe.classify.export.description import DESCRIPTION, read_description
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.proposer import Proposer
from detpipe.runs.exported_graph import ExportedGraph, Runtime
from detpipe.runs.fitted_image import FittedImage
from detpipe.runs.image_predictor import ImagePredictor, best_threshold_of
from detpipe.solver.prefetch import read_ahead
from detpipe.storage.dataclass_json import DataclassJsonError
from detpipe.structures import MAX_PIXELS, Detections, Float32Array, Image, Proposals, ReadOptions

logger = logging.getLogger(__name__)

HEAVY = ("torch", "numba")
"""Packages that this file does without; some methods of proposals need one."""


class OnnxDetectorError(ValueError):
    """A folder that is not the output of `detpipe export`, or damaged, or made by another version."""


class OnnxDetector(ImagePredictor):
    """A detector that `detpipe export` wrote, under onnxruntime or OpenVINO. It is used as a `Detector`.

    It imports neither torch nor numba, so it starts faster and needs less memory. A detector that does not propose
    itself makes the proposals of new images with the method in detector.json, which is imported when the first image
    comes without proposals: selective search imports numba, MultiBox and torchvision import torch. A line of the log
    says so.

    Threads may share it. It may be used in a process forked from the one that loaded it, which opens the graph again.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        runtime: str = "onnxruntime",
        threads: int = 0,
        proposer: Proposer | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Load the detector in a folder.

        runtime: onnxruntime (extra `[onnx]`) or openvino (extra `[openvino]`), on the CPU. threads: of one image; 0,
        one per core. proposer: for images that come without proposals; None, as in detector.json. max_pixels: limit
        on height x width of an image file. Images are stretched as the data set's images were.
        Raises OnnxDetectorError for a folder without an export, or with detector.json damaged or of another version;
        OnnxModelError and InputFileError, also ValueErrors, for the graph; ImportError without the runtime; TypeError
        or ValueError that names a wrong argument.
        """
        checked("folder", str, folder)
        checked("runtime", Runtime, runtime)
        checked("threads", int, threads)
        checked("max_pixels", int, max_pixels)
        if threads < 0:
            raise ValueError(f"threads: expected a number, or 0 for one per core, got {threads}")
        self.folder, self.runtime, self.threads = Path(folder), Runtime(runtime), threads
        try:
            self.description = read_description(self.folder)
        except FileNotFoundError as error:
            raise OnnxDetectorError(
                f"{self.folder}: expected the folder of an exported detector, found no {DESCRIPTION}; give the folder "
                "that `detpipe export` wrote"
            ) from error
        except DataclassJsonError as error:
            raise OnnxDetectorError(str(error)) from error
        self.options = ReadOptions(max_pixels, self.description.image.stretch)
        self.best_threshold = best_threshold_of(self.folder)
        self._proposer = proposer
        self._opening = threading.Lock()
        self._open()

    def _open(self) -> None:
        path = self.folder / self.description.file
        try:
            self._graph = ExportedGraph(path, self.runtime, self.description, threads=self.threads)
        except FileNotFoundError as error:
            raise OnnxDetectorError(
                f"{path}: expected the graph of the detector, found no file; copy the whole folder that "
                "`detpipe export` wrote"
            ) from error
        self._process = os.getpid()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in label order: label k is classes[k - 1]."""
        return self.description.classes

    @property
    def proposes_itself(self) -> bool:
        """Whether the network needs no proposals."""
        return not self.description.needs_boxes

    @property
    def max_proposals(self) -> int:
        """The number of proposals of an image that are classified: the best ones."""
        return self.description.max_proposals

    @property
    def proposer(self) -> Proposer | None:
        """The proposer of images that come without proposals; None for a network that proposes itself.

        Raises OnnxDetectorError if the method of detector.json is unknown, needs more than an image, or a package that
        is not installed.
        """
        if self._proposer is None and self.description.proposals is not None:
            self._proposer = self._own_proposer(self.description.proposals)
        return self._proposer

    def _own_proposer(self, settings: dict[str, object]) -> Proposer:
        where, name = self.folder / DESCRIPTION, method_name(settings)
        remedy = "give proposals to predict, or a proposer to OnnxDetector"
        before = set(sys.modules)
        try:
            proposer = proposer_of(settings)
            if proposer is not None and proposer.from_pixels:
                proposer = proposer.kept_in(self.folder)
                proposer.check()
        except (ImportError, OSError, ValueError) as error:
            raise OnnxDetectorError(
                f"{where}: the proposals of new images ({name:.100}) can't be made: {error}; {remedy}"
            ) from error
        if proposer is None or not proposer.from_pixels:
            raise OnnxDetectorError(
                f"{where}: expected a method that makes proposals from an image, got {name:.100}; {remedy}"
            )
        for package in HEAVY:
            if package in sys.modules and package not in before:
                logger.info("the proposals of new images (%s) import %s", name, package)
        return proposer

    def proposed(self, image: Image) -> Proposals:
        """The proposals of `proposer`."""
        assert self.proposer is not None
        return self.proposer(image)

    def predict_many(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Detections]:
        """Yield the detections of each pair (image, boxes (R, 4)), in order. R = 0 gives no detections.

        The next images are read and proposed on while one is classified. A graph with a fixed batch gets so many images
        at once. Raises OnnxModelError if the graph fails.
        """
        with self._opening:
            if self._process != os.getpid():  # its threads do not survive a fork
                self._open()
        ahead = read_ahead(images)
        while group := list(itertools.islice(ahead, self._graph.most)):
            yield from map(self._checked, self._found(group))

    def _found(self, images: Sequence[tuple[Image, Float32Array]]) -> list[Detections]:
        form = self.description.image
        if form.size is None:
            return self._graph(images)
        fitted = [FittedImage(image, form.size, form.fill) for image, _ in images]
        found = self._graph([one.given(boxes) for one, (_, boxes) in zip(fitted, images, strict=True)])
        return [one.found(detections) for one, detections in zip(fitted, found, strict=True)]

    def _checked(self, found: Detections) -> Detections:
        highest = int(found.labels.max(initial=0))
        if highest > len(self.classes):
            raise OnnxDetectorError(
                f"{self.folder}: expected labels up to {len(self.classes)}, as many as {DESCRIPTION} has classes, got "
                f"{highest}; copy both files of one export"
            )
        return found
