"""load_dataset and the sources as structured configuration."""

from __future__ import annotations

import pickle

import pytest
from omegaconf import OmegaConf

from detpipe.datasets import load_dataset
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import DatasetSource
from detpipe.datasets.voc import VocSource
from tests.datasets.conftest import VocFolder


def test_loads_by_kind(voc: VocFolder) -> None:
    for stem in "abcde":
        voc.pair(stem)
    assert len(load_dataset("voc", root=str(voc.root))) == 1
    assert len(load_dataset("voc", "train", root=str(voc.root))) == 4
    assert len(load_dataset("images", root=str(voc.images))) == 5


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"expected .*voc, coco, .*image_labels.*, got 'pascal'"):
        load_dataset("pascal")
    with pytest.raises(ValueError, match="expected train, val, test, got 'trainval'"):
        load_dataset("voc", "trainval", root=".")
    with pytest.raises(TypeError, match=r"rot: expected a setting of 'voc'.*did you mean root\?"):
        load_dataset("voc", rot=".")
    with pytest.raises(TypeError, match="root: expected a value for 'voc', got none"):
        load_dataset("voc")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"kind": 5}, "kind"),
        ({"kind": ["voc"]}, "kind"),
        ({"split": None}, "split"),
        ({"split": ["test"]}, "split"),
        ({"root": 5}, "root"),
        ({"root": None}, "root"),
        ({"root": []}, "root"),
        ({"root": ["a", 5]}, "root"),
        ({"root": ""}, "root"),
        ({"classes": "cat"}, "classes"),
        ({"classes": ["cat", 5]}, "classes"),
        ({"classes": []}, "classes"),
        ({"max_bad": "0.1"}, "max_bad"),
        ({"max_bad": float("nan")}, "max_bad"),
        ({"max_bad": True}, "max_bad"),
        ({"train": 7}, "train"),
        ({"split_seed": 1.5}, "split_seed"),
        ({"test_share": 1.5}, "test_share"),
        ({"outside": "yes"}, "outside"),
        ({"exif_boxes": "turned"}, "exif_boxes"),
        ({"encoding": "klingon"}, "encoding"),
        ({"split_file": 3}, "split_file"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^(dataset\.)?{name}(\[1\])?: expected"):
        load_dataset(**{"kind": "voc", "root": ".", **arguments})  # type: ignore[arg-type]


def test_paths_and_values_of_enums_are_taken(voc: VocFolder) -> None:
    voc.pair("a")
    voc.list("test", "a\n")
    for settings in ({"root": voc.root}, {"root": [voc.root]}, {"root": (str(voc.root),), "exif_boxes": "raw"}):
        assert len(load_dataset("voc", **settings)) == 1  # type: ignore[arg-type]
    assert len(load_dataset("images", root=voc.images)) == 1


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        (VocSource, {"root": "x", "classes": ["a", "b"]}),
        (CocoSource, {"test_json": "a.json", "test_images": "images"}),
        (ImageFolderSource, {"root": "x"}),
        (DemoSource, {"seed": 3}),
    ],
)
def test_sources_are_schemas(source: type[DatasetSource], settings: dict[str, object]) -> None:
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(source), settings))
    assert made == source(**settings)
    assert pickle.loads(pickle.dumps(made)) == made
    OmegaConf.structured(DatasetSource)
