"""Edge boxes (Zitnick and Dollar, ECCV 2014) over OpenCV's ximgproc, with a person's own copy of the edge model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detpipe.proposals.proposer import Proposer, check_image, ranked
from detpipe.proposals.selective_search.opencv import require_ximgproc
from detpipe.structures import Dataset, Image, Proposals


@dataclass(kw_only=True)
class EdgeBoxes(Proposer):
    """Boxes that wholly enclose many contours, by the structured-forest edges of Dollar and Zitnick (PAMI 2015).

    Scores are those of the method: the more enclosed contour, the higher.
    """

    model: str = ""
    """OpenCV's model file, model.yml.gz of opencv_extra/testdata/cv/ximgproc; it doesn't come with OpenCV."""
    alpha: float = 0.65
    """Step of the sliding window, as an IoU: 0.65 is best for finding objects at IoU 0.7 (section 4 of the paper)."""
    beta: float = 0.75
    """Threshold of the non-maximum suppression; larger than the IoU one wants to reach by about 0.05."""
    min_score: float = 0.01
    """Boxes with less are dropped."""
    min_area: float = 1000.0
    """Smallest box, square pixels."""
    max_aspect_ratio: float = 3.0
    """Of a box, in either direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"edge_boxes: expected {name} between 0 and 1, got {getattr(self, name)}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Raise MissingXimgprocError, FileNotFoundError or ValueError where the library or the model is not usable."""
        require_ximgproc()
        if not self.model:
            raise FileNotFoundError(f"edge_boxes: {_WANTED}, got none; give its path as proposals.model=FILE")
        load_edge_model(self.model)

    def __call__(self, image: Image) -> Proposals:
        """The proposals of an RGB image; none where no contour is closed enough. Raises as `check`, and ValueError.

        An image with a side under 32 pixels, the model's patch, has none.
        """
        check_image(image)
        self.check()
        if min(image.shape[:2]) < _PATCH:
            return ranked(*_NONE, (image.shape[0], image.shape[1]), self.max_proposals)
        detector = load_edge_model(self.model)
        edges = detector.detectEdges(image.astype(np.float32) / np.float32(255))
        orientations = detector.computeOrientation(edges)
        thin = detector.edgesNms(edges, orientations)
        boxes, scores = self._finder().getBoundingBoxes(thin, orientations)
        corner_size = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        corners = np.concatenate([corner_size[:, :2], corner_size[:, :2] + corner_size[:, 2:]], axis=1)
        flat_scores = np.asarray(scores, dtype=np.float32).reshape(-1)
        return ranked(corners, flat_scores, (image.shape[0], image.shape[1]), self.max_proposals)

    def _finder(self) -> Any:
        finder = cv2.ximgproc.createEdgeBoxes()
        finder.setAlpha(self.alpha)
        finder.setBeta(self.beta)
        finder.setMinScore(self.min_score)
        finder.setMinBoxArea(self.min_area)
        finder.setMaxAspectRatio(self.max_aspect_ratio)
        finder.setMaxBoxes(self.max_proposals or 2**31 - 1)
        return finder


_PATCH = 32
_NONE = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32)
_WANTED = "expected OpenCV's structured-forest model (model.yml.gz of opencv_extra)"


@functools.lru_cache(maxsize=1)
def load_edge_model(path: str) -> Any:
    """OpenCV's edge detector, read once a process: the file is large. Raises FileNotFoundError or ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: {_WANTED}, there is no such file; download it or mend proposals.model")
    try:
        _check_model(path)
        return cv2.ximgproc.createStructuredEdgeDetection(path)
    except cv2.error as error:
        raise ValueError(f"{path}: {_WANTED}, got a file that OpenCV can't read: {error.err}") from error


def _check_model(path: str) -> None:
    """Raise ValueError for another YAML file: OpenCV takes it, divides by its zero trees, and kills the process."""
    storage = cv2.FileStorage()
    try:
        storage.open(path, cv2.FILE_STORAGE_READ)
        options = storage.getNode("options")
        counts = [options.getNode(name) for name in ("numberOfTrees", "stride", "shrinkNumber", "patchSize")]
        forest = [
            storage.getNode(name) for name in ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
        ]
        if not all(node.isInt() and node.real() > 0 for node in counts) or not all(node.size() for node in forest):
            raise ValueError(f"{path}: {_WANTED}, got another file; download it again or mend proposals.model")
    finally:
        storage.release()
