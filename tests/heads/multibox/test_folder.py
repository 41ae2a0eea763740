"""The folder of a trained MultiBox: what was saved is loaded, and whatever is wrong with it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detpipe.heads.multibox.folder import (
    DESCRIPTION,
    build_multibox,
    load_multibox,
    load_multibox_spec,
    save_multibox,
)
from detpipe.heads.multibox.priors import as_shapes
from detpipe.heads.multibox.settings import Confidence, Localization, MatchedBy, Matching, MultiBoxConfig
from detpipe.network.network_folder import NET, WEIGHTS, NetworkFolderError
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import read_dataclass
from detpipe.storage.manifest import plain
from tests import drawn
from tests.heads.multibox import tiny as tiny_multibox


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    spec = tiny_multibox.spec(tmp_path / "net", calibrate=True)
    network = tiny_multibox.network(spec)
    network.predictor.calibration[1] = torch.tensor([2.0, -0.5])
    (tmp_path / "made").mkdir()
    save_multibox(tmp_path / "made", network, spec)
    (tmp_path / "net" / "tiny.prototxt").write_text("another net by now")
    loaded, same = load_multibox(tmp_path / "made")
    assert same == spec
    assert not loaded.training
    images = torch.from_numpy(drawn.draw(0)[0][None])
    with torch.inference_mode():
        own, theirs = network(images), loaded(images)
    for name in ("logits", "deltas", "priors", "shape_index"):
        torch.testing.assert_close(getattr(own, name), getattr(theirs, name), rtol=0, atol=0)


def test_every_setting_of_the_head_comes_back(tmp_path: Path) -> None:
    head = tiny_multibox.head(
        matching=Matching.bipartite,
        matched_by=MatchedBy.prediction,
        localization=Localization.squared,
        confidence=Confidence.focal,
        negatives=3,
    )
    write_json(tmp_path / "head.json", plain(head))
    assert read_dataclass(tmp_path / "head.json", MultiBoxConfig) == head


def test_a_map_without_shapes_comes_back(tmp_path: Path) -> None:
    folder = tiny_multibox.saved(tmp_path / "made")
    assert [one.shape for one in as_shapes(load_multibox_spec(folder).shapes)] == [(1, 4), (1, 4)]
    values = json.loads((folder / DESCRIPTION).read_text())
    values["shapes"][0] = []
    (folder / DESCRIPTION).write_text(json.dumps(values))
    assert [one.shape for one in as_shapes(load_multibox_spec(folder).shapes)] == [(0, 4), (1, 4)]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    spec = tiny_multibox.spec(tmp_path / "net")
    first = build_multibox(spec, seed=3, pretrained=True).state_dict()
    torch.manual_seed(99)
    again = build_multibox(spec, seed=3, pretrained=True).state_dict()
    other = build_multibox(spec, seed=4, pretrained=True).state_dict()
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)
    assert not torch.equal(first["predictor.shared.weight"], other["predictor.shared.weight"])
    assert any(not torch.equal(first[name], other[name]) for name in first if name.startswith("backbone"))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NetworkFolderError, match=r"multibox\.json; run `detpipe train-multibox`"):
        load_multibox(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", "\N{LATIN SMALL LETTER U WITH DIAERESIS}",
        '{"shapes": [[[1, 2, 3]]]}', '{"shapes": 3}',
    ],
)  # fmt: skip
def test_a_damaged_description(text: str, tmp_path: Path) -> None:
    folder = tiny_multibox.saved(tmp_path / "made")
    (folder / DESCRIPTION).write_bytes(text.encode("latin-1"))
    with pytest.raises(NetworkFolderError, match=r"multibox\.json.*train it again"):
        load_multibox(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("multibox", "form"), "cone"),
        (("multibox", "width"), 0),
        (("multibox", "width"), "wide"),
        (("multibox", "shape"), 1),
        (("multibox", "maps"), ["conv9"]),
        (("backbone", "name"), "resnet"),
        (("backbone", "prototxt"), ""),
        (("shapes",), []),
        (("shapes",), [[[0, 0, 1]]]),
        (("shapes",), [[], []]),
        (("shapes",), [[[-15, -15, 15, 15], [-30, -30, 30, 30]]]),
        (("shapes",), [[[-15, -15, 15, 15]], [[-30, -30, 30, 30]], []]),
    ],
)
def test_a_description_of_no_network(path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    folder = tiny_multibox.saved(tmp_path / "made")
    values = json.loads((folder / DESCRIPTION).read_text())
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (folder / DESCRIPTION).write_text(json.dumps(values))
    with pytest.raises(NetworkFolderError, match="made"):
        load_multibox(folder)


def test_weights_of_another_network(tmp_path: Path) -> None:
    folder, other = tiny_multibox.saved(tmp_path / "made"), tiny_multibox.saved(tmp_path / "other", width=9)
    (folder / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors: (?s:.*)size mismatch"):
        load_multibox(folder)


@pytest.mark.parametrize("length", [None, 0, 200])
def test_weights_that_are_missing_or_cut(length: int | None, tmp_path: Path) -> None:
    folder = tiny_multibox.saved(tmp_path / "made")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    if length is not None:
        (folder / WEIGHTS).write_bytes(data[:length])
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors"):
        load_multibox(folder)


def test_the_text_of_the_net_is_kept(tmp_path: Path) -> None:
    assert (tiny_multibox.saved(tmp_path / "made") / NET).read_text() == tiny_multibox.NET
