"""A module's gradients against central differences, after Caffe's GradientChecker (test_gradient_check_util.hpp)."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


class GradientError(ValueError):
    """A gradient that the outputs don't bear out."""


def gradient_check(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    stepsize: float = 1e-5,
    threshold: float = 1e-6,
    seed: int = 1701,
    kink: float = 0.0,
    kink_range: float | None = None,
    output: tuple[int, int] | None = None,
    skip: Collection[str] = (),
    max_elements: int | None = 100,
) -> dict[str, int]:
    """Compare the gradient for each input and parameter with differences of the outputs; how many elements were.

    A copy of the module is checked, in float64 and in the mode that the module is in; module and inputs stay as they
    are. Integer inputs are passed on unchanged, and integer outputs not looked at. Left alone are also parameters that
    need no gradient. The random numbers of each forward pass are the same (dropout), and so are the buffers before it.

    inputs: what `forward` takes, any shapes; `forward` gives a tensor, or tensors in lists, tuples and dicts.
    stepsize: how far an element is moved, up and down. A module that computes in float32 wants Caffe's 1e-2.
    threshold: the two may differ by so much, times the larger of them where that is above 1; Caffe's float32: 1e-3.
    seed: of the forward passes, the objective's weights and the choice of elements.
    kink_range: elements with | |value| - kink | <= kink_range are passed over, as around the 0 of
    a ReLU they must be; None: none are.
    output: the objective is one element of one output, (number of the output, flat index); None: the sum of all
    elements, each with its own weight between 1 and 2, so that a fault in any of them shows.
    skip: names of what has no gradient to check: `input 1`, or a parameter's name.
    max_elements: of a larger tensor so many are drawn; None: all are compared. Each costs two forward passes.

    Returns a name (`input 0`, `input 1`, ..., then the parameters') -> the number of compared elements; 0 for an empty
    tensor. Raises GradientError, naming for each wrong tensor the worst element and both of its numbers. Raises
    ValueError where nothing can be compared, for an unknown name, and where every element lies in the kink.
    """
    if not stepsize > 0 or not threshold > 0 or (max_elements is not None and max_elements < 1):
        raise ValueError(
            f"wanted stepsize and threshold above 0, max_elements of at least 1, got {stepsize}, {threshold}, "
            f"{max_elements}"
        )
    if kink_range is not None and kink_range < stepsize:
        raise ValueError(f"wanted kink_range of at least stepsize {stepsize}, or None, got {kink_range}")
    objective = _Objective(module, [inputs] if isinstance(inputs, Tensor) else inputs, output, seed)
    checked = objective.tensors(skip)
    generator = torch.Generator().manual_seed(seed)
    analytic = objective.gradients(list(checked.values()))
    counts, faults = {}, []
    for (name, tensor), gradient in zip(checked.items(), analytic, strict=True):
        elements = _away_from_kink(tensor, kink, kink_range, name)
        if max_elements is not None and len(elements) > max_elements:
            elements = elements[torch.randperm(len(elements), generator=generator)[:max_elements]]
        counts[name] = len(elements)
        if fault := _worst(objective, name, tensor, gradient, elements.tolist(), stepsize, threshold):
            faults.append(fault)
    if faults:
        raise GradientError(f"{type(module).__name__}: wrong gradients: " + "; ".join(faults))
    return counts


