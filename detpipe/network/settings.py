"""The settings of where a network runs and in which precision."""

from __future__ import annotations

import enum


class Device(enum.Enum):
    """auto is CUDA where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(enum.Enum):
    """auto is bf16 where the hardware computes in it (AVX512-BF16, AMX, CUDA from Ampere on), float32 elsewhere."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
