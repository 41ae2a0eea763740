"""The solver: updates against their formulas (as Caffe's test_gradient_based_solver.cpp), and resumes to the byte."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.parameter_groups import parameter_groups
from detpipe.solver.prefetch import Prefetcher
from detpipe.solver.snapshot import SnapshotError, best_path, find_snapshots, load_snapshot
from detpipe.solver.solver import DivergedError
from detpipe.solver.solver_config import Optimizer, Regularization, SolverConfig
from detpipe.storage.interrupt import Interrupted
from tests.solver.least_squares import (
    WIDTH,
    Array,
    Batch,
    DropoutNetwork,
    Training,
    doubles,
    draw_batch,
    gradient,
    linear,
)
from tests.solver.least_squares import solver_config as config

FIXED = LrPolicy(policy=Policy.fixed)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small spend their time on waking threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- The update against its formula -------------------------------------------------------------------------------


@pytest.mark.parametrize("iter_size", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_is_its_formula(tmp_path: Path, momentum: float, weight_decay: float, iter_size: int) -> None:
    """v = momentum v + (gradient + decay w), w = w - lr v, with lr by policy and group; biases don't decay."""
    network, steps = linear(), 6
    w, b = network.weight.detach().numpy().T.copy(), network.bias.detach().numpy().copy()
    groups = [
        {"params": [network.weight], "names": ["weight"], "lr_mult": 1.0, "weight_decay": weight_decay},
        {"params": [network.bias], "names": ["bias"], "lr_mult": 10.0, "weight_decay": 0.0},
    ]
    policy = LrPolicy(policy=Policy.inv, gamma=0.5, power=0.75)
    settings = config(
        type=Optimizer.sgd, momentum=momentum, weight_decay=weight_decay, iter_size=iter_size, lr=policy, max_iter=steps
    )
    Training(tmp_path, network, settings, make_batch=doubles, groups=groups).run()
    v_w, v_b = np.zeros_like(w), np.zeros_like(b)
    for step in range(steps):
        g_w, g_b = gradient(w, b, [doubles(step * iter_size + part) for part in range(iter_size)])
        v_w, v_b = momentum * v_w + g_w + weight_decay * w, momentum * v_b + g_b
        lr = 0.01 * (1 + 0.5 * step) ** -0.75
        w, b = w - lr * v_w, b - 10 * lr * v_b
    np.testing.assert_allclose(network.weight.detach().numpy().T, w, rtol=1e-10)
    np.testing.assert_allclose(network.bias.detach().numpy(), b, rtol=1e-10)


