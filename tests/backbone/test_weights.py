from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detpipe.backbone.weights import load_weights, read_state
from tests.backbone.caffe.one_error import at_most_one_error


def make() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "backbone.network."])
@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_pth_in_its_many_forms(tmp_path: Path, prefix: str, nested: str | None) -> None:
    source, target = make(), make()
    state: dict[str, object] = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    torch.save({nested: state, "iteration": 7} if nested else state, tmp_path / "w.pth")
    report = load_weights(target, tmp_path / "w.pth")
    assert report.missing == report.unexpected == report.wrong_shape == ()
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_safetensors(tmp_path: Path) -> None:
    source, target = make(), make()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    assert len(load_weights(target, tmp_path / "w.safetensors").loaded) == 9
    assert torch.equal(source[0].weight, target[0].weight)


def test_what_does_not_fit_is_listed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = make(), make()
    state = dict(source.state_dict())
    del state["1.running_mean"], state["1.num_batches_tracked"]
    state |= {"3.weight": torch.zeros(21, 4), "head.weight": torch.zeros(1)}
    before = target[3].weight.clone()
    torch.save(state, tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        report = load_weights(target, tmp_path / "w.pth")
    assert report.missing == ("1.running_mean",)
    assert report.unexpected == ("head.weight",)
    assert report.wrong_shape == ("3.weight: (21, 4) in the file, (2, 4) in the network",)
    assert report.not_loaded == ("1.running_mean", "3.weight")
    assert torch.equal(target[3].weight, before)
    assert torch.equal(target[3].bias, source[3].bias)
    assert all(name in caplog.text for name in ("1.running_mean", "head.weight", "3.weight"))


def test_a_head_beside_the_backbone_is_unexpected(tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in make().state_dict().items()} | {"head.w": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    assert load_weights(make(), tmp_path / "w.pth").unexpected == ("head.w",)


def test_nothing_fits(tmp_path: Path) -> None:
    target = make()
    # A batch counter fits every network, and says nothing.
    torch.save({"a": torch.zeros(3), "1.num_batches_tracked": torch.tensor(5)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: expected weights of Sequential"):
        load_weights(target, tmp_path / "w.pth")
    assert target.state_dict()["1.num_batches_tracked"] == 0


class Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("unpickled"),))


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not unpickled for safety"):
        load_weights(make(), tmp_path / "w.pth")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut"])
def test_broken_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_state(tmp_path / name)


def test_truncated_file(tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"w\.pth"):
        read_state(tmp_path / "w.pth")


def test_damaged_files_give_one_kind_of_error(tmp_path: Path) -> None:
    """torch's reader raises IndexError, KeyError, struct.error and others on such bytes."""
    generator, path = random.Random(0), tmp_path / "w.pth"
    torch.save({"a": torch.ones(4, 3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for _ in range(25):  # each is read in a process; tests/fuzz reads many more
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        with at_most_one_error(str(path)):
            read_state(path)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1], {"epoch": 3}])
def test_no_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="expected a dict of tensors"):
        read_state(tmp_path / "w.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        load_weights(make(), tmp_path / "w.pth")
