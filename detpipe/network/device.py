"""The device and precision of a network."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from detpipe.network.settings import Device, Precision


def resolve_device(device: Device) -> torch.device:
    """The torch device for a setting. Raises ValueError for cuda if torch finds no CUDA device."""
    available = torch.cuda.is_available()
    if device is Device.cuda and not available:
        raise ValueError("device=cuda: torch finds no CUDA device; use device=auto or device=cpu")
    return torch.device("cuda" if available and device is not Device.cpu else "cpu")


def resolve_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16 on this device."""
    if precision is not Precision.auto:
        return precision is Precision.bf16
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """A context in which matrix products and convolutions run in bfloat16; without bf16 it does nothing."""
    if not bf16:
        return contextlib.nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
    return context
