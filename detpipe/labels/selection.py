"""Selection of images to label next: by scores, by k-centre on image features, and at random as a control.

N: candidates. M: images that are labelled already. F: length of an image feature.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from detpipe.structures import BoolArray, Float32Array, Float64Array, Int64Array

POOL = 4
"""A criterion with scores chooses among this many times as many images, those with the highest scores."""
_AT_ONCE = 4096
"""Candidates whose distances to the labelled images are computed at a time."""


class Criterion(enum.Enum):
    """Why an image is chosen."""

    uncertain = "uncertain"
    """The detector is not sure: scores near the threshold, or two classes for one object."""
    disagreement = "disagreement"
    """Proposer and classifier disagree on whether there is an object."""
    different = "different"
    """It differs from the labelled images and from the other chosen ones."""
    random = "random"
    """At random, as a control: what selection is worth is the difference from these images."""


@dataclass(kw_only=True)
class SelectionShares:
    """The share of the chosen images by criterion. They are divided by their sum."""

    uncertain: float = 0.3
    """Share of images on which the detector is uncertain near its score threshold."""
    disagreement: float = 0.2
    """Share of images on which proposer and classifier disagree."""
    different: float = 0.3
    """Share of images that differ from the labelled and the other chosen ones (k-centre)."""
    random: float = 0.2
    """Share of images that are chosen at random, as a control."""

    def __post_init__(self) -> None:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if min(values.values()) < 0 or not 0 < sum(values.values()) < float("inf"):
            given = ", ".join(f"shares.{name}={value:g}" for name, value in values.items())
            raise ValueError(f"shares: expected shares of at least 0 with a finite sum above 0, got {given}")

    def numbers(self, count: int) -> dict[Criterion, int]:
        """The number of images by criterion: the shares of `count`, rounded by largest remainder."""
        shares = np.array([getattr(self, one.value) for one in Criterion], dtype=np.float64)
        exact = shares / shares.sum() * count
        numbers = np.floor(exact + 1e-9).astype(int)
        most = np.argsort(-(exact - numbers), kind="stable")[: count - int(numbers.sum())]
        numbers[most] += 1
        return dict(zip(Criterion, numbers.tolist(), strict=True))


@dataclass(frozen=True)
class Chosen:
    """A chosen candidate. distance: to the nearest labelled or earlier chosen image; infinite if there is none."""

    index: int
    criterion: Criterion
    distance: float


def select(
    scores: Mapping[Criterion, Float64Array],
    features: Float32Array,
    labelled: Float32Array,
    *,
    count: int,
    shares: SelectionShares,
    generator: np.random.Generator,
) -> list[Chosen]:
    """Choose at most `count` of N candidates.

    scores: (N,) of `uncertain` and `disagreement`, the higher the better; 0 says nothing for the image. features:
    (N, F) and labelled: (M, F), see `comparable`.

    The control is drawn first, from all candidates alike, so that it is a random sample. Then a criterion with scores
    takes the best POOL times as many images as it needs, and from these by k-centre, which avoids near-duplicates.
    `different` takes by k-centre from all that are left, and also what a criterion could not fill. The order mixes the
    criteria, so that the first images have about the same shares as all. No candidates give [].
    """
    total = min(count, len(features))
    numbers = shares.numbers(total)
    centres = Centres(features, labelled)
    found: dict[Criterion, list[Chosen]] = {one: [] for one in Criterion}
    for index in generator.permutation(len(features))[: numbers[Criterion.random]].tolist():
        found[Criterion.random].append(Chosen(index, Criterion.random, centres.add(index)))
    for criterion in (Criterion.uncertain, Criterion.disagreement):
        wanted = numbers[criterion]
        open_scores = np.where(centres.chosen, 0.0, scores[criterion])
        best = np.argsort(-open_scores, kind="stable")[: POOL * wanted]
        pool = np.zeros(len(features), dtype=np.bool_)
        pool[best[open_scores[best] > 0]] = True
        found[criterion] = centres.take(wanted, pool, criterion)
    left = total - sum(map(len, found.values()))
    found[Criterion.different] = centres.take(left, np.ones(len(features), dtype=np.bool_), Criterion.different)
    return mixed(found)


def mixed(found: Mapping[Criterion, list[Chosen]]) -> list[Chosen]:
    """The lists merged so that each is spread evenly over the result."""
    places = [
        ((place + 0.5) / len(own), order, one)
        for order, own in enumerate(found.values())
        for place, one in enumerate(own)
    ]
    return [one for *_, one in sorted(places, key=lambda place: place[:2])]


class Centres:
    """Greedy k-centre (Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    ICLR 2018, algorithm 1): takes the candidate whose nearest centre is farthest.

    The centres are the labelled images and the candidates that are taken. chosen: (N,), whether a candidate is taken.
    """

    def __init__(self, features: Float32Array, labelled: Float32Array) -> None:
        self._features = features
        self._nearest = nearest_distances(features, labelled)
        self.chosen: BoolArray = np.zeros(len(features), dtype=np.bool_)

    def add(self, index: int) -> float:
        """Take a candidate; returns its distance to the nearest earlier centre."""
        distance = float(self._nearest[index])
        self.chosen[index] = True
        np.minimum(self._nearest, _distances(self._features, self._features[index : index + 1])[:, 0], self._nearest)
        return distance

    def take(self, count: int, allowed: BoolArray, criterion: Criterion) -> list[Chosen]:
        """Take up to `count` of the allowed candidates, (N,), that are not taken yet. Of equal ones the first."""
        taken: list[Chosen] = []
        while len(taken) < count and (allowed & ~self.chosen).any():
            index = int(np.where(allowed & ~self.chosen, self._nearest, -1.0).argmax())
            taken.append(Chosen(index, criterion, self.add(index)))
        return taken


def comparable(labelled: Float32Array, candidates: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Features (M, F) and (N, F) standardised over both and divided by their length, so that distances are 0 to 2.

    A column without variance becomes 0, and so does a row that equals the mean.
    """
    every = np.concatenate([labelled, candidates]).astype(np.float64)
    if not len(every):
        return labelled, candidates
    deviation = every.std(axis=0)
    centred = np.divide(every - every.mean(axis=0), deviation, out=np.zeros_like(every), where=deviation > 0)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0).astype(np.float32)
    return unit[: len(labelled)], unit[len(labelled) :]


def nearest_distances(features: Float32Array, centres: Float32Array) -> Float64Array:
    """The Euclidean distance of each feature to the nearest centre: (N, F), (M, F) -> (N,); infinite if M = 0."""
    nearest = np.full(len(features), np.inf)
    for start in range(0, len(features) if len(centres) else 0, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        nearest[part] = _distances(features[part], centres).min(axis=1)
    return nearest


def _distances(first: Float32Array, second: Float32Array) -> Float64Array:
    one, other = first.astype(np.float64), second.astype(np.float64)
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def shares_below(values: Float64Array) -> Float64Array:
    """For each value the share of all values that are lower: (N,) -> (N,) in [0, 1). Equal values get equal shares."""
    order = np.sort(values)
    below: Int64Array = np.searchsorted(order, values, side="left")
    return below / max(len(values), 1)
