"""The part of a training that regions and whole images share; their own tests run it."""

from __future__ import annotations

from detpipe.network.train_network import training_key


def test_what_is_only_watched_is_not_in_the_key() -> None:
    one = {"solver": {"max_iter": 5, "display": 1, "snapshot": 7, "snapshot_keep": 2, "test_interval": 3}, "seed": 0}
    assert training_key(one) == {"solver": {"max_iter": 5}, "seed": 0}
    assert training_key({}) == {}
