from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detpipe.backbone.caffe.load import build_net, save_caffemodel
from detpipe.backbone.caffe.net import Net
from detpipe.backbone.caffe.net_spec import NetSpec
from detpipe.inspect.weight_file import read_tensors
from tests.backbone.caffe.one_error import at_most_one_error


def spec(outputs: int = 4) -> NetSpec:
    one = NetSpec("tiny")
    one.add_tops("Input", name="data", tops=["data"], shape=[{"dim": [1, 3, 8, 8]}])
    conv = one.add(
        "Convolution", "data", name="a.conv", num_output=outputs, kernel_size=3, weight_filler={"type": "msra"}
    )
    one.add("InnerProduct", conv, name="ip", num_output=2, weight_filler={"type": "msra"})
    return one


@pytest.fixture
def net(tmp_path: Path) -> Net:
    """A net whose files tiny.prototxt and tiny.caffemodel stand in tmp_path."""
    one = build_net(spec().definition)
    (tmp_path / "tiny.prototxt").write_text(spec().prototxt())
    save_caffemodel(one, tmp_path / "tiny.caffemodel")
    return one


def test_a_caffemodel_without_its_net(net: Net, tmp_path: Path) -> None:
    found = read_tensors(tmp_path / "tiny.caffemodel")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "a.conv.0": (4, 3, 3, 3),
        "a.conv.1": (4,),
        "ip.0": (2, 144),
        "ip.1": (2,),
    }


def test_a_caffemodel_has_the_names_of_its_nets_module(net: Net, tmp_path: Path) -> None:
    found = read_tensors(tmp_path / "tiny.caffemodel", str(tmp_path / "tiny.prototxt"))
    own = net.state_dict()
    assert list(found) == list(own)
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())


def test_a_caffemodel_of_another_net(net: Net, tmp_path: Path) -> None:
    (tmp_path / "other.prototxt").write_text(spec(outputs=5).prototxt())
    with pytest.raises(ValueError, match=r"tiny\.caffemodel: layer 'a.conv': expected blobs of .*\(5, 3, 3, 3\)"):
        read_tensors(tmp_path / "tiny.caffemodel", str(tmp_path / "other.prototxt"))


def test_layers_that_the_net_has_not_keep_their_numbers(net: Net, tmp_path: Path) -> None:
    text = (tmp_path / "tiny.prototxt").read_text().replace('"ip"', '"ip_new"')
    (tmp_path / "new.prototxt").write_text(text)
    found = read_tensors(tmp_path / "tiny.caffemodel", str(tmp_path / "new.prototxt"))
    assert list(found) == ["layers.a_conv.weight", "layers.a_conv.bias", "ip.0", "ip.1"]


def test_a_snapshot_of_the_solver_is_its_model(tmp_path: Path) -> None:
    state = {
        "iteration": 3,
        "key": "k",
        "model": {"w": torch.ones(2)},
        "optimizer": {"state": {0: {"m": torch.ones(9)}}},
    }
    torch.save(state, tmp_path / "iter_0000003.pt")
    assert list(read_tensors(tmp_path / "iter_0000003.pt")) == ["w"]


def test_a_safetensors_is_sorted_by_numbers(tmp_path: Path) -> None:
    save_file({f"b.{i}.w": torch.ones(1) for i in (10, 2, 1)}, tmp_path / "w.safetensors")
    assert list(read_tensors(tmp_path / "w.safetensors")) == ["b.1.w", "b.2.w", "b.10.w"]


def test_files_without_weights(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    torch.save({}, tmp_path / "w.pth")
    (tmp_path / "w.caffemodel").write_bytes(b"")
    for name in ("w.safetensors", "w.pth", "w.caffemodel"):
        with pytest.raises(ValueError, match=name):
            read_tensors(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_tensors(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "hostile",
    [
        torch.ones(1).expand(2**40),
        torch.sparse_coo_tensor(torch.tensor([[0], [2**30]]), torch.ones(1), (2**31, 2**31), check_invariants=True),
        torch.ones(2, dtype=torch.complex64),
        torch.empty(2**40, device="meta"),
    ],
    ids=["steps of 0", "sparse", "complex", "without data"],
)
def test_tensors_that_claim_more_than_they_hold(hostile: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"weight": hostile}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: "):
        read_tensors(tmp_path / "w.pth")


def test_damaged_caffemodels(net: Net, tmp_path: Path) -> None:
    generator, path = np.random.default_rng(0), tmp_path / "tiny.caffemodel"
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(100):
        damaged = whole.copy()
        damaged[generator.integers(0, min(len(whole), 400), 3)] = generator.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with at_most_one_error(str(path)):
            read_tensors(path, str(tmp_path / "tiny.prototxt"))


def test_a_file_that_caffe_wrote(shared_data: Path) -> None:
    found = read_tensors(shared_data / "caffe/lenet_ethereon/lenet_iter_10000.caffemodel", "lenet")
    assert {name: tuple(tensor.shape) for name, tensor in found.items() if name.endswith("weight")} == {
        "layers.conv1.weight": (20, 1, 5, 5),
        "layers.conv2.weight": (50, 20, 5, 5),
        "layers.ip1.weight": (500, 800),
        "layers.ip2.weight": (10, 500),
    }
