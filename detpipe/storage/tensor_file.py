"""Files of tensors: .safetensors, and torch.save's .pt for our own snapshots."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from detpipe.storage.atomic import replaced
from detpipe.storage.input_file import check_input

MAX_TENSORS = 20_000
"""Largest number of tensors in a file of weights. The largest image classifiers have about 5,000."""
MAX_HEADER = 16 << 20
"""Largest header of a .safetensors file in bytes. A tensor needs about a hundred."""


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file by name, on the CPU.

    Raises InputFileError; FileNotFoundError; ValueError for a damaged file, and for one with more than MAX_TENSORS.
    """
    check_input(path, "a .safetensors file of weights")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    size = path.stat().st_size
    if header > size:
        raise ValueError(
            f"{path}: expected a safetensors file, got a header of {header} bytes in a file of {size} bytes; it is "
            "truncated or has another format"
        )
    if header > MAX_HEADER:
        raise ValueError(f"{path}: expected a header of at most {MAX_HEADER} bytes, got one of {header} bytes")
    try:
        with safe_open(path, framework="pt") as file:
            count = len(file.keys())
        if count > MAX_TENSORS:
            raise ValueError(f"{path}: expected a file of weights with at most {MAX_TENSORS} tensors, got {count}")
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that can't be read ({error})") from error


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a .safetensors file atomically. Raises OSError if the disk is full; the old file is then unchanged."""
    with replaced(path) as scratch:
        try:
            save_file(dict(tensors), scratch)
        except SafetensorError as error:
            raise disk_error(path, error) from error


def write_pt(path: Path, state: Mapping[str, Any]) -> None:
    """Write a .pt file atomically by torch.save. Raises OSError if the disk is full; the old file is then unchanged."""
    with replaced(path) as scratch:
        try:
            torch.save(dict(state), scratch)
        except RuntimeError as error:  # its message is about positions in torch's archive
            raise disk_error(path, OSError("torch.save could not write all bytes")) from error


def write_buffer(path: Path, buffer: io.BytesIO) -> None:
    """Write bytes atomically. Raises OSError if the disk is full; the old file is then unchanged."""
    with replaced(path) as scratch:
        try:
            scratch.write_bytes(buffer.getbuffer())
        except OSError as error:
            raise disk_error(path, error) from error


def disk_error(path: Path, error: Exception) -> OSError:
    """The OSError for a failed write, which names the file. Some libraries report it as another error."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return OSError(
        f"{path}: expected to write the file, got an error of the disk ({reason}), which is probably full; "
        "make room, and give the same command again to continue"
    )
