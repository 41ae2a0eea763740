"""Which settings belong to a training's key."""

from __future__ import annotations

from dataclasses import fields

import pytest

from detpipe.solver.solver_config import (
    ELSEWHERE,
    LATER,
    WATCHING,
    Optimizer,
    Regularization,
    SolverConfig,
    result_settings,
)
from detpipe.storage.manifest import digest_of, plain

FIRST_FORM = (
    *("type", "max_iter", "epochs", "base_lr", "lr", "momentum", "weight_decay", "new_lr_mult", "batch_size"),
    *("iter_size", "clip_gradients"),
)
"""What the keys of the first runs held."""


def test_old_keys_stay() -> None:
    """A run folder that was made before the later fields came is still that of the same settings."""
    settings = result_settings(plain(SolverConfig()))
    assert tuple(settings) == FIRST_FORM
    assert digest_of(settings) == "68161ecfab43406789d901e4cb2964d2"


def test_later_fields_count_where_they_are_set() -> None:
    config = SolverConfig(
        type=Optimizer.caffe_adam, regularization_type=Regularization.l1, ema=0.9, lr_mult={"a": 2.0}, delta=0.1
    )
    assert result_settings(plain(config)).keys() - FIRST_FORM == {"regularization_type", "ema", "lr_mult", "delta"}


def test_what_is_watched_does_not_count() -> None:
    config = SolverConfig(
        display=1, debug_info=True, snapshot_best="val_loss", average_loss=3, prefetch_threads=4, resume="none"
    )
    assert result_settings(plain(config)) == result_settings(plain(SolverConfig()))


def test_every_field_has_its_place() -> None:
    names = {one.name for one in fields(SolverConfig)}
    assert names == {*FIRST_FORM} | WATCHING | ELSEWHERE | LATER
    assert len(names) == len(FIRST_FORM) + len(WATCHING) + len(ELSEWHERE) + len(LATER)


def test_no_settings() -> None:
    assert result_settings({}) == {}


@pytest.mark.parametrize(("random_seed", "seed"), [(None, 7), (0, 0), (3, 3)])
def test_the_seed(random_seed: int | None, seed: int) -> None:
    assert SolverConfig(random_seed=random_seed).seed(7) == seed
