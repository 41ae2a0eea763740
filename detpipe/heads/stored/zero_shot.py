"""Zero-shot learning: a bilinear map between features and class vectors, learned from the classes with boxes.

ESZSL (Romera-Paredes & Torr 2015, "An embarrassingly simple approach to zero-shot learning", eq. 4): the map V that
minimises |X V S' - Y|^2 + g |V S'|^2 + l |X V|^2 + g l |V|^2 has a closed form. The score of a class with vector s is
x V s, also for classes without training examples. A class without a vector is an error.

N: number of regions. D: feature width. E: length of a class vector. K: number of classes, with and without boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from detpipe.heads.stored.feature_head import (
    Examples,
    FeatureHead,
    StoredHeadConfig,
    joined,
    scores_by_class,
    sigmoid_by_class,
)
from detpipe.heads.stored.platt import platt
from detpipe.storage.input_file import check_input, read_input
from detpipe.storage.npy_file import read_npy
from detpipe.structures import Float32Array

MAX_VECTOR_BYTES = 1 << 30
"""Largest accepted file of class vectors: a million classes with 256 numbers each."""


class ZeroShotHead(FeatureHead):
    """sigmoid(slope (x V) . s_k + offset). Slope and offset are shared, because unseen classes have no examples.

    projection: V, (D, E). vectors: (K, E), with norm 1. slope, offset: ().
    """

    projection: Tensor
    vectors: Tensor
    slope: Tensor
    offset: Tensor
    SHARED = ("mean", "scale", "projection", "slope", "offset")

    @property
    def n_classes(self) -> int:
        return len(self.vectors)

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        del geometry
        slope, offset = self.slope.expand(self.n_classes), self.offset.expand(self.n_classes)
        return sigmoid_by_class(self.margins(x), slope, offset)

    def margins(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, K): about 1 for regions of the class, about -1 for others."""
        return scores_by_class(x @ self.projection, self.vectors, torch.zeros(self.n_classes))


