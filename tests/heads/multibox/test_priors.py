"""Where MultiBox begins to look: priors by hand, clusters that are plain to see, the grids of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detpipe.heads.multibox.priors import by_stride, centred, grid_shapes, kmeans_boxes, kmeans_sizes, prior_boxes
from detpipe.heads.multibox.settings import GRIDS
from detpipe.structures import Float32Array


def rows_of(*rows: tuple[float, ...]) -> Float32Array:
    return np.array(rows, dtype=np.float32)


def test_priors_by_hand() -> None:
    """Two cells beside each other: their centres are (5, 3) and (15, 3) of an input 6 high and 20 wide."""
    shapes = torch.tensor([[-1.0, -2, 1, 2], [-4, -1, 5, 3]])  # the second isn't even about its centre
    priors = prior_boxes(shapes, (1, 2), (6, 20))
    assert priors.tolist() == [[4, 1, 6, 5], [1, 2, 10, 6], [14, 1, 16, 5], [11, 2, 20, 6]]
    assert priors.dtype == torch.float32


def test_cells_row_by_row_are_even_parts_of_uneven_sides() -> None:
    priors = prior_boxes(torch.zeros(1, 4), (2, 3), (5, 7))
    centres = [(x, y) for y in (1.25, 3.75) for x in (7 / 6, 3.5, 35 / 6)]
    np.testing.assert_allclose(priors[:, :2], centres, rtol=1e-6)


def test_no_shapes_and_no_sizes() -> None:
    assert prior_boxes(torch.zeros(0, 4), (2, 3), (5, 7)).shape == (0, 4)
    assert centred(np.zeros((0, 2), dtype=np.float32)).shape == (0, 4)
    assert [one.shape for one in by_stride(np.zeros((0, 2), dtype=np.float32), [8, 16], cells=6)] == [(0, 2)] * 2


def test_centred_by_hand() -> None:
    assert centred(rows_of((4, 10))).tolist() == [[-2, -5, 2, 5]]


def clusters() -> Float32Array:
    """Sizes about 100 x 50 (given first) and about 10 x 20, each times 0.8 to 1.25."""
    factors = np.array([0.8, 1.0, 1.25], dtype=np.float32)[:, None]
    return np.concatenate([rows_of((100, 50)) * factors, rows_of((10, 20)) * factors])


def test_two_clusters_of_sizes() -> None:
    """Means of logarithms: 0.8 x 1 x 1.25 is 1, so the middle ones are found. Small to large."""
    found = kmeans_sizes(clusters(), 2, seed=0)
    np.testing.assert_allclose(found, [[10, 20], [100, 50]], rtol=1e-5)
    assert found.dtype == np.float32


def test_one_cluster_is_the_geometric_mean() -> None:
    np.testing.assert_allclose(kmeans_sizes(clusters(), 1, seed=0), [[1000**0.5, 1000**0.5]], rtol=1e-5)


def test_sizes_below_a_pixel_count_as_one() -> None:
    np.testing.assert_allclose(kmeans_sizes(rows_of((0.1, 3), (0.5, 3)), 5, seed=0), [[1, 3]], rtol=1e-6)


def test_fewer_different_objects_than_wanted() -> None:
    sizes = rows_of((30, 30), (8, 4), (30, 30), (8, 4))
    np.testing.assert_allclose(kmeans_sizes(sizes, 9, seed=0), [[8, 4], [30, 30]], rtol=1e-5)
    boxes = rows_of((0.5, 0, 1, 1), (0, 0, 0.5, 0.5), (0.5, 0, 1, 1))
    np.testing.assert_array_equal(kmeans_boxes(boxes, 3, seed=0), boxes[[1, 0]])


def test_two_clusters_of_places() -> None:
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, (40, 4)).astype(np.float32)
    left, right = rows_of((0.1, 0.1, 0.3, 0.5)), rows_of((0.6, 0.2, 0.9, 0.9))
    boxes = np.concatenate([right + noise[:20], left + noise[20:]])
    found = kmeans_boxes(boxes, 2, seed=0)
    np.testing.assert_allclose(found, [boxes[20:].mean(axis=0), boxes[:20].mean(axis=0)], rtol=1e-5)


def test_the_same_seed_gives_the_same() -> None:
    sizes = np.random.default_rng(1).uniform(5, 200, (300, 2)).astype(np.float32)
    boxes = np.concatenate([sizes / 400, sizes / 400 + 0.5], axis=1).astype(np.float32)
    for cluster, objects in ((kmeans_sizes, sizes), (kmeans_boxes, boxes)):
        first = cluster(objects, 7, seed=3)
        assert first.shape == (7, objects.shape[1])
        np.testing.assert_array_equal(first, cluster(objects, 7, seed=3))
        assert not np.array_equal(first, cluster(objects, 7, seed=4))


@pytest.mark.parametrize(("cluster", "columns"), [(kmeans_sizes, 2), (kmeans_boxes, 4)])
def test_no_objects(cluster: type, columns: int) -> None:
    with pytest.raises(ValueError, match="priors: expected objects to cluster, got none"):
        cluster(np.zeros((0, columns), dtype=np.float32), 3, seed=0)


def test_each_size_goes_to_the_map_with_cells_of_its_kind() -> None:
    """With 6 cells a side: maps of stride 8, 16, 32 suit sides of 48, 96, 192; by ratio 68 is the bound of the first
    two."""
    sizes = rows_of((4, 4), (134, 34), (136, 36), (96, 96), (500, 900))
    found = by_stride(sizes, [8, 16, 32], cells=6)
    assert [one.tolist() for one in found] == [
        [[4, 4], [134, 34]],
        [[136, 36], [96, 96]],
        [[500, 900]],
    ]
    assert [len(one) for one in by_stride(sizes[:1], [8, 16, 32], cells=6)] == [1, 0, 0]


def test_all_grids_have_the_1420_priors_of_the_paper() -> None:
    side = 240
    priors = [
        prior_boxes(torch.from_numpy(grid_shapes(cells, side)), (cells, cells), (side, side)) for cells in (*GRIDS, 1)
    ]
    assert [len(one) for one in priors] == [8 * 8 * 11, 6 * 6 * 11, 4 * 4 * 11, 3 * 3 * 11, 2 * 2 * 11, 1]
    assert sum(map(len, priors)) == 1420
    assert priors[-1].tolist() == [[0, 0, side, side]]  # one cell: all the image


def test_shapes_of_a_grid() -> None:
    shapes = grid_shapes(8, 240)
    sizes = shapes[:, 2:] - shapes[:, :2]
    np.testing.assert_array_equal(shapes[:, :2], -shapes[:, 2:])
    np.testing.assert_allclose(sizes[:3], [[31.5, 31.5], [45, 45], [63, 63]], rtol=1e-6)  # 0.7, 1, 1.4 of 1.5 cells
    np.testing.assert_allclose(sizes[3:].prod(axis=1), 45**2, rtol=1e-5)
    np.testing.assert_allclose(sizes[3:, 0] / sizes[3:, 1], [0.75, 1.333, 0.5, 2, 0.4, 2.5, 0.33, 3], rtol=1e-5)
    large = grid_shapes(2, 240)
    assert (large[:, 2:] - large[:, :2]).max() == 240  # none is larger than the image
