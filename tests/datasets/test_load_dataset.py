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
    with pytest.raises(ValueError, match="expected voc, coco, images, demo, got 'yolo'"):
        load_dataset("yolo")
    with pytest.raises(ValueError, match="expected train, val, test, got 'trainval'"):
        load_dataset("voc", "trainval", root=".")
    with pytest.raises(TypeError, match="rot"):
        load_dataset("voc", rot=".")


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
