"""Loading weights from a local file into a module, with a report of what did not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from detpipe.storage.tensor_file import read_safetensors
from detpipe.storage.torch_file import read_torch_file

logger = logging.getLogger(__name__)

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "network.")
"""Prefixes that DataParallel, torch.compile and detectors (also ours) add to the names of tensors."""

MAX_WRAPPERS = 3

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a file, with the names that the module has.

    loaded: tensors that were loaded. missing: only in the module; they keep their values. unexpected: only in the file.
    wrong_shape: in both with different shapes and not loaded, as "name: SHAPE in the file, SHAPE in the network".
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """Names of the module's tensors that keep their values."""
        return (*self.missing, *(line.split(":")[0] for line in self.wrong_shape))


def load_weights(
    module: nn.Module, path: Path, *, log: bool = True, convert: Callable[[State], State] = lambda state: state
) -> LoadReport:
    """Load the tensors of a .pth, .pt or .safetensors file whose name and shape match a tensor of the module.

    A .pth file is a state dict, or a dict that contains one. No code in it runs, see `read_torch_file`.
    Common prefixes of names (see WRAPPERS) are removed if more names match then. log: log what does not match.
    convert: gives the file's tensors the names and shapes of the module.

    Raises FileNotFoundError; ValueError for an unreadable file, or if no tensor matches.
    """
    own = module.state_dict()
    state = _unwrapped(convert(read_state(path)), own)
    fitting = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    # Scalars (the batch counters of batch norms) match any network, so they do not count.
    if not any(tensor.ndim for tensor in fitting.values()):
        raise ValueError(
            f"{path}: expected weights of {type(module).__name__}, with tensors like {_first_tensors(own)}, got "
            f"{_first_tensors(state)}"
        )
    report = LoadReport(
        path=path,
        loaded=tuple(fitting),
        # Files from before PyTorch 0.4.1 have no batch counters, and nothing needs them.
        missing=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        unexpected=tuple(name for name in state if name not in own),
        wrong_shape=tuple(
            f"{name}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} in the network"
            for name, tensor in state.items()
            if name in own and tensor.shape != own[name].shape
        ),
    )
    module.load_state_dict(fitting, strict=False)
    if log:
        log_report(report)
    return report


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a .pth, .pt or .safetensors file by name, on the CPU. Raises as `load_weights`."""
    if not path.exists():
        raise FileNotFoundError(f"no such weight file: {path}")
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    logger.debug("%s: read %d tensors", path, len(state))
    return state


def unwrapped_both(one: State, other: State) -> tuple[State, State]:
    """Both states, without the prefixes (see WRAPPERS) whose removal makes most names match; as few as possible."""
    pairs = ((a, b) for b in _variants(other, MAX_WRAPPERS) for a in _variants(one, MAX_WRAPPERS))
    return max(pairs, key=lambda pair: _count_fitting(*pair))


def _unwrapped(state: State, own: State) -> State:
    """The state without the prefixes whose removal makes most names match; as few as possible."""
    return max(_variants(state, MAX_WRAPPERS), key=lambda variant: _count_fitting(variant, own))


def _variants(state: State, depth: int) -> Iterator[State]:
    yield state
    for prefix in WRAPPERS:
        if depth and any(name.startswith(prefix) for name in state):
            # Names without the prefix (such as a head next to the backbone) stay, and are reported as unexpected.
            outside = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
            inside = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            yield from _variants({**outside, **inside}, depth - 1)


def _count_fitting(state: State, own: State) -> int:
    return sum(name in own and tensor.shape == own[name].shape for name, tensor in state.items())


def _first_tensors(state: State) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:2]) or "none"


def log_report(report: LoadReport) -> None:
    """Log what was loaded, and warn of what was not."""
    logger.info("%s: %d tensors loaded", report.path, len(report.loaded))
    for what, names in (
        ("missing in the file, not loaded", report.missing),
        ("not in the network, ignored", report.unexpected),
        ("with another shape, ignored", report.wrong_shape),
    ):
        if names:
            logger.warning("%s: %d tensors %s: %s", report.path, len(names), what, ", ".join(names))
