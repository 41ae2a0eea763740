"""Caffe's solver.prototxt: the published recipes, what is left out, what is wrong, and the way back."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.solver_config import Optimizer, Regularization, SolverConfig
from detpipe.solver.solver_prototxt import (
    MAX_BYTES,
    SolverPrototxtError,
    read_solver_prototxt,
    solver_values,
    write_solver_prototxt,
)
from detpipe.storage.input_file import InputFileError

# The numbers that Caffe's examples and models publish (LeNet on MNIST, CaffeNet, GoogLeNet quick).

LENET = """\
net: "examples/mnist/lenet_train_test.prototxt"
test_iter: 100       # 100 batches of 100 are all test images
test_interval: 500
base_lr: 0.01
momentum: 0.9
weight_decay: 0.0005
lr_policy: "inv"
gamma: 0.0001
power: 0.75
display: 100
max_iter: 10000
snapshot: 5000
snapshot_prefix: "examples/mnist/lenet"
solver_mode: GPU
"""
CAFFENET = """\
net: "models/bvlc_reference_caffenet/train_val.prototxt"
test_iter: 1000
test_interval: 1000
base_lr: 0.01
lr_policy: "step"
gamma: 0.1
stepsize: 100000
display: 20
max_iter: 450000
momentum: 0.9
weight_decay: 0.0005
snapshot: 10000
snapshot_prefix: "models/bvlc_reference_caffenet/caffenet_train"
solver_mode: GPU
"""
GOOGLENET = """\
net: "models/bvlc_googlenet/train_val.prototxt"
test_iter: 1000
test_interval: 4000
test_initialization: false
display: 40
average_loss: 40
base_lr: 0.01
lr_policy: "poly"
power: 0.5
max_iter: 2400000
momentum: 0.9
weight_decay: 0.0002
snapshot: 40000
snapshot_prefix: "models/bvlc_googlenet/bvlc_googlenet_quick"
solver_mode: GPU
"""

AS_CAFFE: dict[str, Any] = {
    "type": Optimizer.caffe_sgd,
    "new_lr_mult": 1.0,
    "decay_mult": {"*": 1.0},
    "test_initialization": True,
    "snapshot_after_train": True,
}
"""What a file says by saying nothing."""


def read(tmp_path: Path, text: str | bytes) -> SolverConfig:
    path = tmp_path / "solver.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_solver_prototxt(path)


def test_lenet(tmp_path: Path) -> None:
    config = read(tmp_path, LENET)
    assert config == SolverConfig(
        **AS_CAFFE,
        test_iter=100,
        test_interval=500,
        base_lr=0.01,
        momentum=0.9,
        weight_decay=0.0005,
        lr=LrPolicy(policy=Policy.inv, gamma=0.0001, power=0.75),
        display=100,
        max_iter=10000,
        snapshot=5000,
        snapshot_prefix="examples/mnist/lenet",
    )
    # What Caffe's own log of this training shows for iteration 9000: lr = 0.00617924.
    assert config.base_lr * config.lr.factor(9000, config.max_iter) == pytest.approx(0.00617924, rel=1e-5)


def test_caffenet(tmp_path: Path) -> None:
    config = read(tmp_path, CAFFENET)
    assert config == SolverConfig(
        **AS_CAFFE,
        test_iter=1000,
        test_interval=1000,
        base_lr=0.01,
        lr=LrPolicy(policy=Policy.step, gamma=0.1, stepsize=100_000),
        display=20,
        max_iter=450_000,
        momentum=0.9,
        weight_decay=0.0005,
        snapshot=10_000,
        snapshot_prefix="models/bvlc_reference_caffenet/caffenet_train",
    )
    rates = [config.base_lr * config.lr.factor(i, config.max_iter) for i in (0, 99_999, 100_000, 449_999)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 1e-6])


def test_googlenet(tmp_path: Path) -> None:
    config = read(tmp_path, GOOGLENET)
    assert config == SolverConfig(
        **{**AS_CAFFE, "test_initialization": False},
        test_iter=1000,
        test_interval=4000,
        display=40,
        average_loss=40,
        base_lr=0.01,
        lr=LrPolicy(policy=Policy.poly, power=0.5),
        max_iter=2_400_000,
        momentum=0.9,
        weight_decay=0.0002,
        snapshot=40_000,
        snapshot_prefix="models/bvlc_googlenet/bvlc_googlenet_quick",
    )
    assert config.lr.factor(1_800_000, config.max_iter) == pytest.approx(0.5)


SHORT = 'base_lr: 0.1 max_iter: 5 lr_policy: "fixed" '


def test_what_is_left_out_has_caffes_default(tmp_path: Path) -> None:
    config = read(tmp_path, SHORT)
    assert (config.momentum, config.weight_decay, config.clip_gradients, config.iter_size) == (0, 0, None, 1)
    assert (config.momentum2, config.rms_decay, config.delta, config.average_loss) == (0.999, 0.99, 1e-8, 1)
    assert (config.test_interval, config.test_iter, config.snapshot, config.random_seed) == (0, None, 0, None)
    assert (config.regularization_type, config.display) == (Regularization.l2, SolverConfig.display)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("SGD", Optimizer.caffe_sgd),
        ("Nesterov", Optimizer.caffe_nesterov),
        ("AdaGrad", Optimizer.caffe_adagrad),
        ("RMSProp", Optimizer.caffe_rmsprop),
        ("AdaDelta", Optimizer.caffe_adadelta),
        ("Adam", Optimizer.caffe_adam),
        ("AdamW", Optimizer.caffe_adamw),
    ],
)
def test_types_in_both_forms(tmp_path: Path, word: str, kind: Optimizer) -> None:
    assert read(tmp_path, SHORT + f'type: "{word}"').type is kind
    if word != "AdamW":
        assert read(tmp_path, SHORT + f"solver_type: {word.upper()}").type is kind


def test_every_field_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        test_iter: 7 test_interval: 8 base_lr: 0.5 display: 9 max_iter: 100
        lr_policy: "multistep" gamma: 0.25 power: 2 stepsize: 3 stepvalue: 10 stepvalue: 20 momentum: 0.5
        weight_decay: 0.125 regularization_type: "L1" clip_gradients: 35 iter_size: 4 snapshot: 6 snapshot_prefix: "p"
        snapshot_after_train: false test_initialization: false average_loss: 11 random_seed: 12 delta: 0.001
        momentum2: 0.75 rms_decay: 0.875 debug_info: true weights: "w.pt" type: "Adam" snapshot_diff: true
        snapshot_format: HDF5 solver_mode: CPU device_id: 1 test_compute_loss: true layer_wise_reduce: false
        train_state { phase: TRAIN level: 1 stage: "x" } test_state { stage: "y" }
        """,
    )
    assert config == SolverConfig(
        type=Optimizer.caffe_adam,
        max_iter=100,
        base_lr=0.5,
        lr=LrPolicy(policy=Policy.multistep, gamma=0.25, power=2, stepsize=3, stepvalue=[10, 20]),
        momentum=0.5,
        weight_decay=0.125,
        new_lr_mult=1,
        iter_size=4,
        clip_gradients=35,
        display=9,
        test_interval=8,
        snapshot=6,
        momentum2=0.75,
        rms_decay=0.875,
        delta=0.001,
        regularization_type=Regularization.l1,
        decay_mult={"*": 1},
        test_iter=7,
        average_loss=11,
        debug_info=True,
        snapshot_prefix="p",
        weights="w.pt",
        random_seed=12,
    )


