"""Weights to start from, by name; what is none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detpipe.solver.initial_weights import read_weights, take_weights


def source() -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), 0.5), "bias": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize("form", ["safetensors", "state dict", "snapshot"])
def test_three_forms(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    match form:
        case "safetensors":
            save_file(source(), path)
        case "state dict":
            torch.save(source(), path)
        case _:
            torch.save({"iteration": 3, "key": "k", "model": source(), "optimizer": {}}, path)
    module = nn.Linear(3, 2)
    take_weights(module, path)
    torch.testing.assert_close(dict(module.state_dict()), source(), rtol=0, atol=0)


def test_what_is_in_one_of_the_two_only_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"weight": source()["weight"], "fc8": torch.zeros(1)}, tmp_path / "w.pt")
    module = nn.Linear(3, 2)
    bias = module.bias.detach().clone()
    take_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.bias, bias)
    assert "1 tensors of the network are not in the file and keep their values: bias" in caplog.text
    assert "1 tensors of the file are not in the network and are ignored: fc8" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "expected a dict of tensors"),
        ({"fc8": torch.zeros(1)}, r"got \['fc8'\]"),
        ({"weight": torch.zeros(3, 2)}, r"weight: expected shape \(2, 3\), got \(3, 2\)"),
        ([1, 2], "expected a dict of tensors"),
        ({"iteration": 3}, "expected a dict of tensors"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"w\.pt: .*{words}"):
        take_weights(nn.Linear(3, 2), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.caffemodel"])
def test_a_file_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no weights")
    with pytest.raises(ValueError, match=rf"{name}: expected "):
        read_weights(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"solver\.weights: no such file"):
        read_weights(tmp_path / "gone.pt")
