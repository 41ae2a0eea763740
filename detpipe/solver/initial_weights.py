"""Loads initial weights from a file by parameter name, as Caffe's CopyTrainedLayersFrom."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

from detpipe.storage.tensor_file import read_safetensors
from detpipe.storage.torch_file import read_torch_file

logger = logging.getLogger(__name__)


def take_weights(module: nn.Module, path: Path) -> None:
    """Copy each tensor of the file to the parameter or buffer with the same name. Unmatched names are logged.

    path: a .safetensors file, or a state dict or solver snapshot saved by torch (see `read_torch_file`).
    Raises FileNotFoundError, and ValueError if the file has another format, no name matches, or a shape differs.
    """
    state, own = read_weights(path), module.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own}
    if not fitting:
        raise ValueError(f"{path}: expected weights named like {list(own)[:2]}, got {list(state)[:2]}")
    for name, tensor in fitting.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{path}: {name}: expected shape {tuple(own[name].shape)}, got {tuple(tensor.shape)}; "
                "rename the layer to start it from random weights, as in Caffe"
            )
    module.load_state_dict(fitting, strict=False)
    logger.info("%s: %d of %d tensors loaded", path, len(fitting), len(own))
    for what, names in (
        ("of the network are not in the file and keep their values", own.keys() - state.keys()),
        ("of the file are not in the network and are ignored", state.keys() - own.keys()),
    ):
        if names:
            logger.warning("%s: %d tensors %s: %s", path, len(names), what, ", ".join(sorted(names)))


def check_start_weights(weights: str | None, setting: str) -> None:
    """Raise ValueError, which names the setting, if the file is missing or has no tensors. Call it before any work."""
    if weights is None:
        return
    try:
        found = read_weights(Path(weights))
    except (OSError, ValueError) as error:
        raise ValueError(f"{setting}: {str(error).removeprefix('solver.weights: ')}") from error
    if not found:
        raise ValueError(f"{setting}: {weights}: expected a file with weights, got one without tensors")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU. Raises the errors of `take_weights`."""
    if not path.exists():
        raise FileNotFoundError(f"solver.weights: no such file: {path}")
    if path.suffix == ".caffemodel":
        raise ValueError(f"{path}: expected .safetensors or .pt; for a .caffemodel, set backbone.weights")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return read_torch_file(path)
