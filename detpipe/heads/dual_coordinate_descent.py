"""The solver of the linear SVM (Hsieh et al. 2008, algorithm 3, with shrinking), compiled by numba.

It is imported only when an SVM is trained, because importing numba takes seconds. scikit-learn's LinearSVC, the
liblinear of R-CNN, is not used: it copies the features to float64 and can't start from the duals of an earlier round.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detpipe.jit import compiled_reordered

Float64Array = npt.NDArray[np.float64]


@compiled_reordered
def descend(
    x: npt.NDArray[np.float32],
    signs: Float64Array,
    upper: Float64Array,
    duals: Float64Array,
    bias_feature: float,
    tolerance: float,
    max_passes: int,
    seed: int,
) -> Float64Array:
    """Solve the dual problem in place. Returns the weights (D + 1,), the sum of dual x sign x feature vector.

    x: (N, D). bias_feature: the value of an additional constant feature. signs: (N,), 1 or -1. upper: (N,), the upper
    bounds C_i. duals: (N,), initial values on input, the solution on output.
    """
    n, d = x.shape
    norms, weight = np.empty(n), np.zeros(d + 1)
    for i in range(n):
        total = bias_feature * bias_feature
        for j in range(d):
            total += np.float64(x[i, j]) * np.float64(x[i, j])
        norms[i] = total
        if duals[i] > 0.0:
            for j in range(d):
                weight[j] += duals[i] * signs[i] * np.float64(x[i, j])
            weight[d] += duals[i] * signs[i] * bias_feature
    active = np.arange(n)
    size = n
    # Shrinking: a dual at its bound is skipped if its gradient is outside the projected gradients of the last pass.
    highest, lowest = np.inf, -np.inf
    np.random.seed(seed)  # noqa: NPY002 - numba's own generator, which only this function uses
    for _ in range(max_passes):
        high, low = -np.inf, np.inf
        np.random.shuffle(active[:size])  # noqa: NPY002
        index = 0
        while index < size:
            i = active[index]
            score = weight[d] * bias_feature
            for j in range(d):
                score += weight[j] * np.float64(x[i, j])
            gradient = signs[i] * score - 1.0
            projected = gradient
            shrink = False
            if duals[i] <= 0.0:
                shrink = gradient > highest
                projected = min(gradient, 0.0)
            elif duals[i] >= upper[i]:
                shrink = gradient < lowest
                projected = max(gradient, 0.0)
            if shrink:
                size -= 1
                active[index], active[size] = active[size], active[index]
                continue
            high, low = max(high, projected), min(low, projected)
            if abs(projected) > 1e-12:
                before = duals[i]
                duals[i] = min(max(before - gradient / norms[i], 0.0), upper[i])
                change = (duals[i] - before) * signs[i]
                for j in range(d):
                    weight[j] += change * np.float64(x[i, j])
                weight[d] += change * bias_feature
            index += 1
        if high - low <= tolerance:
            if size == n:
                break
            size, highest, lowest = n, np.inf, -np.inf  # check the skipped duals again
            continue
        highest = high if high > 0 else np.inf
        lowest = low if low < 0 else -np.inf
    return weight
