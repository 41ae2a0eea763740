"""Weights from a local file into a module, with a list of what did not fit."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

logger = logging.getLogger(__name__)

NESTED_KEYS = ("state_dict", "model", "model_state", "backbone")
"""Where training programs put the weights in a checkpoint that holds more."""

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "network.")
"""What DataParallel, torch.compile and detectors (ours too) put before the names of a network's tensors."""

MAX_WRAPPERS = 3

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file; names are the module's own.

    loaded: taken over. missing: in the module, not in the file: they keep what they had. unexpected: in the file
    only. wrong_shape: in both, "name: (file's shape) in the file, (module's) in the network"; not taken over.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """Names of the module's tensors that keep what they had."""
        return (*self.missing, *(line.split(":")[0] for line in self.wrong_shape))


def load_weights(module: nn.Module, path: Path) -> LoadReport:
    """Take over each tensor of a .pth, .pt or .safetensors file that has a name and shape of the module's.

    A .pth is a state dict, or a dict that holds one (see NESTED_KEYS); it is read without unpickling code. Common
    prefixes of names (see WRAPPERS) are removed where that makes more names fit. What did not fit is logged.

    Raises FileNotFoundError; ValueError where the file is no such file, or where no tensor fits.
    """
    state, own = _unwrapped(read_state(path), module.state_dict()), module.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    # Counters are scalars and fit any network's.
    if not any(tensor.ndim for tensor in fitting.values()):
        raise ValueError(
            f"{path}: expected weights of {type(module).__name__}, with names like {list(own)[:2]}, got "
            f"{list(state)[:2]}"
        )
    report = LoadReport(
        path=path,
        loaded=tuple(fitting),
        # Files older than PyTorch 0.4.1 have no batch counters, and nothing needs them.
        missing=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(
            f"{name}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} in the network"
            for name, tensor in state.items()
            if name in own and tensor.shape != own[name].shape
        ),
    )
    module.load_state_dict(fitting, strict=False)
    _log(report)
    return report


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pth, .pt or .safetensors file by name, on the CPU. Errors as in `load_weights`."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file of weights: {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: expected a safetensors file; it does not read as one ({error})") from error
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: it holds more than tensors, or is no PyTorch file, and is not unpickled for safety; "
            f"save the state dict alone, or as .safetensors ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # torch.load raises whatever its zip and pickle readers do
        raise ValueError(
            f"{path}: expected a PyTorch file; it is broken or something else ({type(error).__name__}: {error})"
        ) from error
    return _find_state(content, path)


def _find_state(content: object, path: Path) -> dict[str, torch.Tensor]:
    while isinstance(content, Mapping):
        tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}
        nested = next((content[key] for key in NESTED_KEYS if isinstance(content.get(key), Mapping)), None)
        if nested is None and tensors:
            return tensors
        content = nested
    raise ValueError(f"{path}: expected a dict of tensors, or one under a key of {list(NESTED_KEYS)}, found none")


def unwrapped_both(one: State, other: State) -> tuple[State, State]:
    """Both with those prefixes (see WRAPPERS) removed that let the most tensors meet; at a tie the fewest."""
    pairs = ((a, b) for b in _variants(other, MAX_WRAPPERS) for a in _variants(one, MAX_WRAPPERS))
    return max(pairs, key=lambda pair: _count_fitting(*pair))


def _unwrapped(state: State, own: State) -> State:
    """The state with those wrappers' prefixes removed that let the most tensors fit; at a tie the fewest."""
    return max(_variants(state, MAX_WRAPPERS), key=lambda variant: _count_fitting(variant, own))


def _variants(state: State, depth: int) -> Iterator[State]:
    yield state
    for prefix in WRAPPERS:
        if depth and any(name.startswith(prefix) for name in state):
            # Names without the prefix (a head beside the backbone) stay, to be reported as unexpected.
            outside = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
            inside = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            yield from _variants({**outside, **inside}, depth - 1)


def _count_fitting(state: State, own: State) -> int:
    return sum(name in own and tensor.shape == own[name].shape for name, tensor in state.items())


def _log(report: LoadReport) -> None:
    logger.info("%s: %d tensors taken over", report.path, len(report.loaded))
    for what, names in (
        ("not in the file, so left as they were", report.missing),
        ("not in the network, so left out", report.unexpected),
        ("of another shape, so left out", report.wrong_shape),
    ):
        if names:
            logger.warning("%s: %d tensors %s: %s", report.path, len(names), what, ", ".join(names))
