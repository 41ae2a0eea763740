"""The rule of experiment=auto: a table of facts and recipes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.runs.recipe import COSTS, FEW_OBJECTS, RunFacts, choose

CARDS = RunFacts(
    images=296,
    test_images=67,
    classes=6,
    objects=527,
    objects_per_class=84.5,
    object_side=0.3,
    cores=2,
    bf16=True,
)


@pytest.mark.parametrize(
    ("changes", "experiment"),
    [
        ({}, "multibox_fast_rcnn"),
        (
            {"images": 160, "test_images": 40, "classes": 1, "objects": 173, "objects_per_class": 173},
            "multibox_fast_rcnn",
        ),
        ({"images": 292, "test_images": 72, "classes": 3, "objects_per_class": 300}, "multibox_fast_rcnn"),
        ({"classes": 80, "images": 317, "objects_per_class": 12}, "rcnn_frozen"),
        ({"classes": 20, "images": 385, "objects_per_class": 45}, "rcnn_frozen"),
        ({"images": 28, "objects": 55, "objects_per_class": 9.5}, "multibox_fast_rcnn"),
        ({"classes": 20, "images": 5000, "objects_per_class": 700}, "multibox_fast_rcnn"),
        ({"objects_per_class": FEW_OBJECTS - 0.5}, "rcnn_frozen"),
        ({"objects_per_class": FEW_OBJECTS}, "multibox_fast_rcnn"),
        ({"images": 1, "test_images": 1, "classes": 1, "objects": 1, "objects_per_class": 1}, "rcnn_frozen"),
    ],
)
def test_the_rule(changes: dict[str, int], experiment: str) -> None:
    assert choose(dataclasses.replace(CARDS, **changes)).experiment == experiment


@given(cores=st.integers(1, 256), bf16=st.booleans(), side=st.floats(0.001, 1))
def test_the_machine_changes_the_cost_and_not_the_choice(cores: int, bf16: bool, side: float) -> None:
    facts = dataclasses.replace(CARDS, cores=cores, bf16=bf16, object_side=side)
    assert choose(facts).experiment == choose(CARDS).experiment
    assert all(0 < seconds < 3600 for seconds in choose(facts).seconds.values())


def test_the_sentence_names_the_recipe_the_reason_and_the_cost_of_all() -> None:
    choice = choose(dataclasses.replace(CARDS, objects_per_class=7))
    assert choice.sentence.startswith("experiment=auto uses rcnn_frozen (a head on stored features), because ")
    assert "7 training objects" in choice.sentence
    for name in COSTS.keys() - {"rcnn_frozen"}:
        assert f"experiment={name} about " in choice.sentence
    assert choice.sentence.count(" min ") + choice.sentence.count(" s") >= len(COSTS)


def test_few_objects_bring_a_hint() -> None:
    assert "compare" not in choose(CARDS).sentence
    assert "compare experiment=rcnn_frozen" in choose(dataclasses.replace(CARDS, objects_per_class=20)).sentence
    frozen = choose(dataclasses.replace(CARDS, objects_per_class=FEW_OBJECTS - 0.5))
    assert "compare" not in frozen.sentence  # it is chosen


def test_small_objects_bring_a_hint() -> None:
    assert "tiles=" not in choose(CARDS).sentence
    assert "tiles=" in choose(dataclasses.replace(CARDS, object_side=0.02)).sentence


def test_costs_by_stage() -> None:
    one_core = dataclasses.replace(CARDS, cores=1)
    stages = COSTS["multibox_fast_rcnn"].seconds(one_core)
    cost = COSTS["multibox_fast_rcnn"]
    assert [*stages] == ["propose", "train-cls", "detect"]
    assert stages["train-cls"] == pytest.approx(500 * cost.step)
    # 2.5 passes over 4,000 images, two a step: 5,000 steps.
    many = cost.seconds(dataclasses.replace(one_core, images=4000))
    assert many["train-cls"] == pytest.approx(5000 * cost.step)
    assert stages["detect"] == pytest.approx(67 * cost.detect)
    slower = cost.seconds(dataclasses.replace(one_core, bf16=False))
    assert slower["train-cls"] == pytest.approx(cost.float32 * stages["train-cls"])
    assert slower["propose"] == stages["propose"]
    frozen = COSTS["rcnn_frozen"].seconds(one_core)
    assert [*frozen] == ["propose", "features", "train-cls", "detect"]
    two = COSTS["rcnn_frozen"].seconds(dataclasses.replace(one_core, cores=2))
    assert two["detect"] == pytest.approx(frozen["detect"] / 2**0.8)
