"""Which settings belong to a training's key."""

from __future__ import annotations

from dataclasses import fields

import pytest

from detpipe.solver.solver_config import (
    ELSEWHERE,
    WATCHING,
    Optimizer,
    Regularization,
    SolverConfig,
    result_settings,
)
from detpipe.storage.manifest import digest_of, plain

RESULT = (
    *("type", "max_iter", "epochs", "base_lr", "lr", "momentum", "weight_decay", "new_lr_mult", "batch_size"),
    *("iter_size", "clip_gradients", "momentum2", "rms_decay", "delta", "regularization_type"),
    *("lr_mult", "decay_mult", "ema"),
)
"""The fields that change the result of a training."""


def test_the_key_has_all_settings_that_change_the_result() -> None:
    assert tuple(result_settings(plain(SolverConfig()))) == RESULT
    values = [SolverConfig(), SolverConfig(ema=0.9), SolverConfig(lr_mult={"a": 2.0}), SolverConfig(delta=0.1)]
    values.append(SolverConfig(type=Optimizer.caffe_adam, regularization_type=Regularization.l1))
    assert len({digest_of(result_settings(plain(one))) for one in values}) == len(values)


def test_what_is_watched_does_not_count() -> None:
    config = SolverConfig(
        display=1, debug_info=True, snapshot_best="val_loss", average_loss=3, prefetch_threads=4, resume="none"
    )
    assert result_settings(plain(config)) == result_settings(plain(SolverConfig()))


def test_every_field_has_its_place() -> None:
    names = {one.name for one in fields(SolverConfig)}
    assert names == {*RESULT, "min_epochs"} | WATCHING | ELSEWHERE
    assert len(names) == len(RESULT) + 1 + len(WATCHING) + len(ELSEWHERE)


def test_a_key_without_min_epochs_is_that_of_earlier_versions() -> None:
    assert "min_epochs" not in result_settings({"min_epochs": 0.0, "max_iter": 3})
    assert result_settings({"min_epochs": 2.0}) == {"min_epochs": 2.0}


def test_no_settings() -> None:
    assert result_settings({}) == {}


@pytest.mark.parametrize(("random_seed", "seed"), [(None, 7), (0, 0), (3, 3)])
def test_the_seed(random_seed: int | None, seed: int) -> None:
    assert SolverConfig(random_seed=random_seed).seed(7) == seed
