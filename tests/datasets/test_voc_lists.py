"""voc_lists: how lists are read, and which rule stands in where they lack."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.datasets.source import Split
from detpipe.datasets.voc_lists import Division, ImageLists, divide, seeded_split

ANNOTATED = ["a", "b", "c", "d", "e"]


def lists_of(folder: Path, known: tuple[str, ...] = tuple(ANNOTATED), **texts: str) -> ImageLists:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return ImageLists(folder, known)


def divided(lists: ImageLists, train: str = "trainval", val: str | None = None, test: str = "test") -> Division:
    return divide(lists, ANNOTATED, train=train, val=val, test=test, seed=0, share=0.4)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n\r\n", ["a", "b"]),
        ("\ufeffb\n a \n", ["b", "a"]),
        ("a  1\nb -1\nc  0\n", ["a", "b", "c"]),
        ("a  1\r\nb -1\r\n", ["a", "b"]),
        ("my image 1\n", ["my image 1"]),
        ("my image  -1\n", ["my image"]),
        ("images/a.jpg\nb.XML\n", ["a", "b"]),
        ("v1.5\n", ["v1.5"]),
        ("a\na\n", ["a"]),
        ("unknown.png\n", ["unknown"]),
        ("", []),
    ],
)
def test_reads_lists_of_all_kinds(tmp_path: Path, text: str, names: list[str]) -> None:
    known = ("a", "b", "c", "my image 1", "my image", "v1.5")
    assert lists_of(tmp_path, known, trainval=text).read("trainval") == names


def test_per_class_lists_alone_make_the_split(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, cat_trainval="a  1\nb -1\n", dog_trainval="b  1\nc -1\n", dog_test="d  1\n")
    assert lists.read("trainval") == ["a", "b", "c"]
    assert lists.read("dog_test") == ["d"]
    assert lists.read("val") is None


def test_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"test\.txt: expected a list of image names in UTF-8"):
        ImageLists(tmp_path, ()).read("test")


def test_named_list_must_be_there(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, trainval="a\n", test="b\n")
    with pytest.raises(FileNotFoundError, match=r"expected the list mine\.txt.*: test, trainval"):
        divided(lists, train="mine")
    with pytest.raises(FileNotFoundError, match=r"expected the list mine\.txt"):
        divided(lists, val="mine")


@pytest.mark.parametrize(
    ("texts", "train", "test", "rule"),
    [
        ({"trainval": "a\nb\n", "test": "c\n"}, ["a", "b"], ["c"], "list trainval; test is the list test"),
        ({"train": "a\n", "test": "c\n"}, ["a"], ["c"], "as there is no list trainval"),
        ({"trainval": "a\nb\n", "train": "a\n", "val": "b\n"}, ["a"], ["b"], "test is the list val"),
        ({"train": "a\n", "val": "b\n"}, ["a"], ["b"], "test is the list val"),
        ({"trainval": "a\nb\n"}, ["a", "b"], ["c", "d", "e"], "test is all other annotated"),
        ({"train": "a\n"}, ["a"], ["b", "c", "d", "e"], "test is all other annotated"),
        ({"test": "a\n"}, ["b", "c", "d", "e"], ["a"], "train is all other annotated"),
        ({"test": "a\nb\nc\nd\ne\n"}, [], ["a", "b", "c", "d", "e"], "train is all other annotated"),
    ],
)
def test_rules(tmp_path: Path, texts: dict[str, str], train: list[str], test: list[str], rule: str) -> None:
    division = divided(lists_of(tmp_path, **texts))
    assert division.names == {Split.train: train, Split.test: test}
    assert rule in division.rule


@pytest.mark.parametrize("texts", [{}, {"trainval": "e\nd\nc\nb\na\n"}])
def test_seeded_where_nothing_else_is_left(tmp_path: Path, texts: dict[str, str]) -> None:
    division = divided(lists_of(tmp_path, **texts))
    train, test = division.names[Split.train], division.names[Split.test]
    assert sorted([*train, *test]) == ANNOTATED
    assert len(test) == 2
    assert "by seed 0" in division.rule


def test_folder_of_lists_may_lack(tmp_path: Path) -> None:
    assert "no lists" in divided(ImageLists(tmp_path / "none", ANNOTATED)).rule


def test_val_is_kept_out_of_sides_that_a_rule_makes(tmp_path: Path) -> None:
    division = divided(lists_of(tmp_path, trainval="a\n", val="b\n"), val="val")
    assert division.names == {Split.train: ["a"], Split.val: ["b"], Split.test: ["c", "d", "e"]}


@given(
    names=st.lists(st.text(min_size=1), unique=True, max_size=30), seed=st.integers(0, 5), share=st.floats(0.01, 0.99)
)
def test_seeded_split_is_a_partition_that_order_does_not_change(names: list[str], seed: int, share: float) -> None:
    first, second = seeded_split(names, seed, share)
    assert sorted(first + second) == sorted(names)
    assert len(names) < 2 or (first and second)
    assert [set(side) for side in seeded_split(names[::-1], seed, share)] == [set(first), set(second)]


def test_seed_matters() -> None:
    names = [str(number) for number in range(100)]
    assert seeded_split(names, 0, 0.2) != seeded_split(names, 1, 0.2)
    assert len(seeded_split(names, 0, 0.2)[1]) == 20
