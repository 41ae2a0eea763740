"""Settings of device and precision."""

from __future__ import annotations

import pytest
import torch

from detpipe.network.device import autocast, resolve_bf16, resolve_device
from detpipe.network.settings import Device, Precision

CPU = torch.device("cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(Device.auto) == CPU
    assert resolve_device(Device.cpu) == CPU
    with pytest.raises(ValueError, match=r"device=cuda: .*use device=auto"):
        resolve_device(Device.cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(Device.auto).type == "cuda"
    assert resolve_device(Device.cuda).type == "cuda"
    assert resolve_device(Device.cpu) == CPU


@pytest.mark.parametrize("supported", [True, False])
def test_precision(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert resolve_bf16(Precision.auto, CPU) is supported
    assert resolve_bf16(Precision.bf16, CPU) is True
    assert resolve_bf16(Precision.float32, CPU) is False


def test_autocast_computes_matrix_products_in_bf16() -> None:
    matrix = torch.ones(2, 2)
    with autocast(CPU, True):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(CPU, False):
        assert (matrix @ matrix).dtype == torch.float32