def test_what_changes_nothing_here_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        read(tmp_path, SHORT + "solver_mode: GPU device_id: 3")
        assert "no effect in detpipe: solver_mode, device_id" in caplog.text
        read(tmp_path, SHORT + 'net: "a"')
        assert "no effect in detpipe: net" in caplog.text


def test_the_networks_files_are_accepted_and_are_no_settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        config = read(tmp_path, SHORT + 'net: "a" train_net: "b" test_net: "c" test_net: "d"')
    assert config == read(tmp_path, SHORT)
    assert "no effect in detpipe: net, train_net, test_net" in caplog.text
    assert not {"net", "train_net", "test_net"} & solver_values(tmp_path / "solver.prototxt").keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# a comment", "max_iter: expected a value, got none"),
        ("max_iter: 5", "base_lr: expected a value, got none"),
        ("max_iter: 5 base_lr: 1", "lr_policy: expected a value, got none"),
        (SHORT + "\nmomntum: 0.9", r"line 2: .*got momntum; did you mean momentum\?"),
        (SHORT + "xyzzy { a: 1 }", "line 1: .*got xyzzy; remove it if"),
        ('name: "LeNet" layer { }', r"got the file of a network, which is set as backbone\.prototxt"),
        (SHORT + 'net_param { name: "x" }', "net_param: expected the network in a separate file"),
        (SHORT + "momentum: much", "line 1: .*Couldn't parse float: much"),
        (SHORT + "momentum: 0.1 momentum: 0.2", 'should not have multiple "momentum"'),
        (SHORT + "test_interval: 99999999999", "out of range"),
        (SHORT + "solver_mode: TPU", "no value named TPU"),
        (SHORT + 'type: "Adam" solver_type: ADAM', "type and solver_type: expected one of them"),
        (SHORT + 'type: "Lion"', "type: expected one of SGD, Nesterov, .*, got 'Lion'"),
        (SHORT + 'regularization_type: "L3"', "regularization_type: expected one of L1, L2, got 'L3'"),
        ('base_lr: 1 max_iter: 5 lr_policy: "cosine"', "lr_policy: expected one of fixed, .*, got 'cosine'"),
        ('base_lr: 1 max_iter: 5 lr_policy: "step"', "lr_policy step: expected gamma and stepsize, got none"),
        ('base_lr: 1 max_iter: 5 lr_policy: "multistep" gamma: 1', "lr_policy multistep: expected stepvalue"),
        ('base_lr: 1 max_iter: 5 lr_policy: "inv" gamma: 1', "lr_policy inv: expected power"),
        (SHORT + "test_iter: 1 test_iter: 2", "test_iter: expected at most one value, got 2"),
        (SHORT + 'weights: "a,b"', "weights: expected at most one value, got 2"),
        (SHORT + 'type: "AdaGrad" momentum: 0.9', r"solver\.momentum: expected 0 for caffe_adagrad, .*got 0\.9"),
        (SHORT + "momentum: 1.5", r"solver\.momentum: expected a share in \[0, 1\), got 1\.5"),
        (SHORT + "momentum: nan", r"solver\.momentum: expected a share in \[0, 1\), got nan"),
        (SHORT + "weight_decay: inf", r"solver\.weight_decay: expected a finite number"),
        (SHORT + "max_iter", "line 1: expected a solver.prototxt"),
        (SHORT.replace("5", "-5"), r"solver\.max_iter: expected at least 0, got -5"),
        (SHORT + 'net: "open', "expected a solver.prototxt"),
        (SHORT + "train_state {" * 3, "expected a field|expected a solver.prototxt"),
        (b"\xff\xfe\x00", "UTF-8, got other bytes at 0"),
        (b"\x08\x01\x00\x00", "expected a solver.prototxt"),
        ("# " + "x" * MAX_BYTES, f"at most {MAX_BYTES} bytes, got a larger file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    begun = time.process_time()
    with pytest.raises(SolverPrototxtError, match=words) as caught:
        read(tmp_path, text)
    assert "solver.prototxt: " in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - begun < 2


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"solver\.prototxt: no such file"):
        solver_values(tmp_path / "gone.prototxt")
    with pytest.raises(InputFileError, match=r"expected a solver\.prototxt, got a folder"):
        solver_values(tmp_path)


