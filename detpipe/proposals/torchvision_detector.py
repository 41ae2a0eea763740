"""A detector of torchvision as a proposer: its settings (see torchvision_network.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from detpipe.datasets.image_file import AnyImage, as_image, file_digest
from detpipe.proposals.kept_files import keep_files, kept_file
from detpipe.proposals.network_boxes import ANY_NUMBER, as_proposals
from detpipe.proposals.proposer import Proposer
from detpipe.structures import Dataset, Proposals

if TYPE_CHECKING:
    from detpipe.proposals.torchvision_network import TorchvisionNetwork


class DetectorName(StrEnum):
    """The name of a detector in torchvision.models.detection."""

    fasterrcnn_mobilenet_v3_large_320_fpn = "fasterrcnn_mobilenet_v3_large_320_fpn"
    fasterrcnn_mobilenet_v3_large_fpn = "fasterrcnn_mobilenet_v3_large_fpn"
    fasterrcnn_resnet50_fpn = "fasterrcnn_resnet50_fpn"
    fasterrcnn_resnet50_fpn_v2 = "fasterrcnn_resnet50_fpn_v2"
    fcos_resnet50_fpn = "fcos_resnet50_fpn"
    retinanet_resnet50_fpn = "retinanet_resnet50_fpn"
    retinanet_resnet50_fpn_v2 = "retinanet_resnet50_fpn_v2"
    ssd300_vgg16 = "ssd300_vgg16"
    ssdlite320_mobilenet_v3_large = "ssdlite320_mobilenet_v3_large"


class Boxes(StrEnum):
    """Which boxes of the detector."""

    final = "final"
    """Those of its detections, whatever their class."""
    rpn = "rpn"
    """Those of its region proposal network. Faster R-CNN has one."""


@dataclass(kw_only=True)
class TorchvisionProposals(Proposer):
    """The boxes of a detector of torchvision with your weights. It runs on a GPU if there is one.

    The weights decide the number of classes.
    """

    name: DetectorName = DetectorName.fasterrcnn_mobilenet_v3_large_320_fpn
    """The detector."""
    weights: str = ""
    """Its state dict: a .pth or .pt file, also a checkpoint of torchvision's training script, or .safetensors."""
    boxes: Boxes = Boxes.final
    """The detector's final boxes, or the boxes of its region proposal network (rpn)."""
    min_score: float = 0.01
    """Drop final boxes with a lower score."""
    nms_iou: float = 0.7
    """IoU threshold of non-maximum suppression over all classes: drop a box that overlaps a better one by more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boxes is Boxes.rpn and not self.name.startswith("fasterrcnn"):
            raise ValueError(f"proposals.boxes=rpn: expected a Faster R-CNN, got proposals.name={self.name.value}")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"proposals.nms_iou: expected a number in [0, 1], got {self.nms_iou}")

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Load the network. Raises ValueError without weights, and for weights of another detector."""
        self._network()

    @property
    def max_threads(self) -> int:
        """Any number: threads share the network."""
        return ANY_NUMBER

    def inputs(self) -> Mapping[str, str]:
        """The digest of the weights."""
        return {self._path.name: file_digest(self._path).hex()}

    def keep(self, folder: Path) -> None:
        """Copy the weights."""
        keep_files(folder, self._path.parent, [self._path])

    def kept_in(self, folder: Path) -> Proposer:
        """The same proposer with the copied weights, if there are any."""
        return dataclasses.replace(self, weights=kept_file(folder, self.weights))

    def __call__(self, image: AnyImage) -> Proposals:
        """The detector's boxes of an RGB image. Raises what `check` raises."""
        image = as_image(image)
        boxes, scores = self._network()(image)
        if self.boxes is Boxes.final:
            boxes, scores = boxes[scores >= self.min_score], scores[scores >= self.min_score]
        size = (image.shape[0], image.shape[1])
        return as_proposals(boxes, scores, size, self.max_proposals, nms_iou=self.nms_iou)

    @property
    def _path(self) -> Path:
        if not self.weights:
            raise ValueError("proposals=torchvision: expected a file of weights, got none; give proposals.weights=FILE")
        return Path(self.weights)

    def _network(self) -> TorchvisionNetwork:
        # torch takes seconds to import, and a worker that fuses other methods doesn't need it.
        from detpipe.proposals.torchvision_network import loaded

        most = self.max_proposals or ANY_NUMBER
        return loaded(self._path, self.name.value, self.boxes.value, self.min_score, most)
