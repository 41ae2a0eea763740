"""The database of labelled images: Caffe's own bytes, every form of a record, reading Caffe's and ours, damage."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.classify.images.database import (
    BrokenImage,
    Encode,
    ImageForm,
    ImageRecord,
    ImagesReader,
    ImageTask,
    Resize,
    describe_runs,
    image_key,
    image_order,
    make_image_record,
    stored_label,
    stored_paths,
)
from detpipe.storage.datum import CorruptDatumError, caffe_datum
from detpipe.storage.lmdb_store import MAX_KEY, DatabaseError, LmdbWriter
from detpipe.storage.messages_pb2 import Datum

AS_IT_IS = ImageForm(Resize(), Encode.none, grey=False, quality=95)


def saved(path: Path, *, size: tuple[int, int] = (20, 30), orientation: int = 1, grey: bool = False) -> Path:
    few = np.random.default_rng(0).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    pixels = cv2.resize(few, size[::-1])  # smooth, so that JPEG keeps it
    image = PIL.Image.fromarray(pixels[:, :, 0] if grey else pixels)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif)
    return path


def datum_of(path: Path, form: ImageForm) -> Datum:
    record = make_image_record(ImageTask(path, 3, b"key", form))
    assert isinstance(record, ImageRecord)
    datum = Datum.FromString(record.value)
    assert record.size == (datum.height, datum.width)
    return datum


def write(path: Path, datums: list[Datum]) -> Path:
    with LmdbWriter(path) as writer:
        for place, datum in enumerate(datums):
            writer.put(image_key(place, "a.png"), datum.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("256x128", Resize(size=(256, 128))), ("short:256", Resize(short=256)), ("none", Resize())],
)
def test_resize_as_text(text: str, wanted: Resize) -> None:
    assert Resize.parse(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "256", "0x5", "-1x5", "5x", "short:", "short:0", "long:5", "5x5x5", "123456x1", "٣x5"]
)
def test_another_resize_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected HEIGHTxWIDTH"):
        Resize.parse(text)


def test_resize_by_hand() -> None:
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[:, 15:] = 200
    assert Resize()(image) is image
    assert Resize(short=20)(image) is image
    assert Resize(size=(8, 4))(image).shape == (8, 4, 3)
    assert Resize(short=10)(image[:, :, 0]).shape == (10, 15)
    assert Resize(short=10)(image.transpose(1, 0, 2)).shape == (15, 10, 3)
    assert Resize(short=40)(image).shape == (40, 60, 3)
    # 3 columns become 2: the middle one is shared, half and half.
    assert Resize(short=2)(np.array([[0, 100, 200]] * 3, dtype=np.uint8)).tolist() == [[33, 167]] * 2
    assert Resize(short=5)(np.zeros((5000, 5, 3), np.uint8)).shape == (5000, 5, 3)


@pytest.mark.parametrize("grey", [False, True])
def test_a_raw_record_is_what_opencv_and_caffe_make_of_the_file(tmp_path: Path, grey: bool) -> None:
    """Against convert_imageset's own calls: cv::imread, cv::resize, planes, `encoded` false."""
    path = saved(tmp_path / "a.jpg")
    read = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    assert read is not None
    resized = cv2.resize(read, (24, 16))
    planes = resized[None] if grey else resized.transpose(2, 0, 1)
    wanted = Datum(channels=len(planes), height=16, width=24, data=planes.tobytes(), label=3, encoded=False)
    form = ImageForm(Resize(size=(16, 24)), Encode.none, grey=grey, quality=95)
    assert datum_of(path, form).SerializeToString() == wanted.SerializeToString()


@pytest.mark.parametrize(("encode", "suffix"), [(Encode.jpg, ".jpeg"), (Encode.png, ".png")])
def test_a_file_of_the_kind_is_taken_as_it_is(tmp_path: Path, encode: Encode, suffix: str) -> None:
    path = saved(tmp_path / f"a{suffix}")
    datum = datum_of(path, ImageForm(Resize(), encode, grey=False, quality=50))
    assert datum.data == path.read_bytes()
    assert (datum.channels, datum.height, datum.width, datum.encoded, datum.label) == (3, 20, 30, True, 3)


@pytest.mark.parametrize(
    ("orientation", "resize", "grey", "suffix"),
    [
        (6, Resize(), False, ".jpg"),
        (1, Resize(size=(8, 8)), False, ".jpg"),
        (1, Resize(), True, ".jpg"),
        (1, Resize(), False, ".png"),
    ],
    ids=["turned", "resized", "made grey", "of another kind"],
)
def test_any_other_is_encoded_as_it_is_seen(
    tmp_path: Path, orientation: int, resize: Resize, grey: bool, suffix: str
) -> None:
    path = saved(tmp_path / f"a{suffix}", orientation=orientation)
    datum = datum_of(path, ImageForm(resize, Encode.jpg, grey=grey, quality=100))
    assert datum.data != path.read_bytes()
    wanted = datum_of(path, ImageForm(resize, Encode.none, grey=grey, quality=95))
    db = write(tmp_path / "db", [datum, wanted])
    with ImagesReader(db) as reader:
        encoded, raw = reader.image(0).astype(int), reader.image(1).astype(int)
    assert encoded.shape == raw.shape
    assert np.abs(encoded - raw).mean() < 12


