"""Tiles: positions by hand; for any image and tile, all pixels are covered and small objects are whole somewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.structures import Float32Array
from detpipe.tiles import SMALLEST, TilesConfig, Windows, fullest_window, in_turn, random_window, tile_grid

NOTHING = np.zeros((0, 4), dtype=np.float32)
SIDES = st.integers(1, 400)
TILES = st.integers(SMALLEST, 200).flatmap(
    lambda size: st.builds(
        TilesConfig, size=st.just(size), overlap=st.none() | st.integers(0, size // 2), whole=st.booleans()
    )
)


def boxes(*rows: tuple[float, float, float, float]) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_the_grid_by_hand() -> None:
    """250 wide and 100 high, tiles of 100 with 20: at 0, 80, and the last one moved in from 160 to 150."""
    tiles = TilesConfig(size=100, overlap=20)
    assert tile_grid((100, 250), tiles) == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert tile_grid((40, 180), tiles) == [(0, 0, 100, 40), (80, 0, 180, 40)]
    assert tile_grid((40, 90), tiles) == [(0, 0, 90, 40)]


def test_no_tiles_are_the_whole_image() -> None:
    for tiles in (TilesConfig(), TilesConfig(size=0)):
        assert not tiles.used
        assert tile_grid((40, 90), tiles) == [(0, 0, 90, 40)]
        assert len(Windows.of((40, 90), tiles)) == 1


def test_the_overlap_is_a_quarter_by_default() -> None:
    assert TilesConfig(size=100).overlap_pixels == 25


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": 31}, "^tiles: "),
        ({"size": -1}, "^tiles: "),
        ({"size": 100, "overlap": 51}, "^overlap: "),
        ({"size": 100, "overlap": -1}, "^overlap: "),
        ({"overlap": 10}, "tiles=SIZE"),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TilesConfig(**wrong)  # type: ignore[arg-type]


@given(SIDES, SIDES, TILES)
def test_all_pixels_are_covered_by_full_tiles(height: int, width: int, tiles: TilesConfig) -> None:
    assert tiles.size is not None
    covered = np.zeros((height, width), dtype=np.bool_)
    for x1, y1, x2, y2 in tile_grid((height, width), tiles):
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(tiles.size, width), min(tiles.size, height))
        covered[y1:y2, x1:x2] = True
    assert covered.all()


@given(SIDES, SIDES, TILES, st.data())
def test_an_object_up_to_the_overlap_is_whole_in_a_tile(
    height: int, width: int, tiles: TilesConfig, data: st.DataObject
) -> None:
    w, h = (data.draw(st.integers(0, min(side, tiles.overlap_pixels))) for side in (width, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    grid = tile_grid((height, width), tiles)
    assert any(x1 <= x and y1 <= y and x + w <= x2 and y + h <= y2 for x1, y1, x2, y2 in grid)


@given(SIDES, SIDES, TILES, st.data())
def test_an_object_up_to_three_quarters_of_the_overlap_has_owners_that_see_it_whole_and_leaves_no_parts(
    height: int, width: int, tiles: TilesConfig, data: st.DataObject
) -> None:
    """Each tile reports what it sees: the object, or the part that it cuts. What is owned is whole."""
    most = int(0.75 * tiles.overlap_pixels)
    w, h = (data.draw(st.integers(0, min(side, most))) for side in (width, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    windows = Windows.of((height, width), tiles)
    found = []
    for index in range(len(windows)):
        x1, y1, x2, y2 = windows.window(index)
        seen = max(x, x1), max(y, y1), min(x + w, x2), min(y + h, y2)
        if seen[0] <= seen[2] and seen[1] <= seen[3] and windows.owns(index, boxes(seen)).all():
            found.append(seen)
    assert set(found) == {(x, y, x + w, y + h)}


@given(SIDES, SIDES, TILES)
def test_an_image_within_one_tile_has_one_window_that_owns_all_and_cuts_nothing(
    height: int, width: int, tiles: TilesConfig
) -> None:
    assert tiles.size is not None
    windows = Windows.of((height, width), tiles)
    if max(height, width) <= tiles.size:
        whole = boxes((0, 0, width, height))
        assert [windows.window(index) for index in range(len(windows))] == [(0, 0, width, height)]
        assert windows.owns(0, whole).all()
        assert not windows.cuts(0, whole).any()
    elif tiles.whole:
        assert windows.window(len(windows) - 1) == (0, 0, width, height)


def test_cut_boxes_by_hand() -> None:
    """Two tiles of 200 in an image of 360 x 200; the overlap is from 160 to 200. Near is 4 pixels."""
    windows = Windows.of((200, 360), TilesConfig(size=200, overlap=40))
    left, right, whole = 0, 1, 2
    given_boxes = boxes((0, 0, 50, 200), (150, 10, 197, 50), (150, 10, 195, 50))
    assert windows.cuts(left, given_boxes).tolist() == [False, True, False]
    assert windows.cuts(right, boxes((163, 0, 300, 200), (165, 0, 360, 200))).tolist() == [True, False]
    assert not windows.cuts(whole, boxes((0, 0, 360, 200))).any()
    assert windows.cuts(left, NOTHING).shape == windows.owns(left, NOTHING).shape == (0,)


def test_owned_boxes_by_hand() -> None:
    """The parts of the tiles meet at 180; both also own what is centred within 5 pixels of that."""
    windows = Windows.of((200, 360), TilesConfig(size=200, overlap=40))
    centred = boxes((170, 0, 178, 9), (172, 0, 180, 9), (180, 0, 188, 9), (182, 0, 190, 9))
    assert windows.owns(0, centred).tolist() == [True, True, True, False]
    assert windows.owns(1, centred).tolist() == [False, True, True, True]
    assert windows.owns(2, centred).all()


@pytest.mark.parametrize("whole", [True, False])
def test_the_window_of_a_region_by_hand(whole: bool) -> None:
    """In the overlap, the tile with the nearer centre; a region in no tile: the whole image, or most of it."""
    windows = Windows.of((200, 360), TilesConfig(size=200, overlap=40, whole=whole))
    regions = boxes((165, 90, 175, 110), (185, 90, 195, 110), (0, 0, 200, 200), (100, 0, 300, 9), (0, 0, 359, 9))
    assert windows.of_boxes(regions).tolist() == [0, 1, 0, *([2, 2] if whole else [1, 0])]
    assert windows.of_boxes(NOTHING).shape == (0,)


@given(SIDES, SIDES, TILES, st.integers(0, 2**32), st.data())
def test_a_random_window_is_full_and_shows_an_object_that_fits(
    height: int, width: int, tiles: TilesConfig, seed: int, data: st.DataObject
) -> None:
    assert tiles.size is not None
    w, h = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    generator = np.random.default_rng(seed)
    drawn = [random_window((height, width), boxes((x, y, x + w, y + h)), tiles, generator) for _ in range(20)]
    tile = min(tiles.size, width), min(tiles.size, height)
    for x1, y1, x2, y2 in drawn:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) in (tile, (width, height) if tiles.whole else tile)
    if max(w, h) <= tiles.size:
        assert any(x1 <= x and y1 <= y and x + w <= x2 and y + h <= y2 for x1, y1, x2, y2 in drawn)


def test_random_windows_without_objects_reach_all_of_the_image() -> None:
    generator = np.random.default_rng(0)
    drawn = {random_window((40, 100), NOTHING, TilesConfig(size=40, whole=False), generator) for _ in range(2000)}
    assert drawn == {(x, 0, x + 40, 40) for x in range(61)}


def test_a_tile_of_a_larger_object_lies_within_it() -> None:
    generator = np.random.default_rng(0)
    tiles = TilesConfig(size=40, whole=False)
    around = [random_window((40, 200), boxes((50, 0, 150, 40)), tiles, generator) for _ in range(400)]
    assert np.mean([x1 >= 50 and x2 <= 150 for x1, _, x2, _ in around]) > 0.7


def test_half_of_the_training_windows_are_whole_images() -> None:
    generator = np.random.default_rng(0)
    drawn = [random_window((90, 100), NOTHING, TilesConfig(size=40), generator) for _ in range(2000)]
    assert np.mean([window == (0, 0, 100, 90) for window in drawn]) == pytest.approx(0.5, abs=0.05)


def test_the_fullest_window_by_hand() -> None:
    tiles = TilesConfig(size=100, overlap=20)
    objects = boxes((10, 10, 20, 20), (150, 10, 160, 20), (160, 50, 170, 60))
    assert fullest_window((100, 250), objects, tiles) == (80, 0, 180, 100)
    assert fullest_window((100, 250), NOTHING, tiles) == (0, 0, 100, 100)


def test_in_turn_by_hand() -> None:
    assert in_turn([2, 0, 3]).tolist() == [0, 2, 1, 3, 4]
    assert in_turn([]).tolist() == []
