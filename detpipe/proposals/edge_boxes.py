"""Edge boxes (Zitnick and Dollar, ECCV 2014) by OpenCV's ximgproc; the user supplies the edge model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detpipe.datasets.image_file import AnyImage, as_image, file_digest
from detpipe.proposals.kept_files import keep_files, kept_file
from detpipe.proposals.proposer import Proposer, ranked
from detpipe.proposals.selective_search.opencv import require_ximgproc
from detpipe.storage.reader_process import Arrays, read_in_process
from detpipe.structures import Dataset, Proposals


@dataclass(kw_only=True)
class EdgeBoxes(Proposer):
    """Boxes that enclose many whole contours, from the structured-forest edges of Dollar and Zitnick (PAMI 2015).

    The scores are the method's own: more enclosed contours give a higher score.
    """

    model: str = ""
    """Path of OpenCV's edge model, model.yml.gz of opencv_extra/testdata/cv/ximgproc. OpenCV doesn't include it."""
    alpha: float = 0.65
    """IoU of neighbouring windows in the sliding-window search. 0.65 is best to find objects at IoU 0.7 (section 4)."""
    beta: float = 0.75
    """IoU threshold of the non-maximum suppression. Set it about 0.05 above the IoU that the boxes should reach."""
    min_score: float = 0.01
    """Drop boxes with a score below this."""
    min_area: float = 1000.0
    """Smallest area of a box, in square pixels."""
    max_aspect_ratio: float = 3.0
    """Largest ratio of the longer to the shorter side of a box."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("min_score", 0), ("min_area", 0), ("max_aspect_ratio", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"edge_boxes: expected {name} of at least {least}, got {getattr(self, name)}")
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"edge_boxes: expected {name} between 0 and 1, got {getattr(self, name)}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Raise MissingXimgprocError, FileNotFoundError or ValueError if the library or the model is not usable."""
        require_ximgproc()
        if not self.model:
            raise FileNotFoundError(f"edge_boxes: {_WANTED}, got none; give its path as proposals.model=FILE")
        load_edge_model(self.model)

    def inputs(self) -> Mapping[str, str]:
        """The digest of the model."""
        return {"edge_model": file_digest(Path(self.model)).hex()} if self.model else {}

    def keep(self, folder: Path) -> None:
        """Copy the model."""
        path = Path(self.model)
        keep_files(folder, path.parent, [path])

    def kept_in(self, folder: Path) -> Proposer:
        """The same proposer with the copied model, if there is one."""
        return replace(self, model=kept_file(folder, self.model))

    def __call__(self, image: AnyImage) -> Proposals:
        """The proposals of an RGB image; none without closed contours. Raises what `check` raises, and ValueError.

        An image with a side under 32 pixels, the size of the model's patch, has no proposals.
        """
        image = as_image(image)
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
    """OpenCV's edge detector, cached because the file is large. Raises FileNotFoundError or ValueError."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: {_WANTED}, found no such file; download it or correct proposals.model")
    read_in_process(_try_model, Path(path), _WANTED.removeprefix("expected "), errors=[ValueError], expansion=64)
    return cv2.ximgproc.createStructuredEdgeDetection(path)


def _try_model(path: Path) -> tuple[None, Arrays]:
    """Load the model and use it once. A damaged one can end the process, so this runs in another."""
    try:
        _check_model(str(path))
        cv2.ximgproc.createStructuredEdgeDetection(str(path)).detectEdges(np.zeros((64, 64, 3), np.float32))
    except cv2.error as error:
        raise ValueError(
            f"{path}: {_WANTED}, got a file that OpenCV can't read: {error.err}; download it again"
        ) from error
    return None, {}


def _check_model(path: str) -> None:
    """Raise ValueError for any other YAML file: OpenCV would accept it, divide by zero and kill the process."""
    storage = cv2.FileStorage()
    try:
        storage.open(path, cv2.FILE_STORAGE_READ)
        options = storage.getNode("options")
        counts = [options.getNode(name) for name in ("numberOfTrees", "stride", "shrinkNumber", "patchSize")]
        forest = [
            storage.getNode(name) for name in ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
        ]
        if not all(node.isInt() and node.real() > 0 for node in counts) or not all(node.size() for node in forest):
            raise ValueError(f"{path}: {_WANTED}, got another file; download it again or correct proposals.model")
    finally:
        storage.release()