def test_adamw_is_its_formula(tmp_path: Path) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, with beta 0.8 and 0.999, eps 1e-8: decay beside the moments."""
    network, steps, decay, beta1, beta2 = linear(), 6, 0.1, 0.8, 0.999
    w, b = network.weight.detach().numpy().T.copy(), network.bias.detach().numpy().copy()
    settings = config(type=Optimizer.adamw, momentum=beta1, weight_decay=decay, lr=FIXED, max_iter=steps)
    Training(tmp_path, network, settings, make_batch=doubles).run()
    moments = [np.zeros_like(p) for p in (w, w, b, b)]
    for step in range(1, steps + 1):
        for which, g in enumerate(gradient(w, b, [doubles(step - 1)])):
            moments[2 * which] = beta1 * moments[2 * which] + (1 - beta1) * g
            moments[2 * which + 1] = beta2 * moments[2 * which + 1] + (1 - beta2) * g**2
        (move_w, move_b) = (
            (moments[2 * which] / (1 - beta1**step)) / (np.sqrt(moments[2 * which + 1] / (1 - beta2**step)) + 1e-8)
            for which in (0, 1)
        )
        w, b = w - 0.01 * move_w - 0.01 * decay * w, b - 0.01 * move_b
    np.testing.assert_allclose(network.weight.detach().numpy().T, w, rtol=1e-9)
    np.testing.assert_allclose(network.bias.detach().numpy(), b, rtol=1e-9)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    def large(number: int) -> Batch:
        parts = [doubles(4 * number + part) for part in range(4)]
        return torch.cat([x for x, _ in parts]), torch.cat([t for _, t in parts])

    small, big = linear(), linear()
    Training(tmp_path / "a", small, config(iter_size=4, max_iter=10), make_batch=doubles).run()
    Training(tmp_path / "b", big, config(max_iter=10), make_batch=large).run()
    torch.testing.assert_close(small.state_dict(), big.state_dict(), rtol=1e-9, atol=1e-12)


def test_clipping_bounds_the_length_of_the_gradient(tmp_path: Path) -> None:
    network = linear()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = config(
        type=Optimizer.sgd, momentum=0.0, weight_decay=0.0, lr=FIXED, base_lr=1.0, max_iter=1, clip_gradients=0.125
    )
    Training(tmp_path, network, settings, make_batch=doubles).run()
    moved = torch.cat([(network.state_dict()[name] - tensor).ravel() for name, tensor in before.items()])
    assert float(moved.norm()) == pytest.approx(0.125, rel=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    network = nn.Linear(WIDTH, 1)
    training = Training(tmp_path, network, config(max_iter=300, base_lr=0.05, weight_decay=0.0))
    training.run()
    np.testing.assert_allclose(network.weight.detach().numpy(), [[1, -2, 0.5, 0]], atol=0.1)
    assert training.rows()[-1]["val_loss"] < 0.05


# --- Resuming -----------------------------------------------------------------------------------------------------


class PowerCutError(Exception):
    """Ends a training as a kill would: nothing is saved."""


def cut_at(batch: int) -> Callable[[int], None]:
    def cut(number: int) -> None:
        if number == batch:
            raise PowerCutError

    return cut


def signal_at(batch: int, number: signal.Signals) -> Callable[[int], None]:
    def send(now: int) -> None:
        if now == batch:
            os.kill(os.getpid(), number)

    return send


RULES = [
    {"type": Optimizer.adamw},
    {"type": Optimizer.sgd, "momentum": 0.9, "clip_gradients": 1.0},
    {"type": Optimizer.adamw, "iter_size": 2, "lr": LrPolicy(policy=Policy.poly, warmup_iter=15)},
    {"type": Optimizer.caffe_sgd, "iter_size": 2, "prefetch_threads": 3, "ema": 0.9},
    {"type": Optimizer.caffe_nesterov, "average_loss": 7, "prefetch_threads": 8},
    {"type": Optimizer.caffe_adagrad, "momentum": 0.0, "snapshot_best": "val_loss", "test_interval": 7},
    {"type": Optimizer.caffe_rmsprop, "momentum": 0.0, "regularization_type": Regularization.l1},
    {"type": Optimizer.caffe_adadelta, "clip_gradients": 1.0},
    {"type": Optimizer.caffe_adam, "ema": 0.5, "average_loss": 3},
    {"type": Optimizer.caffe_adamw, "test_initialization": True},
]


@pytest.mark.parametrize("rule", RULES)
def test_killed_and_resumed_is_the_same_to_the_byte(tmp_path: Path, rule: dict[str, Any]) -> None:
    unbroken = Training(tmp_path / "unbroken", DropoutNetwork(), config(**rule))
    unbroken.run()
    settings, per_iteration = config(**rule), rule.get("iter_size", 1)
    for kill in (3, 17, 28):  # before the first snapshot, and after two of them
        killed = Training(tmp_path / "killed", DropoutNetwork(), settings)
        done = max([int(path.stem[5:]) for path in find_snapshots(tmp_path / "killed" / "snapshots")], default=0)
        killed.on_batch = cut_at((kill - done) * per_iteration)
        with pytest.raises(PowerCutError):
            killed.run()
    torch.rand(17)  # the global generator is elsewhere than in an unbroken run
    # Another number of threads that make batches: their order is the same.
    resumed = Training(tmp_path / "killed", DropoutNetwork(), replace(settings, prefetch_threads=2))
    summary = resumed.run()
    assert resumed.batches == 20 * per_iteration
    assert summary["iterations"] == 40
    assert resumed.state() == unbroken.state()
    assert resumed.rows() == unbroken.rows()
    shown = {*range(5, 41, 5), *range(settings.test_interval, 40, settings.test_interval)}
    shown |= {0} if settings.test_initialization else set()
    assert [row["iteration"] for row in resumed.rows()] == sorted(shown)
    folders = ("killed", "unbroken") if settings.snapshot_best else ()
    best = [load_snapshot(best_path(tmp_path / name / "snapshots")) for name in folders]
    for one in best:
        assert one["iteration"] == best[0]["iteration"]
        torch.testing.assert_close(one["model"], best[0]["model"], rtol=0, atol=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rule", RULES[:2])
def test_a_signal_saves_after_the_running_iteration(
    tmp_path: Path, number: signal.Signals, rule: dict[str, Any]
) -> None:
    unbroken = Training(tmp_path / "unbroken", DropoutNetwork(), config(**rule))
    unbroken.run()
    settings = config(**rule, snapshot=0)
    stopped = Training(tmp_path / "stopped", DropoutNetwork(), settings, on_batch=signal_at(12, number))
    with pytest.raises(Interrupted, match=rf"{number.name}: snapshot written to .*iter_0000013\.pt"):
        stopped.run()
    resumed = Training(tmp_path / "stopped", DropoutNetwork(), settings)
    resumed.run()
    assert resumed.batches == 27
    assert resumed.state() == unbroken.state()
    assert resumed.rows() == unbroken.rows()


def test_a_signal_at_the_last_iteration(tmp_path: Path) -> None:
    settings = config(max_iter=5)
    stopped = Training(tmp_path, DropoutNetwork(), settings, on_batch=signal_at(4, signal.SIGINT))
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = Training(tmp_path, DropoutNetwork(), settings)
    assert resumed.run()["iterations"] == 5
    assert resumed.batches == 0
    assert resumed.state() == stopped.state()
    assert resumed.rows() == stopped.rows()


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    one = Training(tmp_path / "one", DropoutNetwork(), config(max_iter=3), seed=1)
    two = Training(tmp_path / "two", DropoutNetwork(), config(max_iter=3), seed=2)
    one.run()
    two.run()
    assert one.state() != two.state()


def test_a_training_leaves_the_global_random_numbers_as_they_were(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    Training(tmp_path, DropoutNetwork(), config(max_iter=3), seed=1).run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_snapshot_of_another_training_is_refused(tmp_path: Path) -> None:
    first = Training(tmp_path, DropoutNetwork(), config(), on_batch=cut_at(15))
    with pytest.raises(PowerCutError):
        first.run()
    with pytest.raises(SnapshotError, match=r"iter_0000010\.pt: expected a snapshot of this training.*delete"):
        Training(tmp_path, DropoutNetwork(), config(), key="other").run()


def test_a_broken_snapshot_is_named_and_the_one_before_serves(tmp_path: Path) -> None:
    unbroken = Training(tmp_path / "unbroken", DropoutNetwork(), config())
    unbroken.run()
    first = Training(tmp_path / "broken", DropoutNetwork(), config(), on_batch=cut_at(25))
    with pytest.raises(PowerCutError):
        first.run()
    newest = find_snapshots(tmp_path / "broken" / "snapshots")[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(SnapshotError, match="iter_0000020") as caught:
        Training(tmp_path / "broken", DropoutNetwork(), config()).run()
    assert "delete it to resume from the one before" in str(caught.value)
    newest.unlink()
    resumed = Training(tmp_path / "broken", DropoutNetwork(), config())
    resumed.run()
    assert resumed.batches == 30
    assert resumed.state() == unbroken.state()
    assert resumed.rows() == unbroken.rows()


def test_watching_closer_does_not_change_the_training(tmp_path: Path) -> None:
    one = Training(tmp_path / "one", DropoutNetwork(), config())
    two = Training(tmp_path / "two", DropoutNetwork(), config(display=1, test_interval=3, snapshot=7))
    one.run()
    two.run()
    assert one.state() == two.state()


def test_old_snapshots_go(tmp_path: Path) -> None:
    Training(tmp_path, DropoutNetwork(), config(snapshot=5, snapshot_keep=3)).run()
    names = [path.name for path in find_snapshots(tmp_path / "snapshots")]
    assert names == ["iter_0000025.pt", "iter_0000030.pt", "iter_0000035.pt"]


# --- Where a training starts --------------------------------------------------------------------------------------


def test_a_snapshot_can_be_named(tmp_path: Path) -> None:
    unbroken = Training(tmp_path, DropoutNetwork(), config(snapshot_keep=9))
    unbroken.run()
    named = find_snapshots(tmp_path / "snapshots")[0]
    resumed = Training(tmp_path, DropoutNetwork(), config(resume=str(named), snapshot_keep=9))
    resumed.run()
    assert resumed.batches == 30
    assert resumed.state() == unbroken.state()
    assert resumed.rows() == unbroken.rows()
    with pytest.raises(SnapshotError, match=r"expected a snapshot of this training.*solver\.resume"):
        Training(tmp_path / "other", DropoutNetwork(), config(resume=str(named)), key="other").run()


def test_a_snapshot_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"gone\.pt: expected a snapshot"):
        Training(tmp_path, DropoutNetwork(), config(resume=str(tmp_path / "gone.pt"))).run()


def test_without_resuming_a_training_starts_anew(tmp_path: Path) -> None:
    first = Training(tmp_path, DropoutNetwork(), config(snapshot_best="val_loss"))
    first.run()
    again = Training(tmp_path, DropoutNetwork(), config(resume="none", max_iter=15), max_iter=15, key="another")
    again.run()
    assert again.batches == 15
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["iter_0000010.pt"]


def test_weights_to_start_from(tmp_path: Path) -> None:
    source = DropoutNetwork()
    with torch.no_grad():
        source.head.weight.fill_(0.25)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    training = Training(tmp_path / "run", DropoutNetwork(), config(max_iter=0, weights=str(tmp_path / "w.pt")))
    training.run()
    assert training.state()["head.weight"] == source.head.weight.detach().numpy().tobytes()


def test_a_snapshot_wins_over_the_weights_that_its_training_started_from(tmp_path: Path) -> None:
    torch.save(linear().float().state_dict(), tmp_path / "w.pt")
    settings = config(weights=str(tmp_path / "w.pt"))
    unbroken = Training(tmp_path / "unbroken", nn.Linear(WIDTH, 1), settings)
    unbroken.run()
    with pytest.raises(PowerCutError):
        Training(tmp_path / "killed", nn.Linear(WIDTH, 1), settings, on_batch=cut_at(15)).run()
    resumed = Training(tmp_path / "killed", nn.Linear(WIDTH, 1), settings)
    resumed.run()
    assert resumed.batches == 30
    assert resumed.state() == unbroken.state()


def test_either_a_snapshot_or_weights() -> None:
    with pytest.raises(ValueError, match=r"solver\.resume=a\.pt and solver\.weights=b\.pt: expected one of them"):
        SolverConfig(resume="a.pt", weights="b.pt")
    assert SolverConfig(resume="none", weights="b.pt").weights == "b.pt"


# --- What can be watched, kept and averaged -----------------------------------------------------------------------


def test_a_hangup_saves_and_goes_on(tmp_path: Path) -> None:
    unbroken = Training(tmp_path / "unbroken", DropoutNetwork(), config())
    unbroken.run()
    training = Training(tmp_path / "hung", DropoutNetwork(), config(snapshot=0))
    training.on_batch = signal_at(12, signal.SIGHUP)
    training.run()
    assert [path.name for path in find_snapshots(tmp_path / "hung" / "snapshots")] == ["iter_0000013.pt"]
    assert training.state() == unbroken.state()


def test_the_best_weights_stay(tmp_path: Path) -> None:
    numbers = iter([0.5, 0.8, 0.7, 0.8])
    training = Training(tmp_path, DropoutNetwork(), config(snapshot_best="val_accuracy", test_interval=10))
    training.validate = lambda: {"val_accuracy": next(numbers)}  # type: ignore[method-assign]
    training.run()
    best = load_snapshot(best_path(tmp_path / "snapshots"))
    assert (best["iteration"], best["val_accuracy"]) == (20, 0.8)
    held = load_snapshot(find_snapshots(tmp_path / "snapshots")[0])
    assert held["iteration"] == 20
    torch.testing.assert_close(best["model"], held["model"], rtol=0, atol=0)


def test_a_number_that_no_validation_gives_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"solver\.snapshot_best: expected one of val_loss, got accuracy"):
        Training(tmp_path, DropoutNetwork(), config(snapshot_best="accuracy")).run()


def test_snapshots_have_the_name_that_is_asked_for(tmp_path: Path) -> None:
    settings = config(snapshot_prefix="examples/mnist/lenet", snapshot_after_train=True, snapshot_best="val_loss")
    Training(tmp_path, DropoutNetwork(), settings).run()
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == ["lenet_best.pt", "lenet_iter_0000030.pt", "lenet_iter_0000040.pt"]
    resumed = Training(tmp_path, DropoutNetwork(), replace(settings, snapshot_prefix="other"))
    resumed.run()
    assert resumed.batches == 0


def test_a_validation_before_the_first_iteration(tmp_path: Path) -> None:
    network = DropoutNetwork()
    training = Training(tmp_path, network, config(max_iter=5, test_initialization=True))
    before = training.state()
    network.eval()
    wanted = training.validate()["val_loss"]
    training.run()
    assert training.rows()[0] == {"iteration": 0, "val_loss": pytest.approx(wanted, abs=1e-6)}
    plain = Training(tmp_path / "plain", DropoutNetwork(), config(max_iter=5))
    assert plain.state() == before
    plain.run()
    assert plain.state() == training.state()


def test_the_smoothed_loss_is_the_mean_of_the_last(tmp_path: Path) -> None:
    training = Training(tmp_path, DropoutNetwork(), config(max_iter=8, average_loss=3, display=1))
    training.run()
    losses = [row["loss"] for row in training.rows()]
    wanted = [sum(losses[max(0, i - 2) : i + 1]) / min(3, i + 1) for i in range(8)]
    assert [row["smoothed_loss"] for row in training.rows()] == pytest.approx(wanted, abs=2e-6)


def test_debug_info_tells_of_each_layer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Training(tmp_path / "one", DropoutNetwork(), config(max_iter=2))
    one.run()
    two = Training(tmp_path / "two", DropoutNetwork(), config(max_iter=2, debug_info=True))
    with caplog.at_level("INFO"):
        two.run()
    lines = [record.message for record in caplog.records]
    for wanted in (
        "iteration 1 [Forward] layer hidden, data: ",
        "iteration 2 [Backward] layer head, gradient: ",
        "iteration 2 [Update] hidden.weight, data: ",
        "iteration 2 [Update] all parameters (data, gradient): L1 norm = (",
    ):
        assert sum(line.startswith(wanted) for line in lines) == 1, wanted
    assert one.state() == two.state()


def test_the_running_average_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    seen: list[Array] = []
    network = linear()
    plain = Training(tmp_path / "plain", linear(), config(max_iter=6, display=1, test_interval=1), make_batch=doubles)

    def note() -> Mapping[str, float]:
        seen.append(plain.network.state_dict()["weight"].numpy().copy())
        return {}

    start = network.weight.detach().numpy().copy()
    plain.validate = note  # type: ignore[method-assign]
    plain.run()
    average = start
    for weight in seen[:6]:
        average = 0.75 * average + 0.25 * weight
    averaged = Training(tmp_path / "ema", network, config(max_iter=6, ema=0.75, test_interval=0), make_batch=doubles)
    validated: list[Array] = []

    def look() -> Mapping[str, float]:
        validated.append(network.weight.detach().numpy().copy())
        return {}

    averaged.validate = look  # type: ignore[method-assign]
    averaged.run()
    np.testing.assert_allclose(network.weight.detach().numpy(), average, rtol=1e-12)
    np.testing.assert_array_equal(validated[-1], network.weight.detach().numpy())


def test_the_random_seed_of_the_settings_wins(tmp_path: Path) -> None:
    one = Training(tmp_path / "one", DropoutNetwork(), config(max_iter=3, random_seed=5), seed=1)
    two = Training(tmp_path / "two", DropoutNetwork(), config(max_iter=3), seed=5)
    one.run()
    two.run()
    assert one.state() == two.state()


def test_a_policy_without_a_rate_is_refused_before_the_first_iteration(tmp_path: Path) -> None:
    policy = LrPolicy(policy=Policy.exp, gamma=1e10)
    training = Training(tmp_path, DropoutNetwork(), config(lr=policy))
    with pytest.raises(ValueError, match=r"solver\.lr: expected a finite learning rate, got none from exp"):
        training.run()
    assert training.batches == 0


def test_a_prototxt_that_nobody_read_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"solver\.prototxt=a\.prototxt: .*use read_solver_prototxt"):
        Training(tmp_path, DropoutNetwork(), config(prototxt="a.prototxt")).run()


# --- What else can happen -----------------------------------------------------------------------------------------


def test_a_diverged_training_is_an_error_of_its_own(tmp_path: Path) -> None:
    settings = config(type=Optimizer.sgd, lr=FIXED, base_lr=1e100, snapshot=0)
    with pytest.raises(DivergedError, match=r"iteration 5: .*(nan|inf); lower solver\.base_lr"):
        Training(tmp_path, linear(), settings, make_batch=doubles).run()


def test_an_unreadable_batch_ends_the_training_and_its_thread(tmp_path: Path) -> None:
    def make(number: int) -> Batch:
        if number == 12:
            raise ValueError("crop 12 is corrupt")
        return draw_batch(number)

    with pytest.raises(ValueError, match="crop 12 is corrupt"):
        Training(tmp_path, DropoutNetwork(), config(), make_batch=make).run()
    assert find_snapshots(tmp_path / "snapshots")[-1].name == "iter_0000010.pt"


def test_no_iterations_save_the_network_as_it_is(tmp_path: Path) -> None:
    training = Training(tmp_path, DropoutNetwork(), config(max_iter=0))
    before = training.state()
    summary = training.run()
    assert (summary["iterations"], summary["examples_per_second"]) == (0, 0)
    assert training.state() == before
    assert training.rows() == []


def test_the_log_holds_rate_losses_and_validation(tmp_path: Path) -> None:
    policy = LrPolicy(policy=Policy.step, gamma=0.1, stepsize=7)
    training = Training(tmp_path, DropoutNetwork(), config(max_iter=12, lr=policy, base_lr=0.5))
    summary = training.run()
    rows = training.rows()
    assert [row["iteration"] for row in rows] == [5, 10, 12]
    # The rate of the iteration that was just done: numbers 4, 9 and 11.
    assert [row["lr"] for row in rows] == pytest.approx([0.5, 0.05, 0.05])
    assert [set(row) - {"iteration", "lr"} for row in rows] == [
        {"loss", "largest"},
        {"loss", "largest", "val_loss"},
        {"loss", "largest", "val_loss"},
    ]
    assert (tmp_path / "log.csv").read_text().startswith("iteration,lr,loss,largest,")
    assert set(summary) == {"iterations", "seconds", "examples_per_second", "waiting"}
    assert 0 <= summary["waiting"] <= 1
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())


def test_groups_that_do_not_learn_are_logged_all_the_same(tmp_path: Path) -> None:
    network = linear()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = parameter_groups(network, new_modules=[network], new_lr_mult=0.0, weight_decay=0.0)
    training = Training(tmp_path, network, config(max_iter=5, lr=FIXED), groups=groups, make_batch=doubles)
    training.run()
    assert training.rows()[0]["lr"] == pytest.approx(0.01)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_waiting_for_data_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Prefetcher[Batch]) -> Any:
        self.waited += 1000
        return original(self)

    original = Prefetcher.__iter__
    monkeypatch.setattr(Prefetcher, "__iter__", slow)
    assert Training(tmp_path, DropoutNetwork(), config(max_iter=2)).run()["waiting"] > 1


def test_a_schedule_is_stretched_with_the_training() -> None:
    """Twice as many iterations as max_iter: the rate falls at the same shares of the training."""
    step = SolverConfig(max_iter=4, min_epochs=1, lr=LrPolicy(policy=Policy.step, stepsize=3, warmup_iter=1))
    assert [step.rate_factor(i, 4) for i in range(4)] == [0.1, 1, 1, 0.1]
    assert [step.rate_factor(i, 8) for i in range(8)] == [0.1, 1, 1, 1, 1, 1, 0.1, 0.1]
    cosine = SolverConfig(max_iter=4, min_epochs=1, lr=LrPolicy())
    assert cosine.rate_factor(4, 8) == LrPolicy().factor(2, 4)
    passes = replace(step, epochs=2.0)
    assert passes.rate_factor(4, 8) == 0.1  # epochs leaves the schedule as it is


def test_the_length_of_a_training_is_said_in_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = config(max_iter=40, batch_size=4, display=20)
    Training(tmp_path / "a", linear(), settings, make_batch=doubles, examples=64, data="16 images").run()
    assert "train: 40 iterations = 2.5 passes over 16 images" in caplog.messages
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    (line,) = [line for line in caplog.messages if line.startswith("train: 20 of 40 iterations (1.2 of 2.5 passes), ")]
    assert "per second, " in line
    assert " left; " in line
    assert "loss " in line


def test_fewer_than_two_passes_give_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(max_iter=3, batch_size=4)
    Training(tmp_path, linear(), settings, make_batch=doubles, examples=200, data="50 images").run()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "solver.epochs=2 (100 iterations)" in warning


def test_the_number_of_passes_that_are_few_depends_on_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(max_iter=3, batch_size=4)
    Training(tmp_path / "a", linear(), settings, make_batch=doubles, examples=12, few_passes=1).run()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    Training(tmp_path / "b", linear(), settings, make_batch=doubles, examples=16, few_passes=1).run()
    assert "solver.epochs=1 (4 iterations)" in caplog.text


def test_slow_iterations_get_lines_between_two_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detpipe.solver.solver.SILENCE", 0.0)
    caplog.set_level("INFO")
    settings = config(max_iter=10, display=10, test_interval=0)
    training = Training(tmp_path, linear(), settings, make_batch=doubles)
    training.run()
    assert sum(line.startswith("train: ") for line in caplog.messages) == 10
    assert len(training.rows()) == 1


@pytest.mark.parametrize(
    ("values", "examples", "iterations"),
    [
        ({"max_iter": 7}, 1000, 7),
        ({"epochs": 2, "batch_size": 10}, 100, 20),
        ({"epochs": 2, "batch_size": 10, "iter_size": 3}, 100, 7),
        ({"epochs": 0.5, "batch_size": 64}, 1, 1),
        ({"epochs": 0}, 100, 0),
        ({"epochs": 3}, 0, 0),
        ({"max_iter": 7, "min_epochs": 2, "batch_size": 10}, 20, 7),
        ({"max_iter": 7, "min_epochs": 2, "batch_size": 10}, 100, 20),
        ({"max_iter": 0, "min_epochs": 2, "batch_size": 10}, 100, 0),
        ({"max_iter": 7, "min_epochs": 2, "epochs": 1, "batch_size": 10}, 100, 10),
    ],
)
def test_epochs_become_iterations(values: dict[str, Any], examples: int, iterations: int) -> None:
    assert SolverConfig(**values).iterations(examples) == iterations


@pytest.mark.parametrize(
    "values",
    [
        {"max_iter": -1},
        {"batch_size": 0},
        {"iter_size": 0},
        {"display": 0},
        {"snapshot_keep": 0},
        {"snapshot": -1},
        {"test_interval": -1},
        {"weight_decay": -0.1},
        {"new_lr_mult": -1},
        {"momentum": 1.0},
        {"clip_gradients": 0.0},
        {"epochs": -1},
        {"base_lr": 0.0},
        {"base_lr": math.nan},
        {"base_lr": math.inf},
        {"weight_decay": math.nan},
        {"weight_decay": math.inf},
        {"momentum2": 1.0},
        {"rms_decay": -0.1},
        {"delta": 0.0},
        {"ema": 1.0},
        {"test_iter": 0},
        {"average_loss": 0},
        {"prefetch_threads": 0},
        {"random_seed": -1},
        {"random_seed": 2**31},
        {"lr_mult": {"a": -1.0}},
        {"decay_mult": {"a": math.nan}},
        {"momentum": 0.9, "type": Optimizer.caffe_adagrad},
        {"momentum": 0.9, "type": Optimizer.caffe_rmsprop},
        {"regularization_type": Regularization.l1},
    ],
)
def test_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"solver\.{next(iter(values))}: "):
        SolverConfig(**values)


def test_settings_can_be_replaced() -> None:
    assert replace(config(), max_iter=3).max_iter == 3
