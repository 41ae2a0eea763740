"""All numbers of a diagnosis, for blame.json, the table in the terminal and the pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detpipe.diagnosis.causes import Cause, Miss
from detpipe.diagnosis.false_detections import FalseDetection, FalseType
from detpipe.metrics.bootstrap import Resampled, or_none


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % bootstrap interval over images; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, resampled: Resampled) -> Estimate:
        """The first column."""
        low, high = resampled.interval
        return cls(value=float(resampled.value[0]), low=float(low[0]), high=float(high[0]))

    @property
    def is_positive(self) -> bool:
        """Whether the whole interval is above 0. False for NaN."""
        return self.low > 0

    @property
    def interval(self) -> list[float | None]:
        """[low, high] for JSON; None for NaN."""
        return [_rounded(self.low), _rounded(self.high)]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """The increase of the mAP by an oracle that fixes only the errors of one name.

    missed: of the missed objects of this cause alone; false: of the false detections of this type alone; None if the
    name is neither a cause nor a type. total: of both together, which differs from their sum.
    """

    total: Estimate
    missed: Estimate | None = None
    false: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The next action.

    text: one or two sentences with the evidence. at_most: the greatest increase of VOC 2010's mAP@0.5 that it can
    bring, in [0, 1]. because: the cause, type or oracle that this rests on. settings: as typed, such as
    "detect.max_proposals=2000"; empty for an action without settings.
    """

    text: str
    at_most: Estimate
    because: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """The errors of one group of objects: a class, a range of sizes, or a range of distances.

    name. objects: number of objects that are neither difficult nor crowd. missed: number by cause. false: number by
    type; empty for crowding, because a false detection has no distance to objects of its class.
    """

    name: str
    objects: int
    missed: Mapping[Cause, int]
    false: Mapping[FalseType, int]

    @property
    def n_missed(self) -> int:
        """The number of missed objects."""
        return sum(self.missed.values())

    @property
    def n_false(self) -> int:
        """The number of false detections."""
        return sum(self.false.values())


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The errors by class (in the order of the classes), by object size, and by crowding, near ones first."""

    classes: Sequence[Group]
    sizes: Sequence[Group]
    crowding: Sequence[Group]


@dataclass(frozen=True, kw_only=True)
class ChangedObject:
    """An object whose outcome differs. before: in the other run, "found" or its cause. after: in this run.

    object: its index in the image's annotation.
    """

    image: int | str
    object: int
    label: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """This run against another one on the same images.

    other: the other run folder. other_threshold: its threshold. other_map: its VOC 2010 mAP@0.5. difference: this
    minus the other, from the same resamples. p: two-sided p-value of "no difference", or NaN. changes: number of
    objects by (before, after), "found" or a cause; it includes pairs of equal outcomes. objects: the changed ones, in
    the order of images and objects.
    """

    other: str
    other_threshold: float
    other_map: Estimate
    difference: Estimate
    p: float
    changes: Mapping[tuple[str, str], int]
    objects: Sequence[ChangedObject]


@dataclass(frozen=True, kw_only=True)
class BlameResult:
    """All numbers of a diagnosis.

    dataset, classes: names. images: number of images. objects: number of objects that are neither difficult nor crowd.
    threshold: the smallest score of the detections that count. threshold_why: where it comes from.
    reduced: whether there were no traces, so that the causes are in the reduced form.
    missed: the number of missed objects by cause, and false: of false detections by type. Both have all causes and
    types, also those with 0, in the order in which they are shown.
    map: VOC 2010's mAP@0.5 of all detections. worth: by the name of a cause or type, the increase of this mAP by an
    oracle that fixes only it (`oracles.py`). Two names are both a cause and a type.
    oracle: this mAP with perfect "proposals", "classes" and "boxes"; None where it can't be computed.
    second_opinion: one sentence about the second detector that looks for objects without a label.
    advice: the most valuable first. misses, wrong: each missed object and false detection, in the order of the images.
    breakdown: by class, size and crowding. comparison: None without `against`.
    """

    dataset: str
    classes: Sequence[str]
    images: int
    objects: int
    threshold: float
    threshold_why: str
    reduced: bool
    missed: Mapping[Cause, int]
    false: Mapping[FalseType, int]
    map: Estimate
    worth: Mapping[str, Worth]
    oracle: Mapping[str, Estimate | None]
    second_opinion: str
    advice: Sequence[Advice]
    misses: Sequence[Miss]
    wrong: Sequence[FalseDetection]
    breakdown: Breakdown
    comparison: Comparison | None = None

    @property
    def n_missed(self) -> int:
        """The number of missed objects."""
        return len(self.misses)

    @property
    def n_false(self) -> int:
        """The number of false detections."""
        return len(self.wrong)

    def to_json(self) -> dict[str, Any]:
        """The content of blame.json; see docs/blame.md."""
        return {
            "missed": _counts(self.missed),
            "false": _counts(self.false),
            "n_missed": self.n_missed,
            "n_false": self.n_false,
            "threshold": _shortest(self.threshold),
            "worth": {name: _worth(one) for name, one in self.worth.items()},
            "oracle": {
                name: None if one is None else {"ap": _rounded(one.value), "interval": one.interval}
                for name, one in self.oracle.items()
            },
            "advice": [
                {
                    "text": one.text,
                    "at_most": _rounded(one.at_most.value),
                    "interval": one.at_most.interval,
                    "because": one.because,
                    "settings": list(one.settings),
                }
                for one in self.advice
            ],
            "objects": [_plain({**asdict(one), "cause": one.cause.value}) for one in self.misses],
            "detections": [
                {**_plain({**asdict(one), "type": one.type.value}), "score": _shortest(one.score)} for one in self.wrong
            ],
            "map": {"value": _rounded(self.map.value), "interval": self.map.interval},
            "n_objects": self.objects,
            "reduced": self.reduced,
            "second_opinion": self.second_opinion,
            "by_class": [_group(one) for one in self.breakdown.classes],
            "by_size": [_group(one) for one in self.breakdown.sizes],
            "by_crowding": [_group(one) for one in self.breakdown.crowding],
            "against": None if self.comparison is None else _comparison(self.comparison),
        }


def _counts(numbers: Mapping[Cause, int] | Mapping[FalseType, int]) -> dict[str, int]:
    return {one.value: number for one, number in numbers.items()}


def _dap(one: Estimate) -> dict[str, Any]:
    return {"dap": _rounded(one.value), "interval": one.interval}


def _worth(one: Worth) -> dict[str, Any]:
    """The total; the parts of a name that is both a cause and a type."""
    if one.missed is None or one.false is None:
        return _dap(one.total)
    return {**_dap(one.total), "missed": _dap(one.missed), "false": _dap(one.false)}


def _group(one: Group) -> dict[str, Any]:
    return {
        "name": one.name,
        "objects": one.objects,
        "n_missed": one.n_missed,
        "n_false": one.n_false,
        "missed": {cause: number for cause, number in _counts(one.missed).items() if number},
        "false": {kind: number for kind, number in _counts(one.false).items() if number},
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "run_dir": one.other,
        "threshold": _shortest(one.other_threshold),
        "map": {"value": _rounded(one.other_map.value), "interval": one.other_map.interval},
        "difference": {
            "value": _rounded(one.difference.value),
            "interval": one.difference.interval,
            "p": or_none(one.p),
        },
        "changes": [
            {"before": before, "after": after, "objects": number}
            for (before, after), number in one.changes.items()
            if before != after
        ],
        "objects": [asdict(changed) for changed in one.objects],
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers with four decimals, tuples as lists."""
    return {name: _value(value) for name, value in values.items()}


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, Mapping):
        return _plain(value)
    return [_value(one) for one in value] if isinstance(value, tuple | list) else value


def _shortest(score: float) -> float:
    """The number with the fewest digits that is the same float32, as the file of detections has it.

    So a script that compares the scores of this file with the threshold finds the detections that were counted.
    """
    return float(str(np.float32(score)))


def _rounded(value: float) -> float | None:
    """Four decimals; None for NaN."""
    return None if math.isnan(value) else round(value, 4) + 0.0  # no -0.0
