"""Weights in the form that a layer computes with, kept until its parameters change.

Autocast converts float32 weights to bf16 in each call, and a folded batch norm is a product of weights. For a network
that is not being trained the results are always the same, and computing them takes a tenth of the time of detection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_State = tuple[torch.dtype | None, list[tuple[int, int, int]]]

_kept: WeakKeyDictionary[nn.Module, tuple[Sequence[Tensor], _State, tuple[Tensor, ...]]] = WeakKeyDictionary()


def kept_weights(
    owner: nn.Module, sources: Sequence[Tensor | None], make: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """make(), in the precision of autocast; from the last call for `owner` if no source has changed since.

    sources: parameters and buffers that `make` reads, or that change with them; None for those that the layer lacks. If
    one of them needs a gradient now, or while a compiler reads the code, the result is make() as it is, and nothing is
    kept. Changes through `.data` or outside of PyTorch, without a learning pass before them, are not noticed.
    """
    present = [one for one in sources if one is not None]
    if torch.compiler.is_compiling() or any(one.is_inference() for one in present):
        return make()
    if torch.is_grad_enabled() and any(one.requires_grad for one in present):
        # PyTorch's fused optimisers change parameters without counting it, so a learning pass ends what was kept.
        _kept.pop(owner, None)
        return make()
    device = present[0].device.type
    # On the meta device, where networks are tried out without memory, PyTorch has no autocast to ask for.
    dtype = torch.get_autocast_dtype(device) if device != "meta" and torch.is_autocast_enabled(device) else None
    # The tensors themselves are kept too, so no other tensor can have their addresses.
    state = (dtype, [(id(one), one.data_ptr(), one._version) for one in present])
    kept = _kept.get(owner)
    if kept is not None and kept[1] == state:
        return kept[2]
    # A later pass may need gradients of its input, which autograd does not allow with tensors of inference mode.
    with torch.inference_mode(False), torch.no_grad():
        made = tuple(one.detach() if dtype is None else one.to(dtype) for one in make())
    _kept[owner] = (present, state, made)
    return made


class Linear(nn.Linear):
    """A linear layer that keeps its weights in the precision of autocast: the same results as `nn.Linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width_in) -> (..., width_out)."""
        sources = [self.weight] if self.bias is None else [self.weight, self.bias]
        return F.linear(x, *kept_weights(self, sources, lambda: tuple(sources)))
