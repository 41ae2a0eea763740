"""`read_one` in a module that imports torch, which happens before the limits of memory are set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch._dynamo  # which torch would import on first use

from detpipe.storage.reader_process import Arrays
from tests.fuzz.readers import read_one


def read_one_with_torch(path: Path) -> tuple[Any, Arrays]:
    """See `read_one`."""
    torch.set_num_threads(1)
    return read_one(path)
