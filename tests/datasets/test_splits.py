"""splits: a hash of each name decides, so other images don't matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.source import Split
from detpipe.datasets.splits import hash_split
from detpipe.datasets.voc import VocSource
from tests.datasets.conftest import VocFolder

NAMES = st.lists(st.text(min_size=1), unique=True, max_size=30)


@given(names=NAMES, seed=st.integers(0, 5), share=st.floats(0.01, 0.99))
def test_every_image_is_on_one_side_and_order_does_not_matter(names: list[str], seed: int, share: float) -> None:
    train, test = hash_split(names, seed, share)
    assert sorted(train + test) == list(range(len(names)))
    assert len(names) < 2 or (train and test)
    back = hash_split(names[::-1], seed, share)
    assert [{names[::-1][number] for number in side} for side in back] == [
        {names[number] for number in side} for side in (train, test)
    ]


def sides(names: list[str], seed: int = 0) -> dict[str, bool]:
    _, test = hash_split(names, seed, 0.2)
    return {name: number in test for number, name in enumerate(names)}


def test_added_images_move_no_other() -> None:
    before = sides([f"image {number}" for number in range(100)])
    after = sides([f"image {number}" for number in range(-50, 300)])
    assert {name: after[name] for name in before} == before
    assert sum(after.values()) == pytest.approx(70, abs=20)
    assert sides(list(before), seed=1) != before


def test_few_images_and_no_test_images() -> None:
    assert [len(side) for side in hash_split(["a", "b"], 0, 0.001)] == [1, 1]
    assert [len(side) for side in hash_split(["a", "b"], 0, 0.999)] == [1, 1]
    assert hash_split(["a", "b"], 0, 0) == ([0, 1], [])
    assert hash_split([], 0, 0.2) == ([], [])
    assert hash_split(["a", "a"], 0, 0.2) in (([0, 1], []), ([], [0, 1]))


def test_a_stored_split_is_kept(voc: VocFolder, tmp_path: Path) -> None:
    for stem in "abcdefgh":
        voc.pair(stem)
    source = VocSource(root=str(voc.root), test_share=0.5)
    stored = source.automatic_split()
    assert stored is not None
    assert set(stored.train) | set(stored.test) == set("abcdefgh")
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"rule": "", "train": ["a"], "test": ["b", "c", "gone"]}))
    kept = VocSource(root=str(voc.root), test_share=0.01, split_file=str(path))
    ids = {split: {entry.image_id for entry in kept.entries(split)} for split in (Split.train, Split.test)}
    assert ids[Split.test] == {"b", "c"}
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"split\.json: expected a JSON object"):
        VocSource(root=str(voc.root), split_file=str(path)).entries(Split.test)
