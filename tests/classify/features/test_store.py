"""The store of features: the same bytes however often it was stopped, rows taken over, damage named."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from detpipe.classify.features import store as feature_store
from detpipe.classify.features.store import (
    FEATURES,
    GROUP,
    FeatureStore,
    FeatureStoreError,
    ImageRegions,
    fill_store,
    missing_regions,
    open_store,
)
from detpipe.classify.labeling import Regions
from detpipe.datasets.image_file import file_digest
from detpipe.storage.interrupt import Interrupted, StopRequest
from detpipe.storage.manifest import Artefact
from detpipe.structures import Float32Array, Image, ImageRecord

IMAGES = 2 * GROUP + 3


class MeanColour:
    """Features that are worked out by hand: the image's mean, and the box."""

    width = 5

    def __init__(self) -> None:
        self.seen = 0

    def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
        for image, boxes in images:
            self.seen += len(boxes)
            yield np.hstack([np.full((len(boxes), 1), image.mean(), np.float32), boxes])


class StopsAfter(StopRequest):
    """A signal that comes when it has been asked for so often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30, 3), 10 * number, np.uint8))
    return folder


def plan_of(folder: Path, regions: int = 3) -> list[ImageRegions]:
    """Image n has n % (regions + 1) regions, the first of class 1."""
    plan = []
    for number in range(IMAGES):
        path, n = folder / f"{number}.png", number % (regions + 1)
        boxes = np.array([[i, i, i + 5, i + 6] for i in range(n)], np.float32).reshape(-1, 4)
        labels = (np.arange(n) == 0).astype(np.int64)
        overlaps = labels.astype(np.float32)
        found = Regions(boxes, labels, overlaps, np.zeros((n, 4), np.float32))
        record = ImageRecord(str(number), path, (20, 30))
        plan.append(ImageRegions(record, file_digest(path), found, overlaps[:, None], np.arange(n)))
    return plan


def fill(
    path: Path,
    plan: list[ImageRegions],
    extractor: MeanColour,
    stop: StopRequest | None = None,
    before: Sequence[FeatureStore] = (),
) -> bool:
    """One run of the stage; whether it came to its end. stop: in place of a signal."""
    artefact = Artefact(path, stage="features", settings={"classes": ["a"], "category_ids": [1]}, inputs={})
    signals = mock.patch.object(
        feature_store, "stop_on_signal", return_value=contextlib.nullcontext(stop or StopRequest())
    )
    try:
        with signals, artefact.making(overwrite=False) as making:
            making.summary = fill_store(path, plan, extractor, before=before, classes=1)
    except Interrupted:
        return False
    return True


def test_rows_and_columns(images: Path, tmp_path: Path) -> None:
    plan = plan_of(images)
    assert fill(tmp_path / "store", plan, MeanColour())
    store = open_store(tmp_path / "store")
    assert len(store) == sum(n % 4 for n in range(IMAGES))
    assert store.features.dtype == np.float16
    assert isinstance(store.features, np.memmap)
    assert store.features[store.spans["3"]].tolist() == [[30, i, i, i + 5, i + 6] for i in range(3)]
    assert store.spans["4"] == slice(6, 6)  # an image without regions
    assert store.labels[store.spans["7"]].tolist() == [1, 0, 0]
    assert store.images[store.spans["7"]].tolist() == [7, 7, 7]
    # Its share of the 20 x 30 image, as a logarithm.
    assert store.geometry[0, 0] == pytest.approx(np.log(30 / 600))


def test_stopped_or_killed_it_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    plan = plan_of(images)
    assert fill(tmp_path / "whole", plan, MeanColour())
    stopped = MeanColour()
    assert not fill(tmp_path / "stopped", plan, stopped, StopsAfter(1))
    seen = stopped.seen
    # A kill in the middle of the next group leaves rows that are not counted as done.
    raw = bytearray((tmp_path / "stopped" / FEATURES).read_bytes())
    start = len(raw) - 10 * sum(len(one.regions) for one in plan) + 10 * seen
    raw[start : start + 7] = b"\xff" * 7
    (tmp_path / "stopped" / FEATURES).write_bytes(raw)
    assert fill(tmp_path / "stopped", plan, stopped)
    assert stopped.seen == sum(len(one.regions) for one in plan)  # none twice
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == names
    for name in set(names) - {"manifest.json"}:  # which has the seconds
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_was_done_of_other_regions_is_not_done(images: Path, tmp_path: Path) -> None:
    """A killed run of another number of regions leaves a file of another size: nothing in it counts."""
    assert not fill(tmp_path / "store", plan_of(images), MeanColour(), StopsAfter(1))
    assert fill(tmp_path / "store", plan_of(images, 2), MeanColour())
    assert fill(tmp_path / "whole", plan_of(images, 2), MeanColour())
    assert (tmp_path / "store" / FEATURES).read_bytes() == (tmp_path / "whole" / FEATURES).read_bytes()


def test_a_store_of_other_regions_takes_over_the_rows_that_are_there(images: Path, tmp_path: Path) -> None:
    assert fill(tmp_path / "few", plan_of(images, 2), MeanColour())
    before = open_store(tmp_path / "few")
    plan, extractor = plan_of(images, 4), MeanColour()
    assert fill(tmp_path / "more", plan, extractor, before=[before])
    assert fill(tmp_path / "anew", plan, MeanColour())
    missing = sum(len(one.regions) for one in missing_regions(plan, [before]))
    assert 0 < extractor.seen == missing < sum(len(one.regions) for one in plan)
    assert (tmp_path / "more" / FEATURES).read_bytes() == (tmp_path / "anew" / FEATURES).read_bytes()
    # The same regions: nothing is computed.
    nothing = MeanColour()
    assert fill(tmp_path / "again", plan, nothing, before=[open_store(tmp_path / "few"), open_store(tmp_path / "more")])
    assert nothing.seen == 0
    assert (tmp_path / "again" / FEATURES).read_bytes() == (tmp_path / "more" / FEATURES).read_bytes()


def test_no_regions_at_all(images: Path, tmp_path: Path) -> None:
    assert fill(tmp_path / "empty", plan_of(images, 0), MeanColour())
    store = open_store(tmp_path / "empty")
    assert store.features.shape == (0, 5)
    assert store.class_ious.shape == (0, 1)


def test_damage_is_named(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert fill(path, plan_of(images), MeanColour())
    whole = (path / FEATURES).read_bytes()
    first = np.load(path / FEATURES, mmap_mode="r").offset + 20
    for spoilt, message in (
        (whole[:-2], "features.npy: .*size"),
        (whole + b"..", "float16 and 2 more bytes"),
        (whole[:100], "features.npy: "),  # in the header
        (b"no array", "features.npy: .*magic"),
        (b"", "features.npy: "),
        (whole[:first] + b"\x00\x7e" + whole[first + 2 :], "NaN or infinity .*overwrite=true"),  # NaN
        (whole[:first] + b"\x00\xfc" + whole[first + 2 :], "NaN or infinity .*overwrite=true"),  # minus infinity
    ):
        (path / FEATURES).write_bytes(spoilt)
        with pytest.raises(FeatureStoreError, match=message):
            open_store(path)
    (path / FEATURES).write_bytes(whole)
    ious = np.load(path / "ious.npy")
    ious[1] = np.inf
    np.save(path / "ious.npy", ious)
    with pytest.raises(FeatureStoreError, match=r"ious\.npy: .*NaN or infinity"):
        open_store(path)
    np.save(path / "ious.npy", ious[:-1])
    with pytest.raises(FeatureStoreError, match=r"ious\.npy: .*\(27,\) float32, got \(26,\) float32"):
        open_store(path)
    (path / "ious.npy").unlink()
    with pytest.raises(FeatureStoreError, match=r"ious\.npy: .*No such file"):
        open_store(path)
    listed = json.loads((path / "images.json").read_text())
    listed[1]["regions"] += 1
    (path / "images.json").write_text(json.dumps(listed))
    with pytest.raises(FeatureStoreError, match="regions in all"):
        open_store(path)
    (path / "images.json").write_text("{")
    with pytest.raises(FeatureStoreError, match="a feature store"):
        open_store(path)


def test_any_broken_header_is_named(images: Path, tmp_path: Path) -> None:
    """Each byte of the header as another one: an error of the store's, or the same array."""
    path = tmp_path / "store"
    assert fill(path, plan_of(images), MeanColour())
    whole = (path / FEATURES).read_bytes()
    for place in range(100):
        for byte in b'\x00("9\xff':
            (path / FEATURES).write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            with contextlib.suppress(FeatureStoreError):
                assert len(open_store(path)) == 27


