"""Conversion between Caffe's solver.prototxt and SolverConfig.

A file determines all settings of Caffe's solver: settings that it leaves out have Caffe's defaults, not detpipe's. So
momentum, weight decay and clipping are off, and all layers and biases have the same learning rate and decay (in Caffe,
the network's prototxt sets their factors). One exception: detpipe's default of `display` is used if the file has none.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from google.protobuf import text_format

from detpipe.solver.caffe_solver_pb2 import SolverParameter
from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.solver_config import Optimizer, Regularization, SolverConfig
from detpipe.storage.input_file import open_input

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

MAX_BYTES = 256 * 1024
"""Limit on the file size. Usual files have a page; a very long list of stepvalues has a few thousand bytes."""

TYPES = {
    "SGD": Optimizer.caffe_sgd,
    "Nesterov": Optimizer.caffe_nesterov,
    "AdaGrad": Optimizer.caffe_adagrad,
    "RMSProp": Optimizer.caffe_rmsprop,
    "AdaDelta": Optimizer.caffe_adadelta,
    "Adam": Optimizer.caffe_adam,
    "AdamW": Optimizer.caffe_adamw,  # an extension: Caffe has no AdamW
}
REGULARIZATIONS = {"L1": Regularization.l1, "L2": Regularization.l2}
POLICIES = {policy.value: policy for policy in Policy if policy is not Policy.cosine}

NEEDED = {
    Policy.step: ("gamma", "stepsize"),
    Policy.multistep: ("gamma", "stepvalue"),
    Policy.exp: ("gamma",),
    Policy.inv: ("gamma", "power"),
    Policy.poly: ("power",),
    Policy.sigmoid: ("gamma", "stepsize"),
}
"""Fields that each policy needs. Caffe uses 0 for a missing one, and then trains nothing or stops."""

SAME = (
    *("test_interval", "max_iter", "iter_size", "momentum", "momentum2", "rms_decay", "delta", "weight_decay"),
    *(
        "base_lr",
        "average_loss",
        "debug_info",
        "test_initialization",
        "snapshot",
        "snapshot_prefix",
        "snapshot_after_train",
    ),
)
"""Fields that have the same name and meaning in both formats."""
REPEATED = ("test_net", "test_iter", "test_state", "stepvalue", "weights")

IGNORED = (
    *("solver_mode", "device_id", "layer_wise_reduce", "snapshot_format", "snapshot_diff", "test_compute_loss"),
    *("train_state", "test_state", "net", "train_net", "test_net"),
)
"""Fields that are accepted but have no effect: the network's files, Caffe's device, and its snapshot format."""
OF_NETS = ("name", "layer", "layers", "input", "input_dim", "input_shape")
"""Fields with which a network's file begins."""
INLINE = ("net_param", "train_net_param", "test_net_param")


class SolverPrototxtError(ValueError):
    """A solver.prototxt can't be read, or has invalid settings."""


def read_solver_prototxt(path: Path) -> SolverConfig:
    """Read a file. Raises FileNotFoundError, InputFileError, and SolverPrototxtError, which names file and fault."""
    values = solver_values(path)
    lr = {name.removeprefix("lr."): value for name, value in values.items() if name.startswith("lr.")}
    others = {name: value for name, value in values.items() if not name.startswith("lr.")}
    try:
        return SolverConfig(lr=LrPolicy(**lr), **others)
    except ValueError as error:
        raise SolverPrototxtError(f"{path}: {error}") from error


