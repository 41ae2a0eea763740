"""The class tree: its file, sums by level, and roll-up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.input_file import InputFileError
from detpipe.taxonomy.class_tree import Answer, ClassTree, ClassTreeError, read_class_tree

CLASSES = ("red deer", "roe deer", "fox", "bird")
TABLE = """species,family,class
red deer,deer,mammal
roe deer,deer,mammal
fox,canine,mammal
bird,,bird
moose,deer,mammal
"""
TREE = ClassTree(
    ("species", "family", "class"),
    {
        "red deer": ("red deer", "deer", "mammal"),
        "roe deer": ("roe deer", "deer", "mammal"),
        "fox": ("fox", "canine", "mammal"),
        "bird": ("bird", "", "bird"),
    },
)


def read(folder: Path, text: str) -> ClassTree:
    (folder / "tree.csv").write_text(text)
    return read_class_tree(folder / "tree.csv", CLASSES)


def test_the_table(tmp_path: Path) -> None:
    assert read(tmp_path, TABLE) == TREE
    assert read(tmp_path, TABLE.replace(",", ";")) == TREE
    bare = read(tmp_path, TABLE.partition("\n")[2])
    assert bare.paths == TREE.paths
    assert bare.levels == ("class", "parent 1", "parent 2")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TABLE.replace("fox,", "wolf,"), "fox"),
        (TABLE.replace("roe deer,deer,mammal", "roe deer,deer,bird"), r"tree\.csv:3: .*deer"),
        (TABLE + "fox,deer,mammal\n", r"tree\.csv:7: .*'fox'"),
        ("species\nfox\n", "columns"),
        ("\n", "columns"),
    ],
)
def test_what_is_no_tree_of_the_classes_is_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ClassTreeError, match=named):
        read(tmp_path, text)


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="empty file"):
        read(tmp_path, "")


@pytest.mark.parametrize(
    ("probabilities", "answer"),
    [
        ({"fox": 0.75, "red deer": 0.25}, Answer("fox", 0, 0.75)),
        ({"fox": 0.25, "red deer": 0.375, "roe deer": 0.375}, Answer("deer", 1, 0.75)),
        ({"fox": 0.5, "red deer": 0.25, "roe deer": 0.25}, Answer("mammal", 2, 1.0)),
        ({"bird": 1.0}, Answer("bird", 0, 1.0)),
        ({"bird": 0.5, "fox": 0.5}, None),
        ({}, None),
    ],
)
def test_the_finest_level_that_is_probable_enough(probabilities: dict[str, float], answer: Answer | None) -> None:
    assert TREE.answer(probabilities, 0.7) == answer


def test_rounding_does_not_lose_a_threshold_of_1() -> None:
    assert TREE.answer(dict.fromkeys(("red deer", "roe deer"), 0.1) | {"fox": 0.8}, 1) == Answer("mammal", 2, 1.0)


def test_a_name_with_those_above_it() -> None:
    assert TREE.description("fox", 0) == "mammal;canine;fox"
    assert TREE.description("deer", 1) == "mammal;deer"
    assert TREE.description("bird", 0) == "bird;bird"


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_gives_a_finer_answer(shares: list[float], one: float, other: float) -> None:
    probabilities = dict(zip(CLASSES, shares, strict=True))
    low, high = (TREE.answer(probabilities, threshold) for threshold in sorted((one, other)))
    assert high is None or (low is not None and low.level <= high.level)
