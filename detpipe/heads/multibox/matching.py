"""Which prediction answers for which object.

G: objects of an image. P: predictions (one a prior). A match is (P,) int64: the object's number, BACKGROUND or IGNORED.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detpipe.structures import Float32Array, Int64Array

BACKGROUND, IGNORED = -1, -2


def bipartite(cost: Tensor) -> Tensor:
    """Each object its own prediction, so that the sum of costs is least (Erhan et al. 2014, eq. 3 and 4).

    (G, P) -> (P,); all others are background. More objects than predictions leave the dearest ones without.
    G = 0 or P = 0 gives background alone. Raises ValueError for a cost that is no number.
    """
    match = torch.full((cost.shape[1],), BACKGROUND, dtype=torch.int64, device=cost.device)
    if cost.numel():
        rows, columns = linear_sum_assignment(cost.detach().float().cpu().numpy())
        match[torch.from_numpy(columns).to(cost.device)] = torch.from_numpy(rows).to(cost.device)
    return match


def many_to_one(overlaps: Tensor, *, positive: float, negative: float, at_least: int) -> Tensor:
    """Assigns priors to objects by IoU (SSD, Liu et al. 2016, section 2.2).

    overlaps: (G, P) IoU of objects and priors -> (P,). The first rule that applies to a prior decides:

    1. Each object gets its best prior, even if that prior overlaps another object more. If two objects have the same
       best prior, the object with the larger IoU gets it, and the other gets its best prior of those that are left.
    2. A prior with an IoU of `positive` or more is assigned to the object that it overlaps most.
    3. A prior that is among the `at_least` best of an object is assigned to it; of several such objects, to the one
       with the largest IoU.
    4. A prior with an IoU below `negative` is background. All others are ignored.

    Rules 1 and 3 need an IoU above 0: a prior elsewhere could learn nothing from the object. With at_least = 0 they do
    not apply, and an object may get no prior. Equal IoUs go to the object with the lower number. G = 0 gives
    background alone.
    """
    n_objects, n_priors = overlaps.shape
    match = torch.full((n_priors,), BACKGROUND, dtype=torch.int64, device=overlaps.device)
    if not n_objects or not n_priors:
        return match
    best = overlaps.amax(dim=0)
    match[best >= negative] = IGNORED
    near = torch.nonzero(best >= positive).squeeze(1)  # few: whose they are is asked of these alone
    match[near] = overlaps[:, near].argmax(dim=0)
    if at_least:
        # Other objects take fewer than G priors, so an object's own one is among its G best.
        nearest = overlaps.topk(min(max(at_least, n_objects), n_priors), dim=1)
        values, priors = nearest.values.cpu().numpy(), nearest.indices.cpu().numpy()
        claimed, claimant = _claims(values[:, :at_least], priors[:, :at_least])
        claimed, claimant = claimed.to(match.device), claimant.to(match.device)
        free = best[claimed] < positive
        match[claimed[free]] = claimant[free]
        forced, owner = _best_priors(values, priors)
        match[forced.to(match.device)] = owner.to(match.device)
    return match


def _claims(values: Float32Array, priors: Int64Array) -> tuple[Tensor, Tensor]:
    """The priors that objects claim with an IoU above 0, each once, and of each the object with the largest IoU.

    values, priors: (G, k), IoU and number of each object's best priors -> (n,), (n,) int64.
    """
    owners = {int(priors[row, column]): row for row, column in reversed(_from_the_best(values))}
    return _tensor(owners.keys()), _tensor(owners.values())


def _best_priors(values: Float32Array, priors: Int64Array) -> tuple[Tensor, Tensor]:
    """A prior for each object, none twice, and the objects: pairs are taken from the largest IoU down.

    values, priors: (G, k), IoU and number of each object's best priors, k = G or all priors -> (n,), (n,) int64. An
    object has none where all that overlap it are taken.
    """
    taken: dict[int, int] = {}
    served = set[int]()
    for row, column in _from_the_best(values):
        prior = int(priors[row, column])
        if row not in served and prior not in taken:
            taken[prior] = row
            served.add(row)
            if len(served) == len(values):
                break
    return _tensor(taken.keys()), _tensor(taken.values())


def _from_the_best(values: Float32Array) -> list[tuple[int, int]]:
    """Rows and columns of the values above 0, from the largest to the smallest; of equal ones the lower row first."""
    rows, columns = np.nonzero(values > 0)
    order = np.argsort(-values[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _tensor(numbers: Iterable[int]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int64)


def without(match: Tensor, untaught: Tensor) -> Tensor:
    """The match (P,) with the priors that `untaught` (P,) bool marks ignored, unless they are an object's."""
    return torch.where(untaught & (match == BACKGROUND), torch.full_like(match, IGNORED), match)
