"""demo: the same bytes from the same seed, in a folder that is there whole or not at all."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from detpipe import boxes as box_ops
from detpipe.datasets import demo
from detpipe.datasets.check import check_source
from detpipe.datasets.demo import DemoDataError, DemoSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource

pytest.importorskip("skimage", reason="the demo's photographs are in scikit-image: pip install 'detpipe[demo]'")


def source_in(folder: Path, **settings: int) -> DemoSource:
    return DemoSource(root=str(folder / "demo"), **{"train_images": 12, "test_images": 8, **settings})


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source_in(folder).load(Split.test)
    return folder


def test_same_seed_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    source_in(tmp_path).load(Split.train)
    assert bytes_of(tmp_path) == bytes_of(made)
    source_in(tmp_path / "other", seed=1).load(Split.train)
    first = "demo/JPEGImages/train_0000.jpg"
    assert bytes_of(tmp_path / "other")[first] != bytes_of(made)[first]


def test_is_made_once_and_leaves_nothing_else(made: Path) -> None:
    stamp = (made / "demo" / "demo.json").stat().st_mtime_ns
    source_in(made).load(Split.test)
    assert (made / "demo" / "demo.json").stat().st_mtime_ns == stamp
    assert [path.name for path in made.iterdir()] == ["demo"]


def test_fewer_images_are_the_first_ones(made: Path, tmp_path: Path) -> None:
    source_in(tmp_path, train_images=2, test_images=1).load(Split.train)
    images = {name: data for name, data in bytes_of(tmp_path).items() if "JPEGImages" in name}
    assert len(images) == 3
    assert images.items() <= bytes_of(made).items()


def test_is_a_sound_voc_folder(made: Path) -> None:
    source = VocSource(root=str(made / "demo"), max_bad=0)
    train, test = source.load(Split.train), source.load(Split.test)
    assert (len(train), len(test)) == (12, 8)
    assert train.classes == ("astronaut", "cameraman", "cat", "coin", "cup", "motorcycle", "shuttle")
    assert set(check_source(source).counts) <= {"untrained_class"}
    for record in (*train.records, *test.records):
        height, width = record.image_size
        assert 240 <= height <= 300
        assert 320 <= width <= 400
    for truth in (*train.ground_truth.values(), *test.ground_truth.values()):
        assert 1 <= len(truth) <= 7
        assert (truth.boxes[:, 2:] - truth.boxes[:, :2]).min() >= 8


def test_sizes_vary_and_all_classes_come(made: Path) -> None:
    train = source_in(made).load(Split.train)
    labels = Counter(label for truth in train.ground_truth.values() for label in truth.labels.tolist())
    assert set(labels) == set(range(1, 8))
    sides = np.sqrt(np.concatenate([box_ops.area(truth.boxes) for truth in train.ground_truth.values()]))
    assert sides.max() > 2.5 * sides.min()


def test_chosen_classes(made: Path) -> None:
    source = source_in(made)
    source.classes = ["cup", "coin"]
    assert source.load(Split.test).classes == ("cup", "coin")


def test_a_place_that_is_taken(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoDataError, match=r"expected demo data of .*'seed': 3.*another dataset\.root"):
        source_in(made, seed=3).load(Split.test)
    (tmp_path / "demo").mkdir()
    assert not source_in(tmp_path).has(Split.val)
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    with pytest.raises(DemoDataError, match=r"set another dataset\.root"):
        source_in(tmp_path).load(Split.test)
    assert (tmp_path / "demo" / "mine.txt").read_text() == "mine"


def test_without_scikit_image_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DemoDataError, match=r"pip install 'detpipe\[demo\]'"):
        source_in(tmp_path).load(Split.test)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(demo, "write_voc_annotation", fail)
    with pytest.raises(OSError, match="disk full"):
        source_in(tmp_path).load(Split.test)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked() -> None:
    for wrong in ({"train_images": 0}, {"test_images": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected 1 or more"):
            DemoSource(**wrong)
