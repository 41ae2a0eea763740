"""Inference of a trained MultiBox: the boxes of an image at several scales, mirrored or not.

This is a separate file because it imports torch, which `multibox.py`, the settings, must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from detpipe.heads.multibox.folder import DESCRIPTION, load_multibox
from detpipe.heads.multibox.train import proposed, views
from detpipe.network.device import Turns, resolve_bf16, resolve_device
from detpipe.network.network_folder import WEIGHTS
from detpipe.network.scaled_image import Scaling
from detpipe.network.settings import Device, Precision
from detpipe.structures import Image, Proposals


class MultiBoxNetwork:
    """The network of a folder, on the GPU if there is one, in bf16 if the hardware supports it.

    Threads may share it. On a CPU each thread computes one image on one core: several cores per image would wait for
    each other at every layer, and the boxes would depend on the number of threads. On a GPU the threads take turns.
    """

    def __init__(self, folder: Path) -> None:
        network, spec = load_multibox(folder)
        self._device = resolve_device(Device.auto)
        self._bf16 = resolve_bf16(Precision.auto, self._device)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._head = spec.multibox
        self._turns = Turns(self._device)

    def propose(
        self, image: Image, scales: Sequence[int], *, flip: bool, count: int, nms_iou: float
    ) -> list[Proposals]:
        """The `count` best boxes of each view (scale and mirroring) of an image, in the image's pixels."""
        image_size = (image.shape[0], image.shape[1])
        found = []
        for side in scales or self._head.scales[-1:]:
            for mirrored in (False, True) if flip else (False,):
                scaling = self._scaling(image_size, side, mirrored)
                pixels = scaling.pixels(image)
                with self._turns.one():
                    seen = proposed(
                        self._network, pixels, self._head, self._device, self._bf16, count=count, nms_iou=nms_iou
                    )
                found.append(Proposals(scaling.to_image(seen.boxes), seen.scores))
        return found

    def _scaling(self, image_size: tuple[int, int], side: int, mirrored: bool) -> Scaling:
        return views(self._head).scaling(image_size, side, mirrored=mirrored)


def network_files(folder: Path) -> list[Path]:
    """The files of the network in a folder."""
    return [folder / WEIGHTS, folder / DESCRIPTION]