NAMES = ("base_lr", "max_iter", "lr_policy", "stepvalue", "type", "train_state", "test_iter", "weights")
SIGNS = (":", "{", "}", "[", "]", "<", ">", "'", '"', "#", "\n", ",", ";", "\\", "\0", "é")
VALUES = ('"fixed"', '"SGD"', "1", "-1", "0.5", "1e99", "nan", "0x7")
WORDS = st.sampled_from([*NAMES, *SIGNS, *VALUES])


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=80), st.sampled_from(["", SHORT, LENET]))
def test_any_text_is_settings_or_one_error(tmp_path: Path, tail: str, head: str) -> None:
    try:
        config = read(tmp_path, (head + tail).encode("utf-8", "surrogatepass"))
    except (SolverPrototxtError, InputFileError):
        return
    assert isinstance(config, SolverConfig)


# --- The way back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [LENET, CAFFENET, GOOGLENET, SHORT])
def test_what_is_written_reads_as_the_same(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, text)
    assert read(tmp_path, write_solver_prototxt(config)) == config


def test_what_is_written_is_caffes_form(tmp_path: Path) -> None:
    text = write_solver_prototxt(read(tmp_path, LENET))
    kept = {line.partition("#")[0].strip() for line in LENET.splitlines()} - {
        "solver_mode: GPU",
        'net: "examples/mnist/lenet_train_test.prototxt"',
    }
    assert set(text.splitlines()) == kept | {'type: "SGD"'}


