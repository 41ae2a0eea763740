"""Selecting layers by the rules `include` and `exclude` (Caffe's Net::FilterNet and StateMeetsRule)."""

from __future__ import annotations

from collections.abc import Collection

from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, NetParameter, NetState, NetStateRule, Phase


def select_layers(net: NetParameter, *, train: bool, level: int = 0, stages: Collection[str] = ()) -> NetParameter:
    """A copy of the net with the layers for a phase, level and stages, which are also stored in its `state`.

    A layer with `include` is kept if one of its rules is met. A layer with `exclude` is kept if none is met. A layer
    without rules is always kept. Raises ValueError for a layer with both.
    """
    state = NetState(phase=Phase.TRAIN if train else Phase.TEST, level=level, stage=sorted({*net.state.stage, *stages}))
    selected = NetParameter()
    selected.CopyFrom(net)
    selected.state.CopyFrom(state)
    del selected.layer[:]
    selected.layer.extend(layer for layer in net.layer if is_included(layer, state))
    return selected


def is_included(layer: LayerParameter, state: NetState) -> bool:
    """Whether a layer is part of the net in this state."""
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name!r}: expected include or exclude, got both")
    if layer.include:
        return any(meets(state, rule) for rule in layer.include)
    return not any(meets(state, rule) for rule in layer.exclude)


def meets(state: NetState, rule: NetStateRule) -> bool:
    """Whether the state has the rule's phase, a level in its range, all of its stages, and none of its not_stages."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )
