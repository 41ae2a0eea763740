"""Folds of images for cross-validation: every image is in one fold, and heads are trained on the other folds.

N: images. K: classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from detpipe.structures import Int64Array


def split_folds(class_counts: Int64Array, groups: Sequence[Hashable], folds: int, seed: int) -> Int64Array:
    """Return the fold of each image, (N,) in 0..folds - 1, so that each fold has its share of every class.

    class_counts: (N, K), the number of objects of each class in each image. groups: (N,), images with an equal value
    stay in one fold, as copies of one file must. Groups with rare classes are placed first, each into the fold that
    lacks most of their objects (iterative stratification, Sechidis et al. 2011, in its greedy form). A class with fewer
    images than folds is missing from some folds. With fewer groups than folds, the last folds are empty. N = 0 gives
    no rows. Raises ValueError for less than 2 folds.
    """
    if folds < 2:
        raise ValueError(f"folds: expected at least 2, got {folds}")
    names = list(dict.fromkeys(groups))
    place = {name: row for row, name in enumerate(names)}
    of_group = np.array([place[name] for name in groups], dtype=np.int64)
    # The last column counts images, so that folds also have equal numbers of images.
    counts = np.zeros((len(names), class_counts.shape[1] + 1))
    np.add.at(counts, of_group, np.concatenate([class_counts, np.ones((len(class_counts), 1))], axis=1))
    total = np.maximum(counts.sum(axis=0), 1)
    shares = counts / total
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-shares[order].max(axis=1, initial=0), kind="stable")]
    filled = np.zeros((folds, counts.shape[1]))
    fold_of_group = np.zeros(len(names), dtype=np.int64)
    for group in order:
        # The sum of squares after placing it is least where most of its classes are missing.
        fold = int(((filled + shares[group]) ** 2 - filled**2).sum(axis=1).argmin())
        fold_of_group[group] = fold
        filled[fold] += shares[group]
    return fold_of_group[of_group]
