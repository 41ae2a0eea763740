"""The boxes that selective search gave when they were written down. Another digest is another method.

`python -m tests.proposals.golden` prints those of today, for the table below.
"""

from __future__ import annotations

import hashlib

from detpipe.proposals.selective_search import SelectiveSearch, SelectiveSearchOrder, SelectiveSearchPreset
from tests.proposals.pictures import mosaic, noise, scene, shades

OWN = [preset for preset in SelectiveSearchPreset if not preset.value.startswith("cv2_")]
GOLDEN = {
    "turbo": ("0025a5d0c1bdbb53", "9304db05d69f4a01"),
    "turbo_quality": ("57edc988b1732faa", "04a6a9d141df3a6f"),
    "ijcv_fast": ("47aa3d8e68e9aaa6", "4dc2e5d67b1a4f72"),
    "ijcv_quality": ("34d969069ae95b28", "0d7a1f8615f75c0a"),
    "opencv_fast": ("6a128b3d16962f4d", "976a34079fa97c09"),
    "opencv_quality": ("bbb0d9cb7a03f707", "ed9c5ae35caa7c6a"),
    "opencv_single": ("df363d3db67a6060", "971d462cedfd2743"),
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
