"""A plain classifier on drawn colours: it learns, is the same after a stop, and sees what the view says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from detpipe.backbone.input_spec import InputSpec
from detpipe.classify.images import train as module
from detpipe.classify.images.database import ImagesReader, image_key
from detpipe.classify.images.network import ImageClassifier
from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.train import ImageBatch, all_logits, read_batch, train_images, validation
from detpipe.classify.images.view import draw_views
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.heads.softmax import SoftmaxHead
from detpipe.network.batch_order import plain_order
from detpipe.network.train_network import RunContext
from detpipe.resize import Interpolation
from detpipe.solver.ranks import Ranks
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.training_log import read_log
from detpipe.storage.datum import caffe_datum
from detpipe.storage.lmdb_store import LmdbWriter
from tests.classify.tiny import SIDE, TinyBackbone

CPU = torch.device("cpu")
HEAD = TrainedHeadConfig(dropout=0.0, freeze_stages=0)
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


def trained(
    reader: ImagesReader,
    folder: Path,
    *,
    view: ViewConfig | None = None,
    ranks: Ranks | None = None,
    threads: int = 1,
) -> ImageClassifier:
    one = network()
    train_images(
        *(one, reader, reader),
        view=view if view is not None else ViewConfig(),
        head=HEAD,
        context=RunContext(
            solver=replace(SOLVER, prefetch_threads=threads),
            folder=folder,
            key="key",
            seed=0,
            device=CPU,
            bf16=False,
            ranks=ranks if ranks is not None else Ranks(),
        ),
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


def spec_of(side: int, interpolation: Interpolation = Interpolation.bilinear) -> InputSpec:
    return InputSpec((side, side), (127.0, 127.0, 127.0), (64.0, 64.0, 64.0), interpolation=interpolation)


@pytest.mark.parametrize("side", [SIDE // 2, 2 * SIDE])
def test_images_are_resized_as_the_networks_spec_says(reader: ImagesReader, side: int) -> None:
    for interpolation in (Interpolation.bilinear, Interpolation.bicubic):
        batch = read_batch(reader, [3], spec_of(side, interpolation), ViewConfig(share=1.0), None)
        wanted = PIL.Image.fromarray(reader.image(3)).resize(
            (side, side), PIL.Image.Resampling[interpolation.value.upper()]
        )
        np.testing.assert_array_equal(batch.images[0], np.asarray(wanted))


def test_batches_by_hand(reader: ImagesReader) -> None:
    spec = spec_of(SIDE)
    middle = read_batch(reader, [3, 0], spec, ViewConfig(), None)
    np.testing.assert_array_equal(middle.images[0], reader.image(3)[2:-2, 2:-2])
    assert middle.labels.tolist() == [1, 0]
    draws = draw_views(np.random.default_rng(0), 40)
    fixed = ViewConfig(random_crop=False)
    still = read_batch(reader, [3] * 40, spec, fixed, draws, flip=False)
    assert (still.images == middle.images[0]).all()
    maybe = read_batch(reader, [3] * 40, spec, fixed, draws, flip=True)
    turned = [np.array_equal(one, middle.images[0][:, ::-1]) for one in maybe.images]
    assert turned == [one.mirror < 0.5 for one in draws]
    assert 8 < sum(turned) < 32
    coloured = read_batch(reader, [3] * 40, spec, ViewConfig(random_crop=False, colour=0.5), draws)
    assert (coloured.images != middle.images[0]).any(axis=(1, 2, 3)).all()
    empty = read_batch(reader, [], spec, ViewConfig(), None)
    assert empty.images.shape == (0, SIDE, SIDE, 3)


def test_a_small_image_is_named(reader: ImagesReader) -> None:
    with pytest.raises(ValueError, match=r"record 00000005_a: expected images of at least 64 x 64"):
        read_batch(reader, [5], spec_of(64), ViewConfig(), None)


def test_an_empty_database_has_no_logits(tmp_path: Path) -> None:
    with ImagesReader(write_images(tmp_path / "none", 0)) as empty:
        assert all_logits(network().eval(), empty, ViewConfig(), CPU, False).shape == (0, 0)


def test_validation_looks_at_all(reader: ImagesReader) -> None:
    one = network().eval()
    found = validation(one, reader, ViewConfig(), CPU, False)()
    logits = torch.from_numpy(all_logits(one, reader, ViewConfig(), CPU, False))
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(reader.labels))
    assert found["val_loss"] == pytest.approx(float(wanted))


def test_each_of_two_ranks_sees_its_part_of_the_same_batch(
    reader: ImagesReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is drawn, a rank's images are every second one of the batch of one process."""
    seen: dict[int, ImageBatch] = {}
    view = ViewConfig(share=1.0, random_area=0.2, colour=0.3, mixup=1.0)

    def take_batch(
        network: object, *, make_batch: Callable[[int], ImageBatch], context: RunContext, **_: object
    ) -> dict[str, float]:
        seen[10 * context.ranks.size + context.ranks.rank] = make_batch(3)
        return {}

    monkeypatch.setattr(module, "train_network", take_batch)
    for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2)):
        trained(reader, tmp_path / f"{ranks.rank}_{ranks.size}", view=view, ranks=ranks)
    for rank in (0, 1):
        np.testing.assert_array_equal(seen[20 + rank].images, seen[10].images[rank::2])
        np.testing.assert_array_equal(seen[20 + rank].labels, seen[10].labels[rank::2])
        part, whole = seen[20 + rank].mixing, seen[10].mixing
        assert part is not None
        assert whole is not None
        np.testing.assert_array_equal(part.weights, whole.weights[rank::2])


def test_it_learns_from_mixed_images_on_many_threads(reader: ImagesReader, tmp_path: Path) -> None:
    view = ViewConfig(mixup=0.2, colour=0.1)
    one, again = (trained(reader, tmp_path / f"{threads}", view=view, threads=threads) for threads in (1, 8))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
