"""Caffe's update rules (src/caffe/solvers/*.cpp) as a torch optimiser.

Notation: w is a parameter, g its gradient plus weight decay, r = base_lr x policy factor x lr_mult. Products of tensors
are element-wise. A parameter without a gradient has g = 0, as in Caffe, so it still decays.

Caffe's velocity includes the learning rate: v = m v + r g, w = w - v. torch.optim.SGD applies it outside: v = m v + g,
w = w - r v. With a fixed rate both are the same. When the rate falls, Caffe's velocity keeps the old rate for about
1 / (1 - m) more iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from detpipe.solver.solver_config import Regularization

State = dict[str, Any]
"""The state of one parameter: tensors of its shape by name, and Adam's step count."""


class Rule(Protocol):
    """A function that returns the update to subtract from a parameter. It changes `state` in place."""

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor: ...


@dataclass(frozen=True)
class Sgd:
    """v = momentum v + r g; w = w - v."""

    momentum: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        velocity = memory(state, "velocity", gradient)
        return velocity.mul_(self.momentum).add_(gradient, alpha=rate)


@dataclass(frozen=True)
class Nesterov:
    """v' = momentum v + r g; w = w - ((1 + momentum) v' - momentum v) (Sutskever et al. 2013, eq. 3 and 4, shifted)."""

    momentum: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        velocity = memory(state, "velocity", gradient)
        before = velocity.clone()
        velocity.mul_(self.momentum).add_(gradient, alpha=rate)
        return (1 + self.momentum) * velocity - self.momentum * before


@dataclass(frozen=True)
class AdaGrad:
    """h = h + g^2; w = w - r g / (sqrt(h) + delta) (Duchi et al. 2011)."""

    delta: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        history = memory(state, "history", gradient).addcmul_(gradient, gradient)
        return rate * gradient / (history.sqrt() + self.delta)


@dataclass(frozen=True)
class RmsProp:
    """h = rms_decay h + (1 - rms_decay) g^2; w = w - r g / (sqrt(h) + delta) (Tieleman & Hinton 2012)."""

    rms_decay: float
    delta: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        history = memory(state, "history", gradient)
        history.mul_(self.rms_decay).addcmul_(gradient, gradient, value=1 - self.rms_decay)
        return rate * gradient / (history.sqrt() + self.delta)


@dataclass(frozen=True)
class AdaDelta:
    """h = m h + (1 - m) g^2; u = g sqrt((k + delta) / (h + delta)); k = m k + (1 - m) u^2; w = w - r u.

    Zeiler 2012, algorithm 1; his rho is Caffe's momentum, and his rate is 1.
    """

    momentum: float
    delta: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        gradients, updates = memory(state, "gradients", gradient), memory(state, "updates", gradient)
        gradients.mul_(self.momentum).addcmul_(gradient, gradient, value=1 - self.momentum)
        update = gradient * ((updates + self.delta) / (gradients + self.delta)).sqrt()
        updates.mul_(self.momentum).addcmul_(update, update, value=1 - self.momentum)
        return rate * update


@dataclass(frozen=True)
class Adam:
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w = w - r sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + delta).

    Kingma & Ba 2015, section 2, last paragraph: t starts at 1, and delta is their epsilon-hat. It is added to the
    uncorrected root, whereas torch adds epsilon to the corrected one.
    """

    momentum: float
    momentum2: float
    delta: float

    def __call__(self, state: State, gradient: Tensor, rate: float) -> Tensor:
        first, second = memory(state, "first", gradient), memory(state, "second", gradient)
        first.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
        second.mul_(self.momentum2).addcmul_(gradient, gradient, value=1 - self.momentum2)
        t: int = state.get("t", 0) + 1
        state["t"] = t
        correction = math.sqrt(1 - self.momentum2**t) / (1 - self.momentum**t)
        return rate * correction * first / (second.sqrt() + self.delta)


class CaffeOptimizer(torch.optim.Optimizer):
    """Applies a rule to groups of parameters, each with "lr" and "weight_decay".

    decoupled: subtract the decay r x decay x w from the weight directly instead of adding it to the gradient (AdamW,
    Loshchilov & Hutter 2019, algorithm 2).
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, rule: Rule, regularization: Regularization, decoupled: bool = False
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self._rule = rule
        self._regularization = regularization
        self._decoupled = decoupled

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter once with its current gradient."""
        assert closure is None, "Caffe's rules evaluate the gradient once per step"
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                decay = self._decay(parameter, group["weight_decay"])
                if decay is not None and not self._decoupled:
                    gradient = gradient + decay
                update = self._rule(self.state[parameter], gradient, group["lr"])
                if decay is not None and self._decoupled:
                    update = update + group["lr"] * decay
                parameter.sub_(update)

    def _decay(self, parameter: Tensor, weight_decay: float) -> Tensor | None:
        if not weight_decay:
            return None
        return weight_decay * (parameter.sign() if self._regularization is Regularization.l1 else parameter)


def memory(state: State, name: str, like: Tensor) -> Tensor:
    """The tensor `name` of the state; created with zeros of the shape of `like` on first use."""
    if name not in state:
        state[name] = torch.zeros_like(like, memory_format=torch.preserve_format)
    tensor: Tensor = state[name]
    return tensor


def clip_summed_gradients(parameters: list[Tensor], limit: float, iter_size: int) -> float:
    """Scale all gradients in place so that their total L2 norm is at most `limit`. Returns the norm before scaling.

    The gradients are means over `iter_size` batches. Caffe clips their sum, before it divides by iter_size. So the norm
    here is iter_size times the norm of the means (sgd_solver.cpp, ApplyUpdate). No gradients give 0.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    squares = sum((float(gradient.double().square().sum()) for gradient in gradients), 0.0)
    norm = math.sqrt(squares) * iter_size
    if norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
    return norm
