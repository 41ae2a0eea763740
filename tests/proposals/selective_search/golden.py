"""The boxes that selective search gave when they were written down. Another digest is another method.

`python -m tests.proposals.selective_search.golden` prints those of today, for the table below.
"""

from __future__ import annotations

import hashlib

from detpipe.proposals.selective_search.search import SelectiveSearch, SelectiveSearchOrder, SelectiveSearchPreset
from tests.proposals.pictures import mosaic, noise, scene, shades

OWN = [preset for preset in SelectiveSearchPreset if not preset.value.startswith("cv2_")]
GOLDEN = {
    "turbo": ("5d90a3a5a2085ff7", "9304db05d69f4a01"),
    "turbo_quality": ("20b6a41ffd395f7d", "04a6a9d141df3a6f"),
    "ijcv_fast": ("c2c57354beef1a4d", "4dc2e5d67b1a4f72"),
    "ijcv_quality": ("93f5274fbcb58c55", "0d7a1f8615f75c0a"),
    "opencv_fast": ("654f5a80918f4d20", "976a34079fa97c09"),
    "opencv_quality": ("81eba79d7cdcf86e", "ed9c5ae35caa7c6a"),
    "opencv_single": ("17a889f23486b452", "971d462cedfd2743"),
}
"""Preset -> digests of the boxes in the paper's order, and by objectness. Where the weights were learned anew, only the
second one is another."""


def digests(preset: SelectiveSearchPreset) -> tuple[str, str]:
    """Of the boxes of drawn images, one of them shrunk, in both orders."""
    return tuple(_digest(preset, order) for order in (SelectiveSearchOrder.paper, SelectiveSearchOrder.objectness))


def _digest(preset: SelectiveSearchPreset, order: SelectiveSearchOrder) -> str:
    digest = hashlib.blake2b(digest_size=8)
    search = SelectiveSearch(preset=preset, order=order, max_proposals=None, min_size=1)
    small = SelectiveSearch(preset=preset, order=order, max_proposals=None, max_side=61)
    for found in (search(scene()), search(mosaic()), search(noise(70, 90)), search(shades()), small(shades())):
        digest.update(repr(found.boxes.tolist()).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    for one in OWN:
        print(f'    "{one.value}": {digests(one)},'.replace("'", '"'))  # noqa: T201
