"""Checks a module's gradients against central differences with `torch.autograd.gradcheck`, tensor by tensor.

Beyond torch's check, it takes a module with its parameters, skips elements near a kink as Caffe's GradientChecker does
(test_gradient_check_util.hpp), compares a random sample of large tensors, and names the wrong element.
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
    """A gradient differs from the central differences of the outputs."""


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
    """Compare the gradients of all inputs and parameters with central differences of the outputs.

    A copy of the module is checked in float64, in the module's own mode (training or evaluation). Module and inputs
    are not changed. Integer inputs, integer outputs and frozen parameters are not compared. Each forward pass starts
    from the same random state (dropout) and buffers. The function that is differentiated is the sum of all outputs,
    each element times a random weight between 1 and 2, so that an error in any of them shows.

    inputs: the arguments of `forward`, of any shapes. `forward` returns tensors, also in lists, tuples and dicts.
    stepsize: the step of the differences. A module that computes in float32 needs 1e-2, as in Caffe.
    threshold: absolute and relative tolerance; 1e-3 in Caffe for float32.
    seed: of the forward passes, the outputs' weights and the choice of elements.
    kink, kink_range: elements with | |value| - kink | <= kink_range are not compared. A ReLU needs this around 0.
    None: all are compared.
    skip: names of inputs (`input 1`) and parameters that are not checked.
    max_elements: the number of random elements that are compared in a larger tensor; None: all. Each costs two forward
    passes.

    Returns the number of compared elements by name (`input 0`, `input 1`, ..., then parameter names); 0 for an empty
    tensor. Raises GradientError, which names the first wrong element of each wrong tensor and both values. Raises
    ValueError if there is nothing to compare, for an unknown name, and if all elements are near the kink.
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
    """The weighted sum of a module's outputs as a function of elements of its inputs and parameters, in float64.

    tensors: `input 0` ..., then parameters and buffers by name.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], seed: int) -> None:
        self._module = copy.deepcopy(module).double()
        self._count, self._seed = len(inputs), seed
        named = {f"input {i}": x.double() if x.is_floating_point() else x for i, x in enumerate(inputs)}
        named |= {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        self.tensors = {name: tensor.detach() for name, tensor in named.items()}
        self._start = [y.detach() for y in self._outputs({})]
        if not self._start:
            raise ValueError(f"{type(module).__name__}: expected a floating-point output to compare, got none")
        generator = torch.Generator().manual_seed(seed)
        # Equal weights would hide errors if the sum of the outputs is constant, as for softmax.
        self._weights = [1 + torch.rand(y.shape, generator=generator).to(y) for y in self._start]

    def names(self, skip: Collection[str]) -> list[str]:
        """The floating-point inputs, then the parameters that require a gradient, without those in `skip`."""
        names = [name for name in list(self.tensors)[: self._count] if self.tensors[name].is_floating_point()]
        names += [name for name, parameter in self._module.named_parameters() if parameter.requires_grad]
        if unknown := set(skip) - set(names):
            raise ValueError(f"skip: expected some of {names}, got {sorted(unknown)}")
        if not set(names) - set(skip):
            raise ValueError(
                "gradient_check: expected a floating-point input or a parameter with a gradient to compare, got none"
            )
        return [name for name in names if name not in skip]

    def mismatch(self, name: str, elements: Tensor, stepsize: float, threshold: float) -> str:
        """The error that gradcheck reports for some elements of a tensor, flat indices (n,); "" if there is none."""
        tensor = self.tensors[name]

        def of_values(values: Tensor) -> Tensor:
            changed = tensor.flatten().scatter(0, elements, values).view_as(tensor)
            # The unchanged outputs are subtracted before summing, else rounding of a large sum would hide the change.
            parts = zip(self._outputs({name: changed}), self._start, self._weights, strict=True)
            # 0 * values: if no output depends on the values, their gradient is 0 instead of missing.
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
        """The floating-point outputs of a deterministic forward pass, in float64."""
        # Copies, because a layer may work in place, and an output may be a parameter itself.
        state = {name: tensor.clone() for name, tensor in {**self.tensors, **changed}.items()}
        inputs = [state.pop(f"input {i}") for i in range(self._count)]
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self._seed)
            return [y.double() for y in _floating(functional_call(self._module, state, tuple(inputs)))]


def _floating(outputs: object) -> Iterator[Tensor]:
    """The floating-point tensors in the result of a module, in order."""
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
    """The flat indices (n,) of the elements to compare. Raises ValueError if all elements are near the kink."""
    distance = (tensor.flatten().abs() - kink).abs()
    elements = torch.nonzero(~(distance <= (-1 if kink_range is None else kink_range)))[:, 0]
    if tensor.numel() and not len(elements):
        raise ValueError(
            f"{name}: expected elements with an absolute value more than {kink_range} from the kink {kink}, got none "
            f"among {tensor.numel()}; use other values, or add {name!r} to skip"
        )
    return elements