def solver_values(path: Path, replaced: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings that a file determines by name, including those with Caffe's defaults.

    Names are the fields of SolverConfig, and "lr." with the fields of LrPolicy. replaced: the settings, by the same
    names, that are set elsewhere. They are not in the result, and the file's own values of them are neither needed nor
    checked. Raises the errors of `read_solver_prototxt`, but does not check the ranges of values.
    """
    message = _parse(path)
    try:
        values = _values(message, replaced or {})
    except ValueError as error:
        raise SolverPrototxtError(f"{path}: {error}") from error
    ignored = [name for name in IGNORED if _has(message, name)]
    if ignored:
        logger.info("%s: these fields have no effect in detpipe: %s", path, ", ".join(ignored))
    return values


def _parse(path: Path) -> SolverParameter:
    if not path.exists():
        raise FileNotFoundError(f"solver.prototxt: no such file: {path}")
    with open_input(path, "a solver.prototxt") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SolverPrototxtError(f"{path}: expected a solver.prototxt of at most {MAX_BYTES} bytes, got a larger file")
    message = SolverParameter()
    try:
        text_format.Parse(data.decode("utf-8"), message)
    except UnicodeDecodeError as error:
        raise SolverPrototxtError(f"{path}: expected text in UTF-8, got other bytes at {error.start}") from error
    except text_format.ParseError as error:
        raise SolverPrototxtError(f"{path}: {_explained(error)}") from error
    return message


def _explained(error: text_format.ParseError) -> str:
    """protobuf's error with its line, and a suggestion for an unknown field."""
    where = f"line {error.GetLine()}: " if error.GetLine() else ""
    unknown = re.search(r'has no field named "([^"]*)"', str(error))
    if unknown is None:
        text = re.sub(r"^\d+:\d+ : ", "", str(error)).strip()
        return f"{where}expected a solver.prototxt: {text[:200]}"
    name = unknown[1][:60]
    if name in OF_NETS:
        return f"{where}expected a solver.prototxt, got the file of a network, which is set as backbone.prototxt"
    if name in INLINE:
        return f"{where}{name}: expected the network in a separate file, got it inside the solver; move it"
    near = difflib.get_close_matches(name, [field.name for field in SolverParameter.DESCRIPTOR.fields], n=1)
    hint = f"did you mean {near[0]}?" if near else "remove it if it does not change the training"
    return f"{where}expected a field of Caffe's solver, got {name}; {hint}"


def _values(message: SolverParameter, replaced: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Callable[[], Any]] = {name: partial(_same, message, name) for name in SAME}
    read |= {
        "type": lambda: _type(message),
        "regularization_type": lambda: _one_of(REGULARIZATIONS, "regularization_type", message.regularization_type),
        "clip_gradients": lambda: _plain(message.clip_gradients) if message.clip_gradients >= 0 else None,
        "display": lambda: message.display or SolverConfig.display,
        "test_iter": lambda: _single("test_iter", message.test_iter) or None,
        "random_seed": lambda: message.random_seed if message.random_seed >= 0 else None,
        "weights": lambda: _single("weights", [file for files in message.weights for file in files.split(",")]),
        "epochs": lambda: None,
        "new_lr_mult": lambda: 1.0,
        "lr_mult": dict,
        "decay_mult": lambda: {"*": 1.0},
    }
    if replaced.get("epochs") is not None and not _has(message, "max_iter"):
        del read["max_iter"]  # epochs replace it
    values = {name: value() for name, value in read.items() if name not in replaced}
    return values | _lr_values(message, replaced)


def _same(message: SolverParameter, name: str) -> Any:
    """A field that has the same name and meaning in both formats."""
    if name in ("max_iter", "base_lr") and not _has(message, name):
        raise ValueError(f"{name}: expected a value, got none; add it to the file, or set solver.{name}=...")
    return _plain(getattr(message, name))


def _lr_values(message: SolverParameter, replaced: Mapping[str, Any]) -> dict[str, Any]:
    if "lr.policy" not in replaced and not _has(message, "lr_policy"):
        raise ValueError("lr_policy: expected a value, got none; add it to the file, or set solver.lr.policy=...")
    policy = replaced.get("lr.policy") or _one_of(POLICIES, "lr_policy", message.lr_policy)
    missing = [name for name in NEEDED.get(policy, ()) if not _has(message, name) and f"lr.{name}" not in replaced]
    if missing:
        settings = " ".join(f"solver.lr.{name}=..." for name in missing)
        raise ValueError(
            f"lr_policy {policy.value}: expected {' and '.join(missing)}, got none; add it to the file, or set "
            f"{settings}"
        )
    usual = LrPolicy()
    given = {
        name: _plain(getattr(message, name)) if _has(message, name) else getattr(usual, name)
        for name in ("gamma", "power", "stepsize")
    }
    values = {"policy": policy, "stepvalue": list(message.stepvalue), "warmup_iter": 0, **given}
    return {f"lr.{name}": value for name, value in values.items() if f"lr.{name}" not in replaced}


def _type(message: SolverParameter) -> Optimizer:
    if not message.HasField("solver_type"):
        return _one_of(TYPES, "type", message.type)
    if message.HasField("type"):
        raise ValueError("type and solver_type: expected one of them, got both; remove solver_type, the old form")
    old = {name.upper(): kind for name, kind in TYPES.items()}
    return old[SolverParameter.SolverType.Name(message.solver_type)]


def _one_of(table: Mapping[str, Choice], name: str, word: str) -> Choice:
    if word not in table:
        raise ValueError(f"{name}: expected one of {', '.join(table)}, got {word[:60]!r}")
    return table[word]


def _single(name: str, values: Any) -> Any:
    if len(values) > 1:
        raise ValueError(
            f"{name}: expected at most one value, got {len(values)}; detpipe has one validation and one weights file"
        )
    return values[0] if values else None


def _has(message: SolverParameter, name: str) -> bool:
    return bool(getattr(message, name)) if name in REPEATED else message.HasField(name)


def _plain(value: Any) -> Any:
    """The shortest decimal number of a float32, so that 0.01 in the file is 0.01 here."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


# --- Writing ----------------------------------------------------------------------------------------------------------


def write_solver_prototxt(config: SolverConfig) -> str:
    """The text of a solver.prototxt, from which `read_solver_prototxt` gives the same settings.

    Settings that only detpipe has and that don't change the result (snapshot_keep, resume, ...) and batch_size are left
    out. Caffe also needs the network's file: add `net: "..."` to the text.

    Raises ValueError, which names the settings, for those that change the result and that Caffe does not have.
    """
    unsupported = beyond_caffe(config)
    if unsupported:
        raise ValueError(f"expected settings that Caffe has, got {'; '.join(unsupported)}")
    message = SolverParameter()
    usual = SolverParameter()
    for name in SAME:
        _set(message, usual, name, getattr(config, name))
    for name in ("gamma", "power", "stepsize"):
        if name in NEEDED.get(config.lr.policy, ()) or getattr(config.lr, name) != getattr(LrPolicy(), name):
            setattr(message, name, getattr(config.lr, name))
    message.max_iter, message.base_lr, message.lr_policy = config.max_iter, config.base_lr, config.lr.policy.value
    message.stepvalue.extend(config.lr.stepvalue)
    message.display = config.display
    message.type = _word_of(TYPES, config.type)
    _set(message, usual, "regularization_type", _word_of(REGULARIZATIONS, config.regularization_type))
    for name in ("clip_gradients", "random_seed"):
        if getattr(config, name) is not None:
            setattr(message, name, getattr(config, name))
    message.test_iter.extend([] if config.test_iter is None else [config.test_iter])
    message.weights.extend([] if config.weights is None else [config.weights])
    return text_format.MessageToString(message)


def beyond_caffe(config: SolverConfig) -> list[str]:
    """The settings that change the result and have no field in Caffe's solver, each with a remedy."""
    in_the_network = "in Caffe it is set in the network, as param { lr_mult decay_mult }"
    tests: dict[str, tuple[Callable[[SolverConfig], bool], str]] = {
        "type": (lambda c: not c.type.of_caffe, "choose one of the types caffe_..."),
        "lr.policy": (lambda c: c.lr.policy is Policy.cosine, "choose another policy"),
        "lr.warmup_iter": (lambda c: c.lr.warmup_iter > 0, "give 0"),
        "epochs": (lambda c: c.epochs is not None, "give solver.max_iter"),
        "ema": (lambda c: c.ema is not None, "give null"),
        "new_lr_mult": (lambda c: c.new_lr_mult != 1, f"give 1; {in_the_network}"),
        "lr_mult": (lambda c: bool(c.lr_mult), f"give {{}}; {in_the_network}"),
        "decay_mult": (lambda c: c.decay_mult != {"*": 1.0}, f"give {{*: 1}}; {in_the_network}"),
    }
    return [f"solver.{name} ({advice})" for name, (is_beyond, advice) in tests.items() if is_beyond(config)]


def _set(message: SolverParameter, usual: SolverParameter, name: str, value: Any) -> None:
    """Set a field if its value is not Caffe's default."""
    if value != _plain(getattr(usual, name)):
        setattr(message, name, value)


def _word_of(table: Mapping[str, Choice], value: Choice) -> str:
    return next(word for word, one in table.items() if one is value)
