"""The table of kinds of classifiers: what holds for all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.classify.classifier_folder import ClassifierError, ClassifierSpec, RegionSpec, read_spec, save_classifier
from detpipe.classify.kinds import (
    KINDS,
    Kind,
    check_detect_settings,
    kind_in,
    kind_of_head,
    load_classifier,
    load_region_spec,
    load_scorer,
    load_spec,
)
from detpipe.classify.settings import (
    CropScoringConfig,
    DetectConfig,
    FastRcnnScoringConfig,
    FeatureScoringConfig,
)
from detpipe.heads.region_head import RegionHeadConfig
from detpipe.heads.table import HEADS, head_class, head_word
from detpipe.network.network_folder import NetworkFolderError
from tests.classify.tiny_kinds import BUILD, MADE

BY_NAME = {kind.name: kind for kind in KINDS}
OF_REGIONS = [kind for kind in KINDS if kind.scorer is not None]
CPU = torch.device("cpu")
FILES = ["classifier.json", "net.prototxt", "weights.safetensors"]
of_all = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def all_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folder of a classifier of each kind. Read only."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, make in MADE.items():
        network, spec = make(folder / "nets" / name)
        save_classifier(folder / name, network, spec)
    return folder


@pytest.fixture
def saved(all_saved: Path, kind: Kind, tmp_path: Path) -> Path:
    """The folder of a classifier of a kind, which a test may spoil."""
    return shutil.copytree(all_saved / kind.name, tmp_path / "saved")


def outputs(network: nn.Module, spec: ClassifierSpec, kind: Kind) -> list[np.ndarray]:
    """What the network makes of an image, and, where it is of regions, of its regions."""
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    if kind.scorer is None:
        with torch.inference_mode():
            return [network.eval()(torch.from_numpy(image[None, :, :64])).numpy()]
    boxes = np.array([[0, 0, 40, 50], [10, 5, 80, 64]], dtype=np.float32)
    scorer = kind.scorer(network, spec, DetectConfig(), CPU, bf16=False)
    found = list(scorer.score([(image, boxes), (image, boxes[:0])]))
    assert found[0].deltas is not None
    assert (found[1].boxes is not None) == kind.proposes
    return [part for one in found for part in (one.probabilities, one.deltas, one.boxes) if part is not None]


# The table


def test_each_kind_has_a_network_here() -> None:
    assert MADE.keys() == BY_NAME.keys()


def test_names_descriptions_and_specs_are_unique() -> None:
    for values in ([one.name for one in KINDS], [one.description for one in KINDS], [one.spec for one in KINDS]):
        assert len(set(values)) == len(KINDS)
    assert len(set(HEADS.values())) == len(HEADS)


def test_heads_of_a_subclass_stand_before_those_of_its_base() -> None:
    for place, kind in enumerate(OF_REGIONS):
        assert not any(issubclass(later.head, kind.head) for later in OF_REGIONS[place + 1 :])


@of_all
def test_each_kind_of_regions_has_its_settings_of_detect(kind: Kind) -> None:
    assert (kind.detect_group in GIVEN) == (kind.scorer is not None)


@pytest.mark.parametrize("word", HEADS)
def test_every_head_has_a_word_and_a_kind(word: str) -> None:
    cls = head_class(word)
    assert issubclass(cls, RegionHeadConfig)
    head = cls.__new__(cls)  # some have settings without a default
    assert head_word(head) == word
    wanted = word if word in ("fast_rcnn", "multibox_fast_rcnn") else "crops" if word == "softmax" else "features"
    assert kind_of_head(head).name == wanted


def test_a_head_that_no_row_has() -> None:
    with pytest.raises(ValueError, match="RegionHeadConfig"):
        kind_of_head(RegionHeadConfig())
    with pytest.raises(ValueError, match="HEADS"):
        head_word(RegionHeadConfig())
    with pytest.raises(ValueError, match=r"head=sfm: .*softmax"):
        head_class("sfm")


# Saved and loaded


@of_all
def test_what_is_saved_comes_back(kind: Kind, tmp_path: Path) -> None:
    network, spec = MADE[kind.name](tmp_path / "net")
    before = outputs(network, spec, kind)
    save_classifier(tmp_path / "saved", network, spec)
    shutil.rmtree(tmp_path / "net")  # the folder has a copy of the net's text
    loaded, found = load_classifier(tmp_path / "saved")
    assert found == spec == load_spec(tmp_path / "saved")
    assert type(found) is kind.spec
    assert type(loaded) is type(network)
    assert not loaded.training
    assert kind_in(tmp_path / "saved") is kind
    for ours, theirs in zip(outputs(loaded, found, kind), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    save_classifier(tmp_path / "again", loaded, found, loaded_from=tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()


@pytest.mark.parametrize("name", BUILD)
def test_the_seed_draws_all_that_is_new(name: str, tmp_path: Path) -> None:
    _, spec = MADE[name](tmp_path)

    def weights(seed: int, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        state = BUILD[name](spec, seed=seed, pretrained=True).state_dict()
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(global_seed).get_state())
        return torch.cat([one.flatten().float() for one in state.values()])

    assert torch.equal(weights(5, 1), weights(5, 2))
    assert not torch.equal(weights(5, 1), weights(6, 1))


@of_all
def test_loading_draws_nothing(kind: Kind, saved: Path) -> None:
    torch.manual_seed(3)
    load_classifier(saved)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(3).get_state())


@of_all
def test_the_scorer_is_that_of_the_kind(kind: Kind, saved: Path) -> None:
    if kind.scorer is None:
        with pytest.raises(ClassifierError, match=r"classifier\.json.*detpipe run"):
            load_scorer(saved, DetectConfig(), CPU, bf16=False)
        return
    scorer, spec = load_scorer(saved, DetectConfig(), CPU, bf16=False)
    assert spec == load_region_spec(saved)
    assert isinstance(spec, RegionSpec)
    assert kind.proposes == spec.PROPOSES
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    (found,) = scorer.score([(image, np.array([[0, 0, 40, 50]], dtype=np.float32))])
    assert found.probabilities.shape == (1, 3)


# Damaged folders

Values = dict[str, Any]


def without(name: str) -> Callable[[Values], Values]:
    return lambda values: {key: value for key, value in values.items() if key != name}


def with_(**more: object) -> Callable[[Values], Values]:
    return lambda values: {**values, **more}


def spoil(folder: Path, change: Callable[[Values], Values]) -> None:
    path = folder / "classifier.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@of_all
@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "\x00\xff"])
def test_what_is_no_json_object(kind: Kind, saved: Path, text: str) -> None:
    path = saved / "classifier.json"
    path.write_bytes(text.encode("latin-1"))
    for load in (load_classifier, load_spec, kind_in):
        with pytest.raises(ClassifierError) as raised:
            load(saved)
        assert str(raised.value).startswith(f"{path}: ")
        assert "train it again" in str(raised.value)


@of_all
@pytest.mark.parametrize(
    ("change", "key"),
    [
        (without("classes"), "classes"),
        (without("backbone"), "backbone"),
        (with_(more=1), "more"),
        (with_(classes=3), "classes"),
        (with_(classes="ab"), "classes"),
        (with_(classes=["a", 2]), "classes"),
        (with_(classes=None), "classes"),
        (with_(backbone=3), "backbone"),
        (with_(backbone={"name": 5}), "name"),
        (with_(backbone={"nane": "efficientnet_lite0"}), "nane"),
        (with_(backbone={"name": "vgg"}), "backbone.name"),
    ],
)
def test_a_wrong_description_is_named(kind: Kind, saved: Path, change: Callable[[Values], Values], key: str) -> None:
    spoil(saved, change)
    for load in (load_classifier, load_spec):
        with pytest.raises(ClassifierError) as raised:
            load(saved)
        assert str(raised.value).startswith(f"{saved / 'classifier.json'}: ")
        assert key in str(raised.value).removeprefix(str(saved))
        assert "train it again" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "more", "key"),
    [
        ("crops", {"crops": {"mode": "bent"}}, "mode"),
        ("crops", {"crops": {"size": 0}}, "crops"),
        ("crops", {"box_regression": "false"}, "box_regression"),
        ("crops", {"category_ids": ["x", 1]}, "category_ids"),
        ("features", {"crops": {"mode": "bent"}}, "mode"),
        ("features", {"features": {"grid": 0}}, "grid"),
        ("features", {"extraction": 3}, "extraction"),
        ("features", {"head": 3}, "head"),
        ("fast_rcnn", {"head": {"pooling": "max"}}, "pooling"),
        ("fast_rcnn", {"head": {"maps": 3}}, "maps"),
        ("fast_rcnn", {"svd_ranks": ["x"]}, "svd_ranks"),
        ("multibox_fast_rcnn", {"head": {"multibox": {"matching": "none"}}}, "matching"),
        ("multibox_fast_rcnn", {"shapes": "x"}, "shapes"),
        ("multibox_fast_rcnn", {"shapes": [[1, 2]]}, "shapes"),
        ("images", {"view": {"share": 7}}, "view.share"),
        ("images", {"view": {"colour": "a"}}, "colour"),
    ],
)
def test_wrong_values_of_a_kind_are_named(
    all_saved: Path, tmp_path: Path, name: str, more: dict[str, object], key: str
) -> None:
    folder = shutil.copytree(all_saved / name, tmp_path / "saved")
    spoil(folder, with_(**more))
    with pytest.raises(ClassifierError) as raised:
        load_classifier(folder)
    assert str(raised.value).startswith(f"{folder / 'classifier.json'}: ")
    assert key in str(raised.value).removeprefix(str(folder))


@pytest.mark.parametrize(
    ("name", "more", "key"),
    [
        ("multibox_fast_rcnn", {"shapes": []}, "shapes"),
        ("features", {"head": "softmax"}, "head=softmax"),
        ("features", {"head": "sfm"}, "head=sfm"),
        ("features", {"classes": ["one"]}, "classes"),
    ],
)
def test_a_description_of_no_network_is_named(
    all_saved: Path, tmp_path: Path, name: str, more: dict[str, object], key: str
) -> None:
    folder = shutil.copytree(all_saved / name, tmp_path / "saved")
    spoil(folder, with_(**more))
    with pytest.raises(ClassifierError) as raised:
        load_classifier(folder)
    assert str(raised.value).startswith(f"{folder / 'classifier.json'}: ")
    assert key in str(raised.value)


@of_all
def test_another_kind_is_not_taken_for_it(kind: Kind, saved: Path) -> None:
    for other in KINDS:
        if other is not kind:
            with pytest.raises(ClassifierError, match=rf"classifier\.json.*{other.name}.*{kind.name}"):
                read_spec(saved, other.spec)
            spoil(saved, with_(kind=other.name))
            with pytest.raises((ClassifierError, NetworkFolderError), match=r"classifier\.json|weights\.safetensors"):
                load_classifier(saved)
            spoil(saved, with_(kind=kind.name))
    for wrong in (with_(kind="x"), with_(kind=3), without("kind")):
        spoil(saved, wrong)
        for load in (load_classifier, load_spec, kind_in):
            with pytest.raises(ClassifierError, match=rf"classifier\.json.*{kind.name}.*train it again"):
                load(saved)


@of_all
def test_no_classifier(kind: Kind, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        for load in (load_classifier, load_spec, kind_in, load_region_spec):
            with pytest.raises(ClassifierError, match=r"classifier\.json.*detpipe train-cls"):
                load(folder)
        with pytest.raises(ClassifierError, match=r"classifier\.json.*detpipe train-cls"):
            read_spec(folder, kind.spec)


@of_all
def test_missing_cut_and_foreign_weights_are_named(kind: Kind, saved: Path, all_saved: Path) -> None:
    path = saved / "weights.safetensors"
    whole = path.read_bytes()
    (other,) = {"crops": ["fast_rcnn"]}.get(kind.name, ["crops"])
    foreign = (all_saved / other / path.name).read_bytes()
    for content in (b"", whole[:5], whole[:1000], whole[:-7], b"x" * 100, foreign):
        path.write_bytes(content)
        with pytest.raises(NetworkFolderError, match=r"weights\.safetensors"):
            load_classifier(saved)
    path.unlink()
    with pytest.raises(NetworkFolderError, match=r"weights\.safetensors"):
        load_classifier(saved)


# Settings of detection


GIVEN: dict[str, tuple[DetectConfig, str]] = {
    "fast_rcnn": (
        DetectConfig(fast_rcnn=FastRcnnScoringConfig(scales=[64])),
        r"detect\.fast_rcnn\.scales needs head=fast_rcnn or multibox_fast_rcnn; ",
    ),
    "features": (
        DetectConfig(features=FeatureScoringConfig(refine=3)),
        r"detect\.features\.refine needs head=svm or linear or ",
    ),
    "crops": (
        DetectConfig(crops=CropScoringConfig(cascade_size=32, cascade_keep=5)),
        r"detect\.crops\.cascade_size and detect\.crops\.cascade_keep need head=softmax; ",
    ),
}
"""Settings of each group, and the start of the error where another kind is given them."""


def test_every_group_of_detect_belongs_to_a_kind() -> None:
    groups = {name for name, value in vars(DetectConfig()).items() if is_dataclass(value)}
    assert groups == GIVEN.keys() == {kind.detect_group for kind in OF_REGIONS}


@of_all
def test_settings_of_other_kinds_are_refused(kind: Kind) -> None:
    check_detect_settings(DetectConfig(), kind, "this run has head=svm")
    for group, (config, needs) in GIVEN.items():
        if group == kind.detect_group:
            check_detect_settings(config, kind, "this run has head=svm")
            continue
        with pytest.raises(ClassifierError, match=rf"{needs}.*this run has head=svm\. Leave detect\.{group} out"):
            check_detect_settings(config, kind, "this run has head=svm")


def test_the_scorer_refuses_them_too(all_saved: Path) -> None:
    with pytest.raises(ClassifierError, match=r"detect\.fast_rcnn\.flip needs .*crops"):
        load_scorer(all_saved / "crops", DetectConfig(fast_rcnn=FastRcnnScoringConfig(flip=True)), CPU, bf16=False)
