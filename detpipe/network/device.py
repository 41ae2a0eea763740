"""The device and precision of a network."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from detpipe.network.settings import Device, Precision

logger = logging.getLogger(__name__)


def resolve_device(device: Device) -> torch.device:
    """The torch device for a setting. Raises ValueError for cuda if torch finds no CUDA device."""
    available = torch.cuda.is_available()
    if device is Device.cuda and not available:
        raise ValueError("device=cuda: torch finds no CUDA device; use device=auto or device=cpu")
    found = torch.device("cuda" if available and device is not Device.cpu else "cpu")
    logger.debug("device=%s: computes on %s, %d threads", device.value, found, torch.get_num_threads())
    return found


def resolve_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16 on this device."""
    if precision is not Precision.auto:
        return precision is Precision.bf16
    cuda = device.type == "cuda"
    bf16 = bool(torch.cuda.is_bf16_supported()) if cuda else torch.cpu._is_avx512_bf16_supported()
    logger.debug("precision=auto: %s on %s", "bf16" if bf16 else "float32", device)
    return bf16


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """A context in which matrix products and convolutions run in bfloat16; without bf16 it does nothing."""
    if not bf16:
        return contextlib.nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
    return context


class Turns:
    """Threads that share a network: on a CPU each computes in one thread of its own, on a GPU they take turns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turn = threading.Lock()
        self._threads = torch.get_num_threads()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """The block in which the calling thread uses the network."""
        if self._device.type != "cpu":
            with self._turn:
                yield
            return
        torch.set_num_threads(1)  # for the calling thread
        try:
            yield
        finally:
            # Not the number from before: a new thread starts with the last number that any thread set, perhaps 1.
            torch.set_num_threads(self._threads)