class _Objective:
    """A weighted sum of a module's outputs, as a function of its inputs and parameters, all in float64."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], output: tuple[int, int] | None, seed: int) -> None:
        self._module = copy.deepcopy(module).double()
        self._buffers = [(buffer, buffer.clone()) for buffer in self._module.buffers()]
        self._inputs = [_leaf(x) for x in inputs]
        self._seed = seed
        outputs = self._outputs()
        self._weights = _weights(outputs, seed) if output is None else _one_element(outputs, *output)

    def tensors(self, skip: Collection[str]) -> dict[str, Tensor]:
        """What it has a slope along, by name: floating inputs, then parameters; without those of `skip`."""
        named: dict[str, Tensor] = {f"input {i}": x for i, x in enumerate(self._inputs) if x.requires_grad}
        named |= {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        if unknown := set(skip) - named.keys():
            raise ValueError(f"skip: wanted some of {list(named)}, got {sorted(unknown)}")
        if not named.keys() - set(skip):
            raise ValueError("wanted a floating input or a parameter with a gradient, got none: nothing to compare")
        return {name: tensor for name, tensor in named.items() if name not in skip}

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The gradient for each tensor, as the module's backward pass has it; 0 where it has none."""
        pairs = [(y, w) for y, w in zip(self._outputs(), self._weights, strict=True) if y.requires_grad]
        if not pairs:
            return [torch.zeros_like(tensor) for tensor in tensors]
        outputs, weights = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, tensors, weights, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g.clone() for t, g in zip(tensors, found, strict=True)]

    def difference(self, tensor: Tensor, index: tuple[int, ...], stepsize: float) -> float:
        """The slope along one element of one of the tensors, from the outputs on both sides of it."""
        value = tensor[index].item()
        above = self._outputs_at(tensor, index, value + stepsize)
        below = self._outputs_at(tensor, index, value - stepsize)
        with torch.no_grad():
            tensor[index] = value
        # Outputs are subtracted before they are summed: in a large sum the small change would be lost.
        parts = [((a - b) * w).sum().item() for a, b, w in zip(above, below, self._weights, strict=True)]
        return sum(parts) / (2 * stepsize)

    def _outputs_at(self, tensor: Tensor, index: tuple[int, ...], value: float) -> list[Tensor]:
        with torch.no_grad():
            tensor[index] = value
        # Copies, since an output may be a parameter itself.
        return [y.detach().to(torch.float64, copy=True) for y in self._outputs()]

    def _outputs(self) -> list[Tensor]:
        """The floating outputs of a forward pass that is the same each time."""
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self._seed)
            # Copies, since a layer may work in place.
            outputs = list(_floating(self._module(*(x.clone() for x in self._inputs))))
        if not outputs:
            raise ValueError(f"{type(self._module).__name__}: wanted an output of floats, got none: nothing to compare")
        return outputs


def _leaf(x: Tensor) -> Tensor:
    return x.detach().double().clone().requires_grad_() if x.is_floating_point() else x.detach().clone()


def _floating(outputs: object) -> Iterator[Tensor]:
    """The floating tensors in what a module gave, in their order."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _floating(value)
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        for value in outputs:
            yield from _floating(value)


def _weights(outputs: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Between 1 and 2: each output counts; equal ones would hide what keeps a sum constant, as softmax does."""
    generator = torch.Generator().manual_seed(seed)
    return [1 + torch.rand(y.shape, generator=generator).to(y) for y in outputs]


def _one_element(outputs: Sequence[Tensor], number: int, element: int) -> list[Tensor]:
    """1 for that element, 0 for all others."""
    counts = [y.numel() for y in outputs]
    if not 0 <= number < len(counts) or not 0 <= element < counts[number]:
        raise ValueError(f"output: wanted one of outputs with {counts} elements, got {(number, element)}")
    rows = [torch.zeros(count).to(y) for count, y in zip(counts, outputs, strict=True)]
    rows[number][element] = 1
    return [row.view(y.shape) for row, y in zip(rows, outputs, strict=True)]


def _away_from_kink(tensor: Tensor, kink: float, kink_range: float | None, name: str) -> Tensor:
    """The indices of the elements that are compared, (n, ndim). Raises ValueError where the kink takes them all."""
    distance = (tensor.detach().abs() - kink).abs()
    within = distance <= (-1 if kink_range is None else kink_range)
    indices = torch.nonzero(~within).cpu()
    if tensor.numel() and not len(indices):
        raise ValueError(
            f"{name}: wanted elements whose size is not within {kink_range} of the kink {kink}, all "
            f"{tensor.numel()} are; give other values, or its name to skip"
        )
    return indices


def _worst(
    objective: _Objective,
    name: str,
    tensor: Tensor,
    gradient: Tensor,
    elements: Sequence[Sequence[int]],
    stepsize: float,
    threshold: float,
) -> str | None:
    """What is to be said of the element that is furthest off, and of how many are; None where none is."""
    wrong = []
    for index in map(tuple, elements):
        analytic, numeric = gradient[index].item(), objective.difference(tensor, index, stepsize)
        scale = max(abs(analytic), abs(numeric), 1.0)
        error = abs(analytic - numeric) / scale
        if not error <= threshold:  # NaN is wrong, too
            wrong.append((error, index, analytic, numeric))
    if not wrong:
        return None
    _, index, analytic, numeric = max(wrong, key=lambda one: (math.isnan(one[0]), one[0]))
    return (
        f"{name} at {index}, value {tensor[index].item():g}: the backward pass gives {analytic:g}, "
        f"differences of {stepsize:g} give {numeric:g} ({len(wrong)} of {len(elements)} elements are wrong)"
    )
