"""Pictures of a database: any number of labels, hostile names, any size; the mean by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.report.curves import to_png, to_svg
from detpipe.report.database_figures import MAX_NAMED, label_figure, mean_image, sheet


@pytest.mark.parametrize("labels", [0, 1, MAX_NAMED, MAX_NAMED + 1])
def test_any_number_of_labels_is_drawn(labels: int) -> None:
    counts = {3 * label: label + 1 for label in range(labels)}
    figure = label_figure(counts, dict.fromkeys(counts, "<script>$x_{"))
    assert to_png(figure)[:4] == b"\x89PNG"
    assert "<script" not in to_svg(figure, "labels")
    assert len(figure.axes[0].patches) == labels


def test_the_sheet_has_a_cell_for_each_image() -> None:
    images = [np.full(size, 255, dtype=np.uint8) for size in ((1, 1, 3), (300, 20, 3), (20, 900, 3))]
    drawn, cell = sheet(images, ["a", "\ud800" * 200, ""], [0, 1, 1 << 30]), sheet(images[:1], ["a"], [0])
    assert drawn.shape == (cell.shape[0], 3 * cell.shape[1], 3)
    with pytest.raises(ValueError, match="wanted images"):
        sheet([], [], [])


def test_the_mean_is_rgb() -> None:
    mean = np.array([10.4, 20.6, 30.0], dtype=np.float32)[:, None, None] * np.ones((1, 200, 300), dtype=np.float32)
    assert mean_image(mean)[0, 0].tolist() == [30, 21, 10]
    assert mean_image(mean).shape == (200, 300, 3)
    assert mean_image(mean[:1, :2, :4]).shape == (64, 128, 3)
