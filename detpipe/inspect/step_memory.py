"""The memory of one step: output and saved tensors of each layer, and the peak."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from detpipe.inspect.layers import Call, tensors_in, watching


@dataclass
class LayerMemory:
    """The memory of one layer in one step, in bytes.

    output: of its output; 0 if it is a view of its input or was computed in place. kept: of the tensors that autograd
    saves for the backward pass, without parameters; each is counted at the first layer that saves it.
    """

    output: int = 0
    kept: int = 0


@dataclass(frozen=True)
class StepMemory:
    """layers: by the name of the call. peak: the largest total of the step's live tensors at any time, in bytes."""

    layers: dict[str, LayerMemory]
    peak: int


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensors that torch operations create in this context.

    peak: the largest count. Temporary memory inside an operation (such as a library's workspace) is not counted, nor
    are tensors that existed before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        known = {tensor.untyped_storage()._cdata for tensor in tensors_in((arguments, dict(keywords or {})))}
        result = function(*arguments, **(keywords or {}))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in known and storage._cdata not in self._known:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def gone(_: object) -> None:
            self.live -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def measure_memory(network: nn.Module, step: Callable[[], Tensor], *, backward: bool) -> StepMemory:
    """Measure `step`, a forward pass to a scalar, and with `backward` its backward pass. The step runs twice."""
    layers: dict[str, LayerMemory] = {}
    running: list[str] = []
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    own |= {buffer.untyped_storage()._cdata for buffer in network.buffers()}
    given: dict[str, set[int]] = {}

    def before(call: Call, inputs: tuple[Tensor, ...]) -> None:
        layers[call.name] = LayerMemory()
        given[call.name] = {tensor.untyped_storage()._cdata for tensor in inputs}
        running.append(call.name)

    def after(call: Call, _inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        running.pop()
        fresh = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in outputs}
        layers[call.name].output = sum(size for key, size in fresh.items() if key not in given[call.name])

    kept: dict[int, Tensor] = {}  # holds the tensors, because freed memory may be reused by another tensor

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in kept:
            kept[storage._cdata] = tensor.detach()
            if running:
                layers[running[-1]].kept += storage.nbytes()
        return tensor

    network.zero_grad(set_to_none=True)
    # Two passes: the list of saved tensors would keep them alive and so change the peak.
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        watching(network, before, after),
        torch.set_grad_enabled(backward),
    ):
        step()
    kept.clear()
    with LiveTensors() as tensors, torch.set_grad_enabled(backward):
        loss = step()
        if backward:
            loss.backward()
    network.zero_grad(set_to_none=True)
    return StepMemory(layers=layers, peak=tensors.peak)
