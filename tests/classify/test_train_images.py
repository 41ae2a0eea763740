"""A plain classifier on drawn colours: it learns, is the same after a stop, and sees what the view says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detpipe.classify.batch_order import plain_order
from detpipe.classify.classifier import HeadConfig
from detpipe.classify.image_classifier import ImageClassifier
from detpipe.classify.image_db import ImagesReader, image_key
from detpipe.classify.train_images import all_logits, read_batch, train_images, validation
from detpipe.classify.view import ViewConfig
from detpipe.heads.softmax import SoftmaxHead
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.storage.datum import caffe_datum
from detpipe.storage.lmdb_store import LmdbWriter
from tests.classify.tiny import SIDE, TinyBackbone

CPU = torch.device("cpu")
HEAD = HeadConfig(dropout=0.0, freeze_stages=0)
SOLVER = SolverConfig(max_iter=60, batch_size=8, base_lr=0.01, display=20, test_interval=30, snapshot=20)


def write_images(path: Path, count: int, side: int = SIDE + 4) -> Path:
    """Images of two classes by turns, reddish and bluish, with noise."""
    generator = np.random.default_rng(0)
    with LmdbWriter(path) as writer:
        for place in range(count):
            image = generator.integers(0, 120, (side, side, 3), dtype=np.uint8)
            image[:, :, 2 * (place % 2)] += 100
            writer.put(image_key(place, "a"), caffe_datum(image, place % 2).SerializeToString())
    return path


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ImagesReader]:
    with ImagesReader(write_images(tmp_path / "db", 24)) as one:
        yield one


def network() -> ImageClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = TinyBackbone()
    return ImageClassifier(backbone, SoftmaxHead(8, 2, generator=torch.Generator().manual_seed(0)), dropout=0.0)


def trained(reader: ImagesReader, folder: Path, solver: SolverConfig = SOLVER) -> ImageClassifier:
    one = network()
    train_images(
        *(one, reader, reader),
        view=ViewConfig(),
        head=HEAD,
        solver=solver,
        folder=folder,
        key="key",
        seed=0,
        device=CPU,
        bf16=False,
    )
    return one


def test_it_learns(reader: ImagesReader, tmp_path: Path) -> None:
    one = trained(reader, tmp_path / "run").eval()
    assert (all_logits(one, reader, ViewConfig(), CPU, False).argmax(axis=1) == reader.labels).all()
    assert read_log(tmp_path / "run/log.jsonl")[-1]["val_accuracy"] == 1.0


def test_it_is_the_same_from_a_snapshot(reader: ImagesReader, tmp_path: Path) -> None:
    whole = trained(reader, tmp_path / "whole")
    for path in sorted((tmp_path / "whole/snapshots").iterdir())[1:]:
        path.unlink()
    again = trained(reader, tmp_path / "whole")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_batches_are_whole_passes() -> None:
    order = plain_order(10, batch_size=4, seed=0)
    seen = np.concatenate([order(number) for number in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    with pytest.raises(ValueError, match="at least one example"):
        plain_order(0, batch_size=4, seed=0)(0)


def test_batches_by_hand(reader: ImagesReader) -> None:
    size = (SIDE, SIDE)
    middle = read_batch(reader, [3, 0], size, ViewConfig(), None)
    np.testing.assert_array_equal(middle.images[0], reader.image(3)[2:-2, 2:-2])
    assert middle.labels.tolist() == [1, 0]
    still = read_batch(reader, [3], size, ViewConfig(random_crop=False), np.random.default_rng(0), flip=False)
    np.testing.assert_array_equal(still.images[0], middle.images[0])
    mirrored = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        one = read_batch(reader, [3], size, ViewConfig(random_crop=False), generator, flip=True).images[0]
        turned = np.array_equal(one, middle.images[0][:, ::-1])
        assert turned or np.array_equal(one, middle.images[0])
        mirrored += turned
    assert 8 < mirrored < 32
    empty = read_batch(reader, [], size, ViewConfig(), None)
    assert empty.images.shape == (0, SIDE, SIDE, 3)


def test_a_small_image_is_named(reader: ImagesReader) -> None:
    with pytest.raises(ValueError, match=r"record 00000005_a: wanted images of at least 64 x 64"):
        read_batch(reader, [5], (64, 64), ViewConfig(), None)


def test_an_empty_database_has_no_logits(tmp_path: Path) -> None:
    with ImagesReader(write_images(tmp_path / "none", 0)) as empty:
        assert all_logits(network().eval(), empty, ViewConfig(), CPU, False).shape == (0, 0)


def test_validation_looks_at_all(reader: ImagesReader) -> None:
    one = network().eval()
    found = validation(one, reader, ViewConfig(), CPU, False)()
    logits = torch.from_numpy(all_logits(one, reader, ViewConfig(), CPU, False))
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(reader.labels))
    assert found["val_loss"] == pytest.approx(float(wanted))
