"""A module's gradients against central differences: `torch.autograd.gradcheck`, tensor by tensor.

Added to torch's check: it takes a module with its parameters, passes over elements near a kink as Caffe's
GradientChecker does (test_gradient_check_util.hpp), compares a sample of large tensors, and names the wrong element.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call


class GradientError(ValueError):
    """A gradient that differs from the differences of the outputs."""


def gradient_check(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    *,
    stepsize: float = 1e-5,
    threshold: float = 1e-6,
    seed: int = 1701,
    kink: float = 0.0,
    kink_range: float | None = None,
    skip: Collection[str] = (),
    max_elements: int | None = 100,
) -> dict[str, int]:
    """Compare the gradient for each input and parameter with differences of the outputs; return how many elements were.

    A copy of the module is checked, in float64 and in the mode of the module; module and inputs are not changed.
    Integer inputs, integer outputs and frozen parameters are not compared. Each forward pass starts from the same
    random numbers (dropout) and buffers. What is differentiated is the sum of all outputs, each element with its own
    weight between 1 and 2, so that a fault in any of them shows.

    inputs: what `forward` takes, any shapes; `forward` gives a tensor, or tensors in lists, tuples and dicts.
    stepsize: how far an element is moved, up and down. A module that computes in float32 needs Caffe's 1e-2.
    threshold: absolute and relative tolerance of the comparison; Caffe's for float32 is 1e-3.
    seed: of the forward passes, the outputs' weights and the choice of elements.
    kink_range: elements with | |value| - kink | <= kink_range are not compared: a ReLU needs that around 0. None: all
    are compared.
    skip: names of what has no gradient to check: `input 1`, or a parameter's name.
    max_elements: of a larger tensor so many are drawn; None: all are compared. Each costs two forward passes.

    Returns a name (`input 0`, `input 1`, ..., then the parameters') -> the number of compared elements; 0 for an empty
    tensor. Raises GradientError, naming for each wrong tensor its first wrong element and both of its numbers. Raises
    ValueError where nothing can be compared, for an unknown name, and where every element lies in the kink.
    """
    if not stepsize > 0 or not threshold > 0 or (max_elements is not None and max_elements < 1):
        raise ValueError(
            f"gradient_check: expected stepsize and threshold above 0, max_elements of at least 1, got {stepsize}, "
            f"{threshold}, {max_elements}"
        )
    if kink_range is not None and kink_range < stepsize:
        raise ValueError(f"kink_range: expected at least stepsize {stepsize}, or None, got {kink_range}")
    objective = _Objective(module, [inputs] if isinstance(inputs, Tensor) else inputs, seed)
    counts, faults = dict[str, int](), list[str]()
    generator = torch.Generator().manual_seed(seed)
    for name in objective.names(skip):
        elements = _away_from_kink(objective.tensors[name], kink, kink_range, name)
        if max_elements is not None and len(elements) > max_elements:
            elements = elements[torch.randperm(len(elements), generator=generator)[:max_elements]]
        counts[name] = len(elements)
        if objective.mismatch(name, elements, stepsize, threshold):
            single = [objective.mismatch(name, element, stepsize, threshold) for element in elements.split(1)]
            wrong = [text for text in single if text]
            faults.append(f"{wrong[0]} ({len(wrong)} of {len(elements)} elements are wrong)")
    if faults:
        raise GradientError(f"{type(module).__name__}: wrong gradients: " + "; ".join(faults))
    return counts


class _Objective:
    """A weighted sum of a module's outputs, as a function of elements of its inputs and parameters, all in float64.

    tensors: `input 0` ..., then parameters and buffers by their names.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], seed: int) -> None:
        self._module = copy.deepcopy(module).double()
        self._count, self._seed = len(inputs), seed
        named = {f"input {i}": x.double() if x.is_floating_point() else x for i, x in enumerate(inputs)}
        named |= {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        self.tensors = {name: tensor.detach() for name, tensor in named.items()}
        self._start = [y.detach() for y in self._outputs({})]
        if not self._start:
            raise ValueError(f"{type(module).__name__}: expected an output of floats, got none: nothing to compare")
        generator = torch.Generator().manual_seed(seed)
        # Equal weights would hide a fault where the sum is constant, as softmax's is.
        self._weights = [1 + torch.rand(y.shape, generator=generator).to(y) for y in self._start]

    def names(self, skip: Collection[str]) -> list[str]:
        """The floating inputs, then the parameters that need a gradient, without those of `skip`."""
        names = [name for name in list(self.tensors)[: self._count] if self.tensors[name].is_floating_point()]
        names += [name for name, parameter in self._module.named_parameters() if parameter.requires_grad]
        if unknown := set(skip) - set(names):
            raise ValueError(f"skip: expected some of {names}, got {sorted(unknown)}")
        if not set(names) - set(skip):
            raise ValueError(
                "gradient_check: expected a floating input or a parameter with a gradient, got none: nothing to compare"
            )
        return [name for name in names if name not in skip]

    def mismatch(self, name: str, elements: Tensor, stepsize: float, threshold: float) -> str:
        """What gradcheck finds wrong with the gradient for some elements, flat indices (n,); "" where nothing is."""
        tensor = self.tensors[name]

        def of_values(values: Tensor) -> Tensor:
            changed = tensor.flatten().scatter(0, elements, values).view_as(tensor)
            # Outputs are subtracted before they are summed: in a large sum the small change would be lost.
            parts = zip(self._outputs({name: changed}), self._start, self._weights, strict=True)
            # 0 * values: an output that doesn't depend on them has a gradient of 0, and not none.
            return sum(((y - start) * weight).sum() for y, start, weight in parts) + 0 * values.sum()

        values = tensor.flatten()[elements].requires_grad_()
        try:
            if len(elements):
                gradcheck(
                    of_values, (values,), eps=stepsize, atol=threshold, rtol=threshold, nondet_tol=threshold,
                    check_undefined_grad=False,
                )  # fmt: skip
        except GradcheckError as error:
            index = tuple(int(i) for i in np.unravel_index(int(elements[0]), tensor.shape))
            return f"{name} at {index}, value {values[0].item():g}: " + " ".join(str(error).split())
        return ""

    def _outputs(self, changed: Mapping[str, Tensor]) -> list[Tensor]:
        """The floating outputs in float64 of a forward pass that is the same each time."""
        # Copies, since a layer may work in place, and an output may be a parameter itself.
        state = {name: tensor.clone() for name, tensor in {**self.tensors, **changed}.items()}
        inputs = [state.pop(f"input {i}") for i in range(self._count)]
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self._seed)
            return [y.double() for y in _floating(functional_call(self._module, state, tuple(inputs)))]


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


def _away_from_kink(tensor: Tensor, kink: float, kink_range: float | None, name: str) -> Tensor:
    """The flat indices of the elements to compare, (n,). Raises ValueError where the kink takes them all."""
    distance = (tensor.flatten().abs() - kink).abs()
    elements = torch.nonzero(~(distance <= (-1 if kink_range is None else kink_range)))[:, 0]
    if tensor.numel() and not len(elements):
        raise ValueError(
            f"{name}: expected elements whose size is not within {kink_range} of the kink {kink}, all "
            f"{tensor.numel()} are; give other values, or its name to skip"
        )
    return elements