def test_a_grey_file_stays_grey(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", grey=True)
    datum = datum_of(path, ImageForm(Resize(), Encode.png, grey=True, quality=95))
    assert (datum.channels, datum.data) == (1, path.read_bytes())


def test_a_broken_image_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for data in (b"", b"no image", saved(tmp_path / "whole.jpg").read_bytes()[:-20]):
        path.write_bytes(data)
        broken = make_image_record(ImageTask(path, 0, b"key", AS_IT_IS))
        assert isinstance(broken, BrokenImage)
        assert "a.jpg: expected an image file" in broken.reason
    assert isinstance(make_image_record(ImageTask(tmp_path / "none.jpg", 0, b"key", AS_IT_IS)), BrokenImage)


def test_keys_are_caffes() -> None:
    assert image_key(42, "n01/a b.JPEG") == b"00000042_n01/a b.JPEG"
    assert len(image_key(0, "x" * 1000)) == MAX_KEY


def test_the_order_is_a_permutation_drawn_from_the_seed() -> None:
    assert image_order(5, shuffle=False, seed=0).tolist() == [0, 1, 2, 3, 4]
    one = image_order(100, shuffle=True, seed=1)
    assert sorted(one) == list(range(100))
    assert one.tolist() == image_order(100, shuffle=True, seed=1).tolist()
    assert one.tolist() != image_order(100, shuffle=True, seed=2).tolist()
    assert image_order(0, shuffle=True, seed=0).shape == (0,)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([0] * 6 + [1] * 6, "6 records of label 0"),
        ([2] * 3 + [1] * 9 + [5] * 4, "9 records of label 1"),
        ([0, 1] * 6, ""),
        ([3] * 20, ""),
        ([0, 0, 1, 1], ""),
        (list(range(20)), ""),
        ([], ""),
    ],
)
def test_runs_of_labels(labels: list[int], wanted: str) -> None:
    found = describe_runs(labels)
    assert wanted in found
    assert bool(wanted) == bool(found)


@given(st.integers(0, 1000))
def test_a_shuffled_order_has_no_runs(seed: int) -> None:
    labels = np.repeat(np.arange(5), 20)[image_order(100, shuffle=True, seed=seed)]
    assert describe_runs(labels) == ""


def test_caffes_own_database(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shared_data / "caffe/datum_lmdb_sujack1"
    with caplog.at_level(logging.WARNING), ImagesReader(folder / "train_lmdb") as reader:
        assert reader.labels.tolist() == [0] * 6 + [1] * 6
        assert reader.key(11) == b"00000011_cr6.jpg"
        image = cv2.imread(str(folder / "train_raw_img/cr6.jpg"))
        assert image is not None
        wanted = cv2.resize(image, (256, 256))
        np.testing.assert_array_equal(reader.image(11), wanted[:, :, ::-1])
        np.testing.assert_array_equal(reader.planes(11), wanted.transpose(2, 0, 1))
    assert "it was not shuffled" in caplog.text


def test_shards_are_read_one_after_the_other(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    write(tmp_path / "db/shard_00001", [caffe_datum(image, 7)])
    write(tmp_path / "db/shard_00000", [caffe_datum(image, 5), caffe_datum(image, 6)])
    assert [path.name for path in stored_paths(tmp_path / "db")] == ["shard_00000", "shard_00001"]
    with ImagesReader(tmp_path / "db") as reader:
        assert reader.labels.tolist() == [5, 6, 7]


def test_an_empty_database(tmp_path: Path) -> None:
    with ImagesReader(write(tmp_path / "db", [])) as reader:
        assert len(reader) == 0
        assert reader.labels.shape == (0,)


def test_a_file_with_a_damaged_page_is_an_error_before_lmdb_follows_it(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [caffe_datum(np.zeros((40, 40, 3), np.uint8), 1)] * 40)
    data = bytearray((path / "data.mdb").read_bytes())
    with ImagesReader(path) as reader:
        assert len(reader) == 40
    page = 4096
    for begin in range(2 * page, len(data), page):
        data[begin : begin + 32] = b"\xff" * 32
    (path / "data.mdb").write_bytes(data)
    with pytest.raises(DatabaseError, match=r"data\.mdb: "):
        ImagesReader(path)


def test_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="run make-db"):
        ImagesReader(tmp_path)


@pytest.mark.parametrize("side", [2, 200])
@pytest.mark.parametrize("label", [0, 7, 1 << 20])
def test_the_label_of_small_and_large_records(side: int, label: int) -> None:
    record = caffe_datum(np.zeros((side, side, 3), np.uint8), label).SerializeToString()
    assert stored_label(memoryview(record), "here") == label
    with pytest.raises(CorruptDatumError, match="here: expected a Datum"):
        stored_label(memoryview(record[:-3]), "here")
    without = Datum(data=b"x" * side**2, channels=1)
    assert stored_label(memoryview(without.SerializeToString()), "here") == 0


@pytest.mark.parametrize("side", [2, 200])
def test_a_negative_label_is_named(tmp_path: Path, side: int) -> None:
    path = write(tmp_path / "db", [caffe_datum(np.zeros((side, side, 3), np.uint8), -3)])
    with pytest.raises(CorruptDatumError, match=r"record 00000000_a\.png: expected a label of 0 or more, got -3"):
        ImagesReader(path)


@given(st.binary(max_size=120))
def test_any_record_is_an_image_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, record: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "db"
    with LmdbWriter(path) as writer:
        writer.put(b"0_a", record)
    try:
        with ImagesReader(path) as reader:
            assert reader.image(0).ndim == 3
    except CorruptDatumError as error:
        assert "record 0_a: " in str(error)  # noqa: PT017
