"""A network of torchvision.models.detection with the weights of a file: the boxes of an image, and their scores.

This is a separate file because it imports torch, which `torchvision_detector.py`, the settings, must not.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from detpipe.network.device import Turns, resolve_device
from detpipe.network.settings import Device
from detpipe.storage.tensor_file import read_safetensors
from detpipe.storage.torch_file import read_torch_file
from detpipe.structures import Float32Array, Image

CLASS_BIASES = (
    "roi_heads.box_predictor.cls_score.bias",
    "head.classification_head.cls_logits.bias",
    "head.classification_head.module_list.0.bias",
    "head.classification_head.module_list.0.1.bias",
)
"""The parameter whose length is a multiple of the number of classes: of Faster R-CNN, of RetinaNet and FCOS, of SSD,
and of SSDlite."""
MAX_CLASSES = 10_000
FROZEN = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Detectors whose published weights were trained with frozen batch norm of epsilon 0 (torchvision's overwrite_eps)."""
_COUNTER = "num_batches_tracked"


class TorchvisionNetwork:
    """A detector in evaluation mode, on the GPU if there is one. Threads may share it.

    On a CPU each thread computes one image on one core, so that the boxes don't depend on the number of threads. On a
    GPU the threads take turns.
    """

    def __init__(self, path: Path, name: str, boxes: str, min_score: float, most: int) -> None:
        self._network = load_detector(path, name)
        self._boxes = boxes
        set_limits(self._network, min_score, most)
        self._device = resolve_device(Device.auto)
        self._network.to(self._device)
        self._turns = Turns(self._device)

    @torch.inference_mode()
    def __call__(self, image: Image) -> tuple[Float32Array, Float32Array]:
        """Boxes (N, 4) in pixels of the image, and scores (N,), in any order."""
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self._device).float() / 255
        with self._turns.one():
            if self._boxes == "rpn":
                boxes, scores = self._proposed(tensor)
            else:
                (found,) = self._network([tensor])
                boxes, scores = found["boxes"], found["scores"]
        return boxes.float().cpu().numpy(), scores.float().cpu().numpy()

    def _proposed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The boxes of the region proposal network. It returns them best first and drops their scores."""
        network: Any = self._network
        images, _ = network.transform([image])
        (boxes,), _ = network.rpn(images, network.backbone(images.tensors))
        height, width = images.image_sizes[0]
        scale = boxes.new_tensor([image.shape[2] / width, image.shape[1] / height] * 2)
        scores = torch.arange(len(boxes), 0, -1, device=boxes.device) / max(len(boxes), 1)
        return boxes * scale, scores


def load_detector(path: Path, name: str) -> nn.Module:
    """The detector of torchvision with the weights of a file, in evaluation mode.

    Raises ValueError if the weights belong to another network, and the errors of `read_torch_file` and
    `read_safetensors`.
    """
    state = dict(read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path))
    prefix = "module."  # of DistributedDataParallel
    if state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    network = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=_classes_of(state, name, path)
    )
    own = network.state_dict()
    is_frozen = not any(key.endswith(_COUNTER) for key in state)
    missing = [key for key in own if key not in state and not (is_frozen and key.endswith(_COUNTER))]
    others = [key for key in state if key not in own or state[key].shape != own[key].shape]
    if missing or others:
        raise ValueError(
            f"{path}: expected the weights of {name}, got {len(others)} tensors of another network ("
            f"{', '.join(others[:2]) or 'none'}), and {len(missing)} are missing ({', '.join(missing[:2]) or 'none'}); "
            "correct proposals.name"
        )
    network.load_state_dict(state, strict=False)
    if is_frozen and name in FROZEN:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    eval_network: nn.Module = network.eval()
    return eval_network


def set_limits(network: Any, min_score: float, most: int) -> None:
    """Let a detector return as many boxes as proposals need. torchvision's own limits are made for final detections."""
    if hasattr(network, "roi_heads"):
        network.roi_heads.score_thresh, network.roi_heads.detections_per_img = min_score, most
        for count in (network.rpn._pre_nms_top_n, network.rpn._post_nms_top_n):
            count["testing"] = max(count["testing"], min(most, 2000))
    else:
        network.score_thresh, network.detections_per_img = min_score, most


def _classes_of(state: Mapping[str, Tensor], name: str, path: Path) -> int:
    """The number of classes of the weights, with the background where the detector has one."""
    with torch.device("meta"):
        own = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=2).state_dict()
    key = next(key for key in CLASS_BIASES if key in own)
    found, per_class = state.get(key), len(own[key]) // 2
    if found is None or found.ndim != 1 or len(found) % per_class or not 0 < len(found) <= MAX_CLASSES * per_class:
        shape = None if found is None else tuple(found.shape)
        raise ValueError(
            f"{path}: expected the weights of {name}, got {'no ' + key if shape is None else f'{key} {shape}'}; "
            "correct proposals.name or proposals.weights"
        )
    return len(found) // per_class


_loading = threading.Lock()


def loaded(path: Path, name: str, boxes: str, min_score: float, most: int) -> TorchvisionNetwork:
    """The network of a file, loaded once per process while the file does not change."""
    with _loading:  # the first of several threads loads it
        return _loaded(path, path.stat().st_mtime_ns, name, boxes, min_score, most)


@functools.lru_cache(maxsize=2)
def _loaded(path: Path, changed: int, name: str, boxes: str, min_score: float, most: int) -> TorchvisionNetwork:  # noqa: ARG001
    return TorchvisionNetwork(path, name, boxes, min_score, most)
