"""What of an image a network sees: the middle, a random place, a share, a random area; whole or reduced in decoding."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.classify.images.settings import ViewConfig
from detpipe.classify.images.view import Cut, Draws, draw_views, place_cut, reduction_of, take_cut, view_datum
from detpipe.resize import Interpolation
from detpipe.storage.datum import CorruptDatumError, caffe_datum, caffe_encoded_datum
from detpipe.storage.messages_pb2 import Datum
from detpipe.structures import Image

IMAGE = np.arange(5 * 8 * 3, dtype=np.uint8).reshape(5, 8, 3)
STILL = Draws(0, 0, 0, 0.5, 0, 0.5, 0.5, 0.5)


def cut_view(
    image: Image, size: tuple[int, int], view: ViewConfig, draws: Draws | None = None
) -> npt.NDArray[np.uint8]:
    return view_datum(caffe_datum(image, 0), "here", size, view, draws, Interpolation.bilinear)


def test_the_middle_by_hand() -> None:
    """Of 5 x 8 pixels, 2 x 3: rows 1 and 2 (of 3 to spare 1 is above), columns 2 to 4 (of 5 to spare 2 are left)."""
    np.testing.assert_array_equal(cut_view(IMAGE, (2, 3), ViewConfig()), IMAGE[1:3, 2:5])
    np.testing.assert_array_equal(cut_view(IMAGE, (5, 8), ViewConfig()), IMAGE)
    assert place_cut((5, 8), (2, 3), ViewConfig(random_crop=False), STILL) == Cut(1, 2, 2, 3)


def test_random_places_are_all_used() -> None:
    draws = draw_views(np.random.default_rng(0), 100)
    corners = {int(cut_view(IMAGE, (3, 7), ViewConfig(), one)[0, 0, 0]) // 3 for one in draws}
    assert corners == {0, 1, 8, 9, 16, 17}
    assert draw_views(np.random.default_rng(0), 100) == draws
    assert draw_views(np.random.default_rng(0), 0) == []


def test_a_share_is_cut_and_brought_to_size() -> None:
    image = np.full((40, 60, 3), 9, dtype=np.uint8)
    image[5:35, 15:45] = 200
    # 3/4 of the shorter side: the middle 30 x 30.
    middle = cut_view(image, (10, 10), ViewConfig(share=0.75))
    np.testing.assert_array_equal(middle, np.full((10, 10, 3), 200, np.uint8))
    assert cut_view(image, (64, 64), ViewConfig(share=0.75)).shape == (64, 64, 3)
    assert cut_view(image, (10, 30), ViewConfig(share=1.0)).shape == (10, 30, 3)


def test_a_random_area_by_hand() -> None:
    """A quarter of 40 x 40 is 400 pixels; at the middle of the shapes, 1:1, that is 20 x 20."""
    view = ViewConfig(share=1.0, random_area=0.25)
    assert place_cut((40, 40), (8, 8), view, STILL) == Cut(0, 0, 20, 20)
    wide = STILL._replace(shape=1 - 1e-12, top=0.999, left=0.999)
    # sqrt(400 x 4/3) = 23.1 wide, sqrt(400 / (4/3)) = 17.3 high, in the last corner.
    assert place_cut((40, 40), (8, 8), view, wide) == Cut(40 - 17, 40 - 23, 17, 23)
    assert place_cut((40, 40), (8, 8), view, None) == Cut(0, 0, 40, 40)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.booleans(), st.integers(0, 9))
def test_every_view_of_every_image_fits(
    height: int, width: int, size: int, share: float, area: bool, seed: int
) -> None:
    view = ViewConfig(share=share, random_area=share if area else None)
    for draws in (None, draw_views(np.random.default_rng(seed), 1)[0]):
        cut = place_cut((height, width), (size, size), view, draws)
        for reduction in (1, 2, 4, 8):
            tall, wide = -(-height // reduction), -(-width // reduction)
            top, left, cut_height, cut_width = cut.reduced(reduction, (tall, wide))
            assert 0 <= top <= tall - cut_height
            assert 0 <= left <= wide - cut_width
            assert min(cut_height, cut_width) >= 1
        image = np.zeros((height, width, 3), dtype=np.uint8)
        assert take_cut(image, cut, (size, size), Interpolation.bilinear).shape == (size, size, 3)


def test_a_reduction_leaves_as_many_pixels_as_are_asked_for() -> None:
    assert [reduction_of(Cut(0, 0, side, 900), (100, 100)) for side in (199, 200, 399, 400, 799, 800, 9000)] == [
        *(1, 2, 2, 4, 4, 8, 8)
    ]


def jpeg(image: Image, *, size: bool) -> Datum:
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    return caffe_encoded_datum(data, image, 0) if size else Datum(data=data, encoded=True)


@pytest.mark.parametrize("shape", [(120, 160), (121, 163)])
def test_a_reduced_jpeg_looks_like_a_whole_one(shape: tuple[int, int]) -> None:
    few = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = cv2.resize(few, shape[::-1], interpolation=cv2.INTER_CUBIC)
    view = ViewConfig(share=0.9)
    reduced = view_datum(jpeg(image, size=True), "here", (32, 32), view, None, Interpolation.bilinear).astype(int)
    whole = view_datum(jpeg(image, size=False), "here", (32, 32), view, None, Interpolation.bilinear).astype(int)
    assert 0 < np.abs(reduced - whole).mean() < 3
    assert np.abs(reduced - whole).max() < 24


def test_a_record_that_is_not_of_its_size_is_an_error_reduced_or_not() -> None:
    datum = jpeg(np.zeros((120, 160, 3), dtype=np.uint8), size=True)
    for side in (100, 20):
        for name, value in (("height", 130), ("width", 2_000_000_000)):
            wrong = Datum.FromString(datum.SerializeToString())
            setattr(wrong, name, value)
            with pytest.raises(CorruptDatumError, match="here: expected an encoded image"):
                view_datum(wrong, "here", (side, side), ViewConfig(share=0.9), None, Interpolation.bilinear)


def test_too_small_an_image_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"at least 6 x 3 pixels.*got 5 x 8.*view\.share=1"):
        cut_view(IMAGE, (6, 3), ViewConfig())


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", 0.0), ("share", -1.0), ("share", 1.5), ("random_area", 0.0), ("colour", 1.0), ("mixup", -0.1)],
)
def test_another_value_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"view\.{name}: expected"):
        ViewConfig(**{name: value})


def test_a_random_area_wants_a_share_for_tests() -> None:
    with pytest.raises(ValueError, match=r"view\.random_area: expected a view\.share"):
        ViewConfig(random_area=0.08)
