"""Spreading the values of dark and deep images, through every door that images are read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe.datasets.image_file import as_image, from_pillow, read_grey, read_image
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split
from detpipe.datasets.stretch import stretched
from detpipe.structures import ReadOptions, Stretch

BITS, PERCENTILE = ReadOptions(stretch=Stretch.bits), ReadOptions(stretch=Stretch.percentile)


def test_bits_by_hand() -> None:
    """4,095 needs 12 bits: the upper 8 of 12 are kept."""
    deep = np.array([[0, 16, 2048, 4095]], np.uint16)
    assert stretched(deep, Stretch.bits).tolist() == [[0, 1, 128, 255]]
    assert stretched(deep, Stretch.none).tolist() == [[0, 0, 8, 15]]
    assert stretched(np.array([[0, 1, 7]], np.uint8), Stretch.bits).tolist() == [[0, 32, 224]]
    assert stretched(np.array([[0, 128, 255]], np.uint8), Stretch.bits).tolist() == [[0, 128, 255]]
    assert stretched(np.array([[0, 255, 65535]], np.uint16), Stretch.bits).tolist() == [[0, 0, 255]]


def test_percentile_by_hand() -> None:
    """Of 0..1000 the 0.5th percentile is 5, the 99.5th 995: 500 is half way."""
    pixels = np.arange(1001, dtype=np.uint16)[None]
    found = stretched(pixels, Stretch.percentile)[0]
    assert found[[0, 5, 500, 995, 1000]].tolist() == [0, 0, 128, 255, 255]
    assert stretched(np.full((3, 3), 7, np.uint8), Stretch.percentile).tolist() == [[0] * 3] * 3
    one_bright = np.zeros((100, 100), np.uint8)
    one_bright[5, 5] = 9
    assert stretched(one_bright, Stretch.percentile)[5, 5] == 255


@pytest.mark.parametrize("stretch", Stretch)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_pixels_and_black_ones(stretch: Stretch, dtype: type) -> None:
    assert stretched(np.zeros((0, 4, 3), dtype), stretch).size == 0
    assert stretched(np.zeros((2, 4, 3), dtype), stretch).max() == 0


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [BITS, PERCENTILE])
def test_every_way_to_an_image_gives_the_same(tmp_path: Path, suffix: str, channels: int, options: ReadOptions) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (20, 30, channels), dtype=np.uint16).squeeze()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    rgb = deep if channels == 1 else deep[..., ::-1]
    expected = stretched(rgb, options.stretch)
    if channels == 1:
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path, options), expected)
    np.testing.assert_array_equal(as_image(path, options), expected)
    np.testing.assert_array_equal(as_image(np.ascontiguousarray(rgb), options), expected)
    assert read_image(path).max() == 15
    if channels == 1:
        np.testing.assert_array_equal(read_grey(path, options), expected[..., 0])
        with PIL.Image.open(path) as picture:
            np.testing.assert_array_equal(from_pillow(picture, options), expected)


def test_records_of_a_data_set_say_how_they_are_read(tmp_path: Path) -> None:
    deep = np.full((5, 6), 4095, np.uint16)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    source = ImageFolderSource(root=str(tmp_path), stretch=Stretch.bits, max_pixels=30)
    record = source.load(Split.test).records[0]
    assert record.options == ReadOptions(30, Stretch.bits)
    assert read_image(record.path, record.options).max() == 255
    with pytest.raises(ValueError, match="max_pixels: expected at least 1, got 0"):
        ImageFolderSource(root=str(tmp_path), max_pixels=0)
    with pytest.raises(ValueError, match=r"at most 29 pixels, got a huge one of 6 x 5"):
        ImageFolderSource(root=str(tmp_path), max_pixels=29).load(Split.test)
    by_name = ImageFolderSource(root=str(tmp_path), stretch="bits")  # type: ignore[arg-type]
    assert by_name.stretch is Stretch.bits
    with pytest.raises(ValueError, match="stretch: expected one of none, bits, percentile, got 'more'"):
        ImageFolderSource(root=str(tmp_path), stretch="more")  # type: ignore[arg-type]
