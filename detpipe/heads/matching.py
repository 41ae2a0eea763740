"""Which prediction answers for which object.

G: objects of an image. P: predictions (one a prior). A match is (P,) int64: the object's number, BACKGROUND or IGNORED.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

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
    """Each prediction its nearest object, where it is near enough (SSD, Liu et al. 2016, section 2.2).

    overlaps: (G, P) IoU of objects and priors -> (P,). A prior is its best object's at an IoU of `positive` or more,
    and where it is one of the `at_least` priors that are nearest to the object; background below `negative`, and
    neither between the two. Of two objects that claim a prior by their nearest ones the one with the larger IoU has it.
    G = 0 gives background alone.
    """
    n_objects, n_priors = overlaps.shape
    match = torch.full((n_priors,), BACKGROUND, dtype=torch.int64, device=overlaps.device)
    if not n_objects or not n_priors:
        return match
    best = overlaps.amax(dim=0)
    match[best >= negative] = IGNORED
    near = torch.nonzero(best >= positive).squeeze(1)  # few: whose they are is asked of these alone
    match[near] = overlaps[:, near].argmax(dim=0)
    count = min(at_least, n_priors)
    if count:
        claim, owner = _claims(overlaps, count)
        # A claim counts where the two overlap at all: a prior elsewhere could learn nothing from the object.
        match = torch.where((claim > 0) & (best < positive), owner, match)
    return match


def _claims(overlaps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of each prior the largest IoU by which an object has it among its `count` nearest, and that object: (P,), (P,).

    Of equal claims the first object's; 0 where nobody claims it. Few pairs: made of them, not of all of (G, P).
    """
    near = overlaps.topk(count, dim=1)
    value, prior = (one.flatten().cpu().numpy() for one in near)
    objects = np.repeat(np.arange(len(overlaps)), count)
    order = np.lexsort((-objects, value))  # the last that is written stays
    claim, owner = np.zeros(overlaps.shape[1], dtype=value.dtype), np.zeros(overlaps.shape[1], dtype=np.int64)
    claim[prior[order]], owner[prior[order]] = value[order], objects[order]
    return torch.from_numpy(claim).to(overlaps.device), torch.from_numpy(owner).to(overlaps.device)


def without(match: Tensor, untaught: Tensor) -> Tensor:
    """The match (P,) with the priors that `untaught` (P,) bool marks ignored, unless they are an object's."""
    return torch.where(untaught & (match == BACKGROUND), torch.full_like(match, IGNORED), match)
