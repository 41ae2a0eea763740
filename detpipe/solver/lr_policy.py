"""Learning rate schedules: Caffe's policies, cosine decay, and linear warm-up."""

from __future__ import annotations

import enum
import math
from bisect import bisect_right
from dataclasses import dataclass, field, replace


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
    """The schedule of the learning rate."""

    policy: Policy = Policy.cosine
    """The schedule. Each of the other settings applies only to the schedules that it names."""
    gamma: float = 0.1
    """Factor of the decay for step, multistep, exp, inv and sigmoid."""
    stepsize: int = 1000
    """For step: iterations between two drops. For sigmoid: the iteration at which the rate is half."""
    stepvalue: list[int] = field(default_factory=list)
    """For multistep: the iterations of the drops, ascending."""
    power: float = 1.0
    """Exponent of the decay for inv and poly."""
    warmup_iter: int = 0
    """Iterations of linear warm-up, for all schedules (Goyal et al. 2017, section 2.2); 0: no warm-up."""
    warmup_start: float = 0.1
    """Factor of the learning rate at the start of the warm-up, 0 to 1."""

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

    def factor(self, iteration: int, max_iter: int, stretch: float = 1.0) -> float:
        """The factor of the base rate at `iteration` (from 0) of `max_iter`.

        stretch: the schedule, but not the warm-up, takes this many times as many iterations as its settings say.

        fixed: 1. step: gamma ^ floor(i / stepsize). multistep: gamma ^ (stepvalues <= i). exp: gamma ^ i.
        inv: (1 + gamma i) ^ -power. poly: (1 - i / max_iter) ^ power. sigmoid: 1 / (1 + exp(-gamma (i - stepsize))).
        cosine: (1 + cos(pi i / max_iter)) / 2. Raises ValueError if the result is not finite.
        """
        warmup = 1.0
        if iteration < self.warmup_iter:
            warmup = self.warmup_start + (1 - self.warmup_start) * iteration / self.warmup_iter
        try:
            at = iteration if stretch == 1 else int(iteration / stretch)
            # Poly and cosine are shares of max_iter, so they are stretched with it.
            relative = self.policy in (Policy.poly, Policy.cosine)
            factor = self._policy_factor(iteration if relative else at, max_iter)
        except (OverflowError, ZeroDivisionError, TypeError) as error:  # TypeError: a root of a negative number
            raise ValueError(self._not_finite(iteration, max_iter)) from error
        if not math.isfinite(factor):
            raise ValueError(self._not_finite(iteration, max_iter))
        return warmup * factor

    def stretched(self, factor: float) -> LrPolicy:
        """The schedule over `factor` times as many iterations, its warm-up unchanged. Raises ValueError for 0."""
        if not factor > 0:
            raise ValueError(f"factor: expected a positive number, got {factor}")
        gamma = self.gamma
        if self.policy is Policy.exp and gamma > 0:
            gamma = gamma ** (1 / factor)
        elif self.policy in (Policy.inv, Policy.sigmoid):
            gamma /= factor
        return replace(
            self,
            gamma=gamma,
            stepsize=max(1, round(self.stepsize * factor)),
            stepvalue=[round(one * factor) for one in self.stepvalue],
        )

    def _not_finite(self, iteration: int, max_iter: int) -> str:
        return (
            f"solver.lr: expected a finite learning rate, got none from {self.policy.value} with gamma {self.gamma} "
            f"and power {self.power} at iteration {iteration} of {max_iter}; change solver.lr.gamma or solver.lr.power"
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
                # Bounded, because exp would overflow for some usual values of gamma.
                return 1 / (1 + math.exp(min(-self.gamma * (iteration - self.stepsize), 700.0)))
            case Policy.cosine:
                return (1 + math.cos(math.pi * iteration / max_iter)) / 2