@dataclass(kw_only=True)
class ZeroShotConfig(StoredHeadConfig):
    """Zero-shot learning with class vectors, for example text embeddings, which are close for similar classes."""

    MODULE: ClassVar[type[FeatureHead]] = ZeroShotHead

    NEEDS_EACH: ClassVar[bool] = False
    USES_CLASS_VECTORS: ClassVar[bool] = True

    vectors: str | None = None
    """A .npy file of class vectors, (classes, E) float. A .txt file with the same stem has the class names, one per
    line."""
    feature_ridge: float = 0.1
    """Regularisation of the map for the features, relative to N times their mean variance (g in ESZSL)."""
    vector_ridge: float = 0.1
    """Regularisation of the map for the class vectors, which have norm 1 (l in ESZSL)."""
    negative_iou: float = 0.3
    """Regions whose IoU with every object of the class is below this are its negatives."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.feature_ridge > 0 and self.vector_ridge > 0 and 0 < self.negative_iou <= 1):
            raise ValueError(
                "head: expected feature_ridge and vector_ridge above 0 and negative_iou in (0, 1], got "
                f"{self.feature_ridge}, {self.vector_ridge}, {self.negative_iou}"
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise unless each class has a vector."""
        vectors_of(self._path(), classes)

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> FeatureHead:
        """Fit the map on the classes that have regions. All classes are scored by their vectors.

        Raises ValueError if no class has regions, if a class has no vector, or if the files have another format.
        """
        del seed, bf16  # a closed form
        vectors = vectors_of(self._path(), examples.classes)
        seen = [label for label in range(1, len(examples.classes) + 1) if (examples.labels == label).any()]
        if not seen:
            raise ValueError("zero-shot head: expected regions of at least one class to fit the map, got none")
        tensors = {
            "projection": torch.from_numpy(self._map(examples, vectors[np.array(seen) - 1], seen)),
            "vectors": torch.from_numpy(vectors),
            "slope": torch.ones(()),
            "offset": torch.zeros(()),
            **shared,
            **self._boxes(examples),
        }
        slope, offset = self._calibration(ZeroShotHead(**tensors), examples, seen)
        return ZeroShotHead(**{**tensors, "slope": torch.tensor(slope), "offset": torch.tensor(offset)})

    def check_class(self, head: FeatureHead, name: str) -> None:
        """Raise unless the class has a vector of the same length as the others."""
        length, known = vectors_of(self._path(), [name]).shape[1], head.tensors()["vectors"].shape[1]
        if length != known:
            raise ValueError(f"{self.vectors}: expected vectors of {known} numbers as in the classifier, got {length}")

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int, bf16: bool = False) -> FeatureHead:
        """Add the last class by its vector only. The map and the scores of the other classes do not change."""
        del seed, bf16
        vector = torch.from_numpy(vectors_of(self._path(), examples.classes[-1:]))
        one = {"vectors": vector, "box_weight": head.box_weight[:1], "box_bias": head.box_bias[:1]}
        return joined(head, ZeroShotHead(**{**head.tensors(), **one}))

    def _path(self) -> Path:
        if self.vectors is None:
            raise ValueError("head.vectors: expected a .npy file of class vectors, got none; set head.vectors=FILE.npy")
        return Path(self.vectors)

    def _map(self, examples: Examples, vectors: Float32Array, seen: Sequence[int]) -> Float32Array:
        """V of eq. 4, (D, E): (X'X + g)^-1 X' Y S (S'S + l)^-1. Y is 1 for regions with the class's label, else -1."""
        targets = np.stack([np.where(examples.labels == label, 1.0, -1.0) for label in seen], axis=1)
        x, s = examples.features, vectors.astype(np.float64)
        gram = (x.T @ x).astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.feature_ridge * np.trace(gram) / len(gram)
        left = np.linalg.solve(gram, (x.T @ targets.astype(np.float32)).astype(np.float64) @ s)
        right = s.T @ s + self.vector_ridge * np.eye(s.shape[1])
        return np.asarray(np.linalg.solve(right, left.T).T, dtype=np.float32)

    def _calibration(self, head: ZeroShotHead, examples: Examples, seen: Sequence[int]) -> tuple[float, float]:
        """Slope and offset from margin to probability, fitted on the examples of all seen classes."""
        margins = head.margins(torch.from_numpy(examples.features)).numpy()
        scores, positive = [], []
        for label in seen:
            rows = np.concatenate([examples.positives(label), examples.negatives(label, self.negative_iou)])
            scores.append(margins[rows, label - 1])
            positive.append(examples.labels[rows] == label)
        return platt(np.concatenate(scores), np.concatenate(positive))

    def _boxes(self, examples: Examples) -> dict[str, Tensor]:
        """One box regression from all objects, used for every class, because unseen classes have no examples."""
        together = Examples(
            features=examples.features,
            geometry=examples.geometry,
            labels=np.minimum(examples.labels, 1),
            ious=examples.ious,
            deltas=examples.deltas,
            class_ious=examples.class_ious.max(axis=1, keepdims=True),
            classes=("any",),
        )
        one = self.box_tensors(together, [1])
        count = len(examples.classes)
        return {name: tensor.repeat(count, *[1] * (tensor.ndim - 1)) for name, tensor in one.items()}


def vectors_of(path: Path, classes: Sequence[str]) -> Float32Array:
    """Read the vectors of these classes, (K, E) float32 with norm 1, from PATH.npy and the names in PATH.txt.

    Raises FileNotFoundError; ValueError if the file is not a 2-D float array of finite numbers, if a name stands there
    twice, or if a class has no vector.
    """
    names_path = path.with_suffix(".txt")
    for file in (path, names_path):
        if not file.exists():
            raise FileNotFoundError(
                f"{file}: expected class vectors (.npy) and their names (.txt) in one folder; there is no such file"
            )
    check_input(path, "class vectors (.npy)")
    if path.stat().st_size > MAX_VECTOR_BYTES:
        raise ValueError(
            f"{path}: expected class vectors of at most {MAX_VECTOR_BYTES} bytes, got {path.stat().st_size}"
        )
    stored = read_npy(path, "a .npy file of class vectors")
    names = _names(names_path)
    if stored.dtype.kind != "f" or stored.ndim != 2 or len(stored) != len(names):
        raise ValueError(
            f"{path}: expected one vector for each of the {len(names)} names in {names_path}, got {stored.shape} "
            f"{stored.dtype}"
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{names_path}: expected each class once, got several lines of {twice}; remove all but one")
    missing = [name for name in classes if name not in names]
    if missing:
        raise ValueError(f"{names_path}: expected a vector for each class, got none for {missing}")
    chosen = stored[[names.index(name) for name in classes]].astype(np.float32)
    norms = np.linalg.norm(chosen, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise ValueError(f"{path}: expected finite vectors that are not 0, got others; check the file")
    return np.asarray(chosen / norms, dtype=np.float32)


def _names(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises ValueError for other bytes than UTF-8."""
    try:
        text = read_input(path, "the names of the class vectors, one per line").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected class names in UTF-8, got other bytes at {error.start}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