def test_a_full_disk_is_found_before_anything_is_computed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store, "write_array_header_1_0", full)
    extractor = MeanColour()
    with pytest.raises(OSError, match="0 MB of disk for the features, got: No space left") as raised:
        fill(tmp_path / "store", plan_of(images), extractor)
    assert raised.value.filename == str(tmp_path / "store" / FEATURES)
    assert extractor.seen == 0
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["manifest.json"]


@pytest.mark.skipif(not hasattr(os.stat_result, "st_blocks"), reason="the system doesn't tell")
def test_all_room_is_taken_first(images: Path, tmp_path: Path) -> None:
    class Wide(MeanColour):
        width = 10**5

        def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
            return (np.ones((len(boxes), self.width), np.float32) for _, boxes in images)

    plan = plan_of(images)
    assert not fill(tmp_path / "store", plan, Wide(), StopsAfter(1))
    found = (tmp_path / "store" / FEATURES).stat()
    assert found.st_blocks * 512 >= found.st_size > sum(len(one.regions) for one in plan) * 2 * 10**5


def test_features_beyond_float16(images: Path, tmp_path: Path) -> None:
    class Huge(MeanColour):
        def features(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Float32Array]:
            return (values * 1e6 for values in super().features(images))

    with pytest.raises(FeatureStoreError, match="float16's 65504"):
        fill(tmp_path / "store", plan_of(images), Huge())


