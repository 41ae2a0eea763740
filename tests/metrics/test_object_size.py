"""COCO's sizes."""

from __future__ import annotations

import numpy as np

from detpipe.metrics.object_size import SIZES, of_size


def test_each_area_has_one_size():
    areas = np.array([0, 1023.5, 1024, 9215, 9216, 1e9], np.float32)
    chosen = {name: of_size(areas, name).tolist() for name in SIZES}
    assert chosen["small"] == [True, True, False, False, False, False]
    assert chosen["medium"] == [False, False, True, True, False, False]
    assert chosen["large"] == [False, False, False, False, True, True]
    assert of_size(np.zeros(0, np.float32), "small").shape == (0,)
