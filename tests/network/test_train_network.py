"""The part of a training that regions and whole images share; their own tests run it."""

from __future__ import annotations

from detpipe.network.train_network import training_key


def test_what_is_only_watched_is_not_in_the_key() -> None:
    one = {"solver": {"max_iter": 5, "display": 1, "snapshot": 7, "snapshot_keep": 2, "test_interval": 3}, "seed": 0}
    assert training_key(one) == {"solver": {"max_iter": 5}, "seed": 0}
    assert training_key({}) == {}


def test_what_came_later_is_in_the_key_where_it_is_not_as_before() -> None:
    before = {"classifier": {"head": {"hidden": 2, "multibox": {"priors": 9}}}, "head": {"hidden": 3}}
    now = {
        "classifier": {"head": {"hidden": 2, "box_loss": "smooth_l1", "multibox": {"priors": 9, "cells": 6.0}}},
        "head": {"hidden": 3, "sync_batch_norm": False, "box_loss_beta": 1.0, "box_loss": "smooth_l1"},
    }
    other = {"classifier": {"head": {"box_loss": "giou", "multibox": {"cells": 12.0}}}}
    assert training_key(now) == before
    assert training_key(other) == other