@pytest.mark.parametrize(
    ("listed", "key"),
    [
        ([{"image_id": "0"}], "regions"),
        ([{"image_id": None, "regions": 0}], "image id"),
        ([{"image_id": "0", "regions": "x"}], "regions"),
        ({"image_id": "0", "regions": 0}, "expected list"),
        (None, "expected list"),
    ],
)
def test_a_damaged_list_of_images_is_named_with_its_key(images: Path, tmp_path: Path, listed: object, key: str) -> None:
    path = tmp_path / "store"
    assert fill(path, plan_of(images), MeanColour())
    (path / "images.json").write_text(json.dumps(listed))
    with pytest.raises(FeatureStoreError, match=rf"images\.json.*{key}.*run detpipe features overwrite=true"):
        open_store(path)


@pytest.mark.parametrize("done", ["-1", "1000", '"x"', "null", "[]", "1.5", ""])
def test_a_damaged_count_of_finished_images_starts_again(images: Path, tmp_path: Path, done: str) -> None:
    path, whole = tmp_path / "store", tmp_path / "whole"
    assert fill(whole, plan_of(images), MeanColour())
    assert not fill(path, plan_of(images), MeanColour(), StopsAfter(1))
    (path / "done.json").write_text(done)
    assert fill(path, plan_of(images), MeanColour())
    assert (path / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()


def test_a_short_array_does_not_grow_when_a_run_is_resumed(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert not fill(path, plan_of(images), MeanColour(), StopsAfter(1))
    data = (path / "features.npy").read_bytes()
    (path / "features.npy").write_bytes(data[:-10])
    assert fill(path, plan_of(images), MeanColour())
    assert len((path / "features.npy").read_bytes()) == len(data)
    assert len(open_store(path)) == sum(n % 4 for n in range(IMAGES))
