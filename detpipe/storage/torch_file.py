"""Reads the tensors of .pth and .pt files that other people made."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detpipe.storage.reader_process import Arrays, read_in_process
from detpipe.storage.tensor_file import MAX_TENSORS

NESTED_KEYS = ("state_dict", "model", "model_state", "backbone")
"""Keys under which training programs, also our solver, store the weights in a checkpoint."""


class TorchFileError(ValueError):
    """A file of torch that holds something else than a dict of tensors."""


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, on the CPU. The file holds it, or a dict with it under one of NESTED_KEYS.

    Other values than tensors are passed over. No code of the file runs. The first file takes 1.5 s longer, for
    the process that reads it (see `read_in_process`). The tensors don't share memory.

    Raises TorchFileError, and the errors of `read_in_process`, for any other file.
    """
    form, arrays = read_in_process(_load, path, "a PyTorch file of weights", errors=[TorchFileError], expansion=4)
    tensors = {}
    for (name, dtype, shape), array in zip(form, arrays.values(), strict=True):
        tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
        if len(array):
            tensors[name] = torch.from_numpy(array).view(tensors[name].dtype).reshape(shape)
    return tensors


def _load(path: Path) -> tuple[Any, Arrays]:
    """Name, dtype and shape of each tensor, and its bytes."""
    torch.set_num_threads(1)
    try:
        return _contents(path)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError from error
        raise


def _contents(path: Path) -> tuple[Any, Arrays]:
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        # torch's message is not shown: it advises weights_only=False, which would run code from the file.
        named = re.search(r"GLOBAL (\S{1,100})", str(error))
        raise TorchFileError(
            f"{path}: expected only tensors, got {named[1] if named else 'other objects'}, which is not unpickled for "
            "safety, or another file type; save only the state dict, or use .safetensors"
        ) from error
    form, arrays = [], {}
    for number, (name, tensor) in enumerate(_find_state(content, path).items()):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise TorchFileError(
                f"{path}: {name}: expected a dense tensor, got {tensor.layout} {tensor.dtype} on {tensor.device}"
            )
        form.append((name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
        flat = tensor.detach().contiguous().reshape(-1)  # strides of 0 take memory here, within the limit
        arrays[str(number)] = flat.view(torch.uint8).numpy()
    return form, arrays


def _find_state(content: object, path: Path) -> dict[str, Tensor]:
    """The dict of tensors in the content, or below it."""
    for _ in range(len(NESTED_KEYS) + 1):  # a dict may contain itself
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
        nested = next((content[key] for key in NESTED_KEYS if isinstance(content.get(key), Mapping)), None)
        if nested is None and tensors:
            if len(tensors) > MAX_TENSORS:
                raise TorchFileError(f"{path}: expected at most {MAX_TENSORS} tensors, got {len(tensors)}")
            return tensors
        content = nested
    raise TorchFileError(f"{path}: expected a dict of tensors, or one under a key of {list(NESTED_KEYS)}, got neither")
