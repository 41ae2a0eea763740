"""MultiBox as a proposer: the boxes of a trained network, best first (see heads/multibox/network.py)."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from detpipe.boxes import nms
from detpipe.datasets.image_file import AnyImage, as_image, file_digest
from detpipe.proposals.proposer import Proposer, ranked
from detpipe.storage.atomic import replaced
from detpipe.structures import Dataset, Proposals

if TYPE_CHECKING:
    from detpipe.proposals.multibox_network import MultiBoxNetwork

ANY_NUMBER = 1 << 16

KEPT = "multibox"
"""Name of the folder inside a detector's folder that holds a copy of the network."""


@dataclass(kw_only=True)
class MultiBoxProposals(Proposer):
    """The boxes of a network that `detpipe train-multibox` trained. It runs on a GPU if there is one.

    The network runs on one image at a time, so that an image's boxes don't depend on other images.
    """

    COMPARABLE_SCORES: ClassVar[bool] = True

    max_proposals: int | None = 200
    """Keep this many of the best boxes of each image; null keeps all."""
    weights: str = ""
    """Folder of the trained network: multibox/ in a run folder."""
    nms_iou: float = 0.7
    """IoU threshold of non-maximum suppression: drop a box that overlaps a better one by more than this."""
    scales: list[int] = field(default_factory=list)
    """Lengths of the image's shorter side in pixels. The boxes of several scales are joined. An empty list uses the
    largest scale of the training."""
    flip: bool = False
    """Also run on the mirrored image and join the boxes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scales = list(self.scales)
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"multibox: expected nms_iou in [0, 1], got {self.nms_iou}")
        if self.scales and min(self.scales) < 32:
            raise ValueError(f"multibox: expected scales of at least 32 pixels, got {self.scales}")
        self._lock = threading.Lock()
        self._network: MultiBoxNetwork | None = None

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Load the network. Raise ValueError without a folder, NetworkFolderError if it holds no MultiBox."""
        if not self.weights:
            raise ValueError("multibox: expected the folder of a trained network, got none; give proposals.weights=DIR")
        try:
            self._loaded()
        except ValueError as error:
            own = Path(self.weights) / KEPT
            meant = f"; did you mean {own}?" if own.is_dir() else ""
            raise type(error)(f"proposals.weights: {error}{meant}") from error

    @property
    def max_threads(self) -> int:
        """Any number: threads share the network."""
        return ANY_NUMBER

    def inputs(self) -> Mapping[str, str]:
        """The digests of the network's files."""
        from detpipe.proposals.multibox_network import network_files

        return {path.name: file_digest(path).hex() for path in network_files(Path(self.weights))}

    def keep(self, folder: Path) -> None:
        """Copy the network's files into folder/multibox. Each copy is atomic.

        Raises FileNotFoundError, before the folder is made, if a file is missing.
        """
        from detpipe.proposals.multibox_network import network_files

        for path in network_files(Path(self.weights)):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: expected a file of the MultiBox network, found none")
        (folder / KEPT).mkdir(parents=True, exist_ok=True)
        for path in network_files(Path(self.weights)):
            with replaced(folder / KEPT / path.name) as scratch:
                shutil.copyfile(path, scratch)

    def kept_in(self, folder: Path) -> Proposer:
        """The same proposer with the network of folder/multibox, if there is one."""
        return dataclasses.replace(self, weights=str(folder / KEPT)) if (folder / KEPT).is_dir() else self

    def __call__(self, image: AnyImage) -> Proposals:
        """The network's boxes of an RGB image."""
        image = as_image(image)
        count = self.max_proposals if self.max_proposals is not None else ANY_NUMBER
        found = self._loaded().propose(image, self.scales, flip=self.flip, count=count, nms_iou=self.nms_iou)
        boxes = np.concatenate([one.boxes for one in found])
        scores = np.concatenate([one.scores for one in found])
        if len(found) > 1:
            kept = nms(boxes, scores, self.nms_iou)
            boxes, scores = boxes[kept], scores[kept]
        return ranked(boxes, scores, (image.shape[0], image.shape[1]), self.max_proposals)

    def _loaded(self) -> MultiBoxNetwork:
        # torch takes seconds to import, and a worker that fuses other methods doesn't need it.
        from detpipe.proposals.multibox_network import MultiBoxNetwork

        with self._lock:  # the first of several threads loads it
            if self._network is None:
                self._network = MultiBoxNetwork(Path(self.weights))
            return self._network

    def __getstate__(self) -> dict[str, Any]:
        """Only settings are pickled: each process loads the network itself."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_network")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _network=None)
