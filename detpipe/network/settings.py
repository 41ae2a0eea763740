"""Settings of device and precision."""

from __future__ import annotations

import enum


class Device(enum.Enum):
    """auto uses CUDA if it is available, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(enum.Enum):
    """auto uses bf16 if the hardware supports it (AVX512-BF16, AMX, CUDA from Ampere on), else float32."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
