"""A trained MultiBox at work: the boxes of an image, seen at some sizes, mirrored or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from detpipe.network.device import Device, Precision, resolve_bf16, resolve_device
from detpipe.network.network_folder import WEIGHTS
from detpipe.network.scaled_image import Scaling
from detpipe.proposals.multibox_folder import DESCRIPTION, load_multibox
from detpipe.proposals.train_multibox import proposed, views
from detpipe.structures import Image, Proposals


class MultiBoxNetwork:
    """The network of a folder, on the GPU where there is one, in bf16 where the hardware computes in it."""

    def __init__(self, folder: Path) -> None:
        network, spec = load_multibox(folder)
        self._device = resolve_device(Device.auto)
        self._bf16 = resolve_bf16(Precision.auto, self._device)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        self._head = spec.multibox

    def propose(
        self, image: Image, scales: Sequence[int], *, flip: bool, count: int, nms_iou: float
    ) -> list[Proposals]:
        """Of each view of an image its `count` best boxes, in the image's pixels."""
        image_size = (image.shape[0], image.shape[1])
        found = []
        for side in scales or self._head.scales[-1:]:
            for mirrored in (False, True) if flip else (False,):
                scaling = self._scaling(image_size, side, mirrored)
                seen = proposed(
                    self._network,
                    scaling.pixels(image),
                    self._head,
                    self._device,
                    self._bf16,
                    count=count,
                    nms_iou=nms_iou,
                )
                found.append(Proposals(scaling.to_image(seen.boxes), seen.scores))
        return found

    def _scaling(self, image_size: tuple[int, int], side: int, mirrored: bool) -> Scaling:
        return views(self._head).scaling(image_size, side, mirrored=mirrored)


def network_files(folder: Path) -> list[Path]:
    """What the network is made of."""
    return [folder / WEIGHTS, folder / DESCRIPTION]
