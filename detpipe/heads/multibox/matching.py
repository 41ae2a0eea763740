"""Assigning objects to priors: bipartite, or by IoU.

G: number of objects in an image. P: number of priors. A match is (P,) int64: for each prior the index of its object,
BACKGROUND or IGNORED.
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
    """Match each object with one prior so that the total cost is minimal (Erhan et al. 2014, eq. 3 and 4).

    (G, P) costs -> (P,). All other priors are background. With more objects than priors, those with the highest cost
    stay unmatched. G = 0 gives only background. Raises ValueError for a cost of NaN.
    """
    match = torch.full((cost.shape[1],), BACKGROUND, dtype=torch.int64, device=cost.device)
    if cost.numel():
        rows, columns = linear_sum_assignment(cost.detach().float().cpu().numpy())
        match[torch.from_numpy(columns).to(cost.device)] = torch.from_numpy(rows).to(cost.device)
    return match


def many_to_one(overlaps: Tensor, *, positive: float, negative: float, at_least: int) -> Tensor:
    """Assign priors to objects by IoU (SSD, Liu et al. 2016, section 2.2).

    overlaps: (G, P) IoU of objects and priors -> (P,). The first rule that applies to a prior decides:

    1. Each object gets its best prior, even if that prior overlaps another object more. If two objects have the same
       best prior, the object with the larger IoU gets it, and the other gets its best prior of those that are left.
    2. A prior with an IoU of `positive` or more is assigned to the object that it overlaps most.
    3. A prior that is among the `at_least` best of an object is assigned to it; of several such objects, to the one
       with the largest IoU.
    4. A prior with an IoU below `negative` is background. All others are ignored.

    Rules 1 and 3 need an IoU above 0: a prior that does not touch the object could learn nothing from it. With
    at_least = 0 they do not apply, and an object may get no prior. Equal IoUs go to the object with the lower index.
    G = 0 gives only background.
    """
    n_objects, n_priors = overlaps.shape
    match = torch.full((n_priors,), BACKGROUND, dtype=torch.int64, device=overlaps.device)
    if not n_objects or not n_priors:
        return match
    best = overlaps.amax(dim=0)
    match[best >= negative] = IGNORED
    near = torch.nonzero(best >= positive).squeeze(1)  # only a few priors, so argmax over all would be slower
    match[near] = overlaps[:, near].argmax(dim=0)
    if at_least:
        # The other objects take at most G - 1 priors, so the G best are enough to find a free one.
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
    """The priors that are among an object's best with an IoU above 0, each once, and the object with the largest IoU.

    values, priors: (G, k), IoU and index of each object's best priors. Returns prior and object indices, (n,) int64.
    """
    owners = {int(priors[row, column]): row for row, column in reversed(_from_the_best(values))}
    return _tensor(owners.keys()), _tensor(owners.values())


def _best_priors(values: Float32Array, priors: Int64Array) -> tuple[Tensor, Tensor]:
    """One prior for each object, no prior twice: pairs are taken greedily from the largest IoU down.

    values, priors: (G, k), IoU and index of each object's best priors, k = G or all priors. Returns prior and object
    indices, (n,) int64. An object is left out if all priors that overlap it are taken.
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
    """Rows and columns of the values above 0, in descending order of value; equal values by ascending row."""
    rows, columns = np.nonzero(values > 0)
    order = np.argsort(-values[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _tensor(numbers: Iterable[int]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int64)


def without(match: Tensor, ignored: Tensor) -> Tensor:
    """The match (P,) with those background priors set to IGNORED that `ignored`, (P,) bool, marks."""
    return torch.where(ignored & (match == BACKGROUND), torch.full_like(match, IGNORED), match)
