from __future__ import annotations

import pytest

from detpipe.backbone.caffe.net_state import select_layers
from detpipe.backbone.caffe.prototxt import parse_prototxt


def names(rules: str, **state: object) -> list[str]:
    net = parse_prototxt(f'layer {{ name: "always" type: "ReLU" }} layer {{ name: "one" type: "ReLU" {rules} }}')
    return [layer.name for layer in select_layers(net, **{"train": False, **state}).layer]


IN, OUT = ["always", "one"], ["always"]


@pytest.mark.parametrize(
    ("rules", "state", "wanted"),
    [
        ("include { phase: TEST }", {}, IN),
        ("include { phase: TRAIN }", {}, OUT),
        ("include { phase: TRAIN }", {"train": True}, IN),
        ("exclude { phase: TEST }", {}, OUT),
        ("exclude { phase: TRAIN }", {}, IN),
        ("include { phase: TRAIN } include { phase: TEST }", {}, IN),  # any rule
        ("include { min_level: 1 }", {}, OUT),
        ("include { min_level: 1 max_level: 2 }", {"level": 2}, IN),
        ("include { max_level: 2 }", {"level": 3}, OUT),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, OUT),  # all stages
        ('include { stage: "a" stage: "b" }', {"stages": ["b", "a"]}, IN),
        ('include { not_stage: "a" }', {"stages": ["a"]}, OUT),
        ('include { phase: TEST stage: "a" }', {}, OUT),  # all of a rule
        ("include { }", {}, IN),
        ("exclude { }", {}, OUT),
    ],
)
def test_rules(rules: str, state: dict[str, object], wanted: list[str]) -> None:
    assert names(rules, **state) == wanted


def test_both_kinds_of_rules_are_an_error() -> None:
    with pytest.raises(ValueError, match="layer 'one': expected include or exclude, got both"):
        names("include { } exclude { }")


def test_the_nets_own_stages_count() -> None:
    net = parse_prototxt('state { stage: "a" } layer { name: "one" include { stage: "a" stage: "b" } }')
    assert len(select_layers(net, train=True, stages=["b"]).layer) == 1
    assert len(select_layers(net, train=True).layer) == 0
    assert len(net.layer) == 1  # a copy
