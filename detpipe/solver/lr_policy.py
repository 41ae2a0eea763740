"""The learning rate as a function of the iteration: Caffe's policies, one formula each, and warm-up with cosine."""

from __future__ import annotations

import enum
import math
from bisect import bisect_right
from dataclasses import dataclass, field


class Policy(enum.Enum):
    """Caffe's lr_policy by name (src/caffe/solvers/sgd_solver.cpp), and cosine (Loshchilov & Hutter 2017, eq. 5)."""

    fixed = "fixed"
    step = "step"
    multistep = "multistep"
    exp = "exp"
    inv = "inv"
    poly = "poly"
    sigmoid = "sigmoid"
    cosine = "cosine"


@dataclass(kw_only=True)
class LrPolicy:
    """How the learning rate falls."""

    policy: Policy = Policy.cosine
    """Which formula; the fields below serve only some of them."""
    gamma: float = 0.1
    """step, multistep, exp, inv, sigmoid: the factor."""
    stepsize: int = 1000
    """step: iterations between two drops; sigmoid: the iteration of half the rate."""
    stepvalue: list[int] = field(default_factory=list)
    """multistep: the iterations of the drops, ascending."""
    power: float = 1.0
    """inv, poly: the exponent."""
    warmup_iter: int = 0
    """Iterations in which the rate rises linearly to where the policy then is (Goyal et al. 2017, section 2.2)."""
    warmup_start: float = 0.1
    """The share of the rate at iteration 0 of the warm-up."""

    def __post_init__(self) -> None:
        if self.stepsize < 1:
            raise ValueError(f"solver.lr.stepsize: expected at least 1, got {self.stepsize}")
        if list(self.stepvalue) != sorted(self.stepvalue):
            raise ValueError(f"solver.lr.stepvalue: expected ascending iterations, got {list(self.stepvalue)}")
        for name in ("gamma", "power"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"solver.lr.{name}: expected a finite number, got {getattr(self, name)}")
        if self.warmup_iter < 0 or not 0 <= self.warmup_start <= 1:
            raise ValueError(
                f"solver.lr: expected warmup_iter >= 0 and warmup_start in [0, 1], "
                f"got {self.warmup_iter} and {self.warmup_start}"
            )

    def factor(self, iteration: int, max_iter: int) -> float:
        """The share of the base rate at `iteration` (0 is the first) of `max_iter`.

        fixed: 1. step: gamma ^ floor(i / stepsize). multistep: gamma ^ (stepvalues <= i). exp: gamma ^ i.
        inv: (1 + gamma i) ^ -power. poly: (1 - i / max_iter) ^ power. sigmoid: 1 / (1 + exp(-gamma (i - stepsize))).
        cosine: (1 + cos(pi i / max_iter)) / 2. Raises ValueError where that is no finite number.
        """
        warmup = 1.0
        if iteration < self.warmup_iter:
            warmup = self.warmup_start + (1 - self.warmup_start) * iteration / self.warmup_iter
        try:
            factor = self._policy_factor(iteration, max_iter)
        except (OverflowError, ZeroDivisionError, TypeError) as error:  # TypeError: a root of a negative number
            raise ValueError(self._no_rate(iteration, max_iter)) from error
        if not math.isfinite(factor):
            raise ValueError(self._no_rate(iteration, max_iter))
        return warmup * factor

    def _no_rate(self, iteration: int, max_iter: int) -> str:
        return (
            f"solver.lr: expected a policy with a finite rate, got {self.policy.value} with gamma {self.gamma} "
            "and power "
            f"{self.power}, which has none at iteration {iteration} of {max_iter}"
        )

    def _policy_factor(self, iteration: int, max_iter: int) -> float:
        match self.policy:
            case Policy.fixed:
                return 1.0
            case Policy.step:
                return float(self.gamma ** (iteration // self.stepsize))
            case Policy.multistep:
                return float(self.gamma ** bisect_right(self.stepvalue, iteration))
            case Policy.exp:
                return float(self.gamma**iteration)
            case Policy.inv:
                return float((1 + self.gamma * iteration) ** -self.power)
            case Policy.poly:
                return float((1 - iteration / max_iter) ** self.power)
            case Policy.sigmoid:
                # Bounded, because exp overflows for a gamma that a user may well write.
                return 1 / (1 + math.exp(min(-self.gamma * (iteration - self.stepsize), 700.0)))
            case Policy.cosine:
                return (1 + math.cos(math.pi * iteration / max_iter)) / 2