KINDS = [kind for kind in Optimizer if kind.of_caffe]
NUMBERS = st.sampled_from([0.001, 0.05, 0.25, 0.7])


@given(
    kind=st.sampled_from(KINDS),
    policy=st.sampled_from([policy for policy in Policy if policy is not Policy.cosine]),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    counts=st.tuples(*[st.integers(1, 1000)] * 4),
    flags=st.tuples(*[st.booleans()] * 5),
)
@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_settings_survive_the_round_trip(
    tmp_path: Path, kind: Optimizer, policy: Policy, numbers: Any, counts: Any, flags: Any
) -> None:
    config = SolverConfig(
        **{**AS_CAFFE, "type": kind, "test_initialization": flags[0], "snapshot_after_train": flags[1]},
        base_lr=numbers[0],
        momentum=0.0 if kind in (Optimizer.caffe_adagrad, Optimizer.caffe_rmsprop) else numbers[1],
        weight_decay=numbers[2],
        momentum2=numbers[3],
        rms_decay=numbers[1],
        delta=numbers[2],
        lr=LrPolicy(policy=policy, gamma=numbers[3], power=numbers[2], stepsize=counts[0], stepvalue=[counts[1]]),
        max_iter=counts[2],
        iter_size=counts[3],
        display=counts[0],
        test_interval=counts[1],
        snapshot=counts[2],
        average_loss=counts[3],
        clip_gradients=numbers[3] if flags[2] else None,
        regularization_type=Regularization.l1 if flags[3] else Regularization.l2,
        random_seed=counts[0] if flags[4] else None,
        debug_info=flags[4],
        weights="w.pt" if flags[3] else None,
    )
    assert read(tmp_path, write_solver_prototxt(config)) == config


def test_what_caffe_can_not_say_is_named() -> None:
    with pytest.raises(ValueError, match=r"solver\.type \(choose one of .*solver\.lr\.policy .*solver\.new_lr_mult"):
        write_solver_prototxt(SolverConfig())
    expressible = SolverConfig(**AS_CAFFE, lr=LrPolicy(policy=Policy.fixed))
    write_solver_prototxt(expressible)
    for values, name in (
        ({"ema": 0.9}, "ema"),
        ({"epochs": 2.0}, "epochs"),
        ({"lr_mult": {"*": 2.0}}, "lr_mult"),
        ({"decay_mult": {}}, "decay_mult"),
        ({"lr": LrPolicy(policy=Policy.fixed, warmup_iter=3)}, r"lr\.warmup_iter"),
    ):
        with pytest.raises(ValueError, match=rf"got solver\.{name} \("):
            write_solver_prototxt(replace(expressible, **values))


def test_numbers_are_those_that_a_person_wrote(tmp_path: Path) -> None:
    """Caffe's fields are float32: 0.0001 must not become 0.00009999999747378752."""
    config = read(tmp_path, LENET)
    assert (config.lr.gamma, config.weight_decay) == (0.0001, 0.0005)
    assert not math.isclose(config.lr.gamma, 0.00009999999747378752, rel_tol=1e-9)
