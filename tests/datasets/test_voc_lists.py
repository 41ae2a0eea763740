"""voc_lists: how lists are read, and which rule stands in where they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.datasets.source import Split
from detpipe.datasets.splits import hash_split
from detpipe.datasets.voc_lists import Division, ImageLists, UnitedLists, divide

ANNOTATED = ["a", "b", "c", "d", "e"]


def lists_of(root: Path, known: tuple[str, ...] = tuple(ANNOTATED), **texts: str) -> ImageLists:
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return ImageLists(root, {name: name for name in known})


def by_name(ids: list[str]) -> tuple[list[str], list[str]]:
    train, test = hash_split(ids, seed=0, share=0.4)
    return [ids[number] for number in train], [ids[number] for number in test]


def divided(*lists: ImageLists, train: str = "trainval", val: str | None = None, test: str = "test") -> Division:
    return divide(
        UnitedLists(lists), ANNOTATED, train=train, val=val, test=test, by_name=by_name, by_name_rule="some are test"
    )


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
        ("/data/VOC2007/JPEGImages/a.jpg\n", ["a"]),
        ("C:\\set\\images\\a.jpg 1\n", ["a"]),
        ("./images/a.jpg ./annotations/a.xml\n", ["a"]),
        ("A.JPG\n", ["a"]),
        ("\n", []),
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
    lists = lists_of(tmp_path, known=("中文",), test="x")
    (tmp_path / "ImageSets/Main/test.txt").write_bytes("中文\n".encode("gb18030"))
    with pytest.raises(ValueError, match=r"test\.txt: expected a list of image names in UTF-8.*dataset\.encoding"):
        lists.read("test")
    assert ImageLists(tmp_path, {"中文": "中文"}, encoding="gb2312").read("test") == ["中文"]
    (tmp_path / "ImageSets/Main/test.txt").write_bytes("中文\n".encode("utf-16"))
    assert lists.read("test") == ["中文"]
    (tmp_path / "ImageSets/Main/test.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test\.txt: expected a list of image names, got an empty file"):
        lists.read("test")


@pytest.mark.parametrize(
    "path",
    ["ImageSets/train.txt", "train.txt", "train_list.txt", "list_train.txt", "Train.txt", "ImageSets/training.txt"],
)
def test_lists_beside_main(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("images/a.jpg\nimages/b.jpg\n")
    assert ImageLists(tmp_path, {name: name for name in ANNOTATED}).read("train") == ["a", "b"]


def test_other_texts_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("notes of a test\n")
    (tmp_path / "._train.txt").write_text("a\n")
    lists = ImageLists(tmp_path, {name: name for name in ANNOTATED})
    assert (lists.read("test"), lists.read("train"), lists.names) == (None, None, [])


def test_lists_that_are_not_used_are_named(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, night="a\nb\n")
    assert "(not used: night)" in divided(lists).rule


def test_entries_in_subfolders(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, train="dogs/1.jpg\n2\n")
    known = {"cats/1": "cats/1", "dogs/1": "dogs/1", "dogs/2": "2"}
    assert ImageLists(tmp_path, known).read("train") == ["dogs/1", "2"]
    (lists.folder / "train.txt").write_text("1\n")
    with pytest.raises(ValueError, match=r"train\.txt: '1' may be any of 2 images: cats/1, dogs/1; write the path"):
        ImageLists(tmp_path, known).read("train")


def test_lists_of_several_folders_are_united(tmp_path: Path) -> None:
    first = lists_of(tmp_path / "1", trainval="a\nb\n", test="c\n")
    second = lists_of(tmp_path / "2", trainval="d\n", train="d\n")
    assert divided(first, second).ids == {Split.train: ["a", "b", "d"], Split.test: ["c"]}
    (second.root / "ImageSets/Main/trainval.txt").unlink()
    assert divided(first, lists_of(tmp_path / "2")).ids == {Split.train: ["a", "b", "d"], Split.test: ["c"]}


def test_named_list_must_be_there(tmp_path: Path) -> None:
    lists = lists_of(tmp_path, trainval="a\n", test="b\n")
    with pytest.raises(FileNotFoundError, match=r"expected the list mine\.txt.*: test, trainval"):
        divided(lists, train="mine")
    with pytest.raises(FileNotFoundError, match=r"expected the list mine\.txt"):
        divided(lists, val="mine")


@pytest.mark.parametrize(
    ("texts", "train", "test", "rule"),
    [
        ({"trainval": "a\nb\n", "test": "c\n"}, ["a", "b"], ["c"], "list trainval; test is the list test; 2 annotated"),
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
    assert division.ids == {Split.train: train, Split.test: test}
    assert rule in division.rule


@pytest.mark.parametrize("texts", [{}, {"trainval": "e\nd\nc\nb\na\n"}])
def test_by_name_where_nothing_else_is_left(tmp_path: Path, texts: dict[str, str]) -> None:
    division = divided(lists_of(tmp_path, **texts))
    train, test = division.ids[Split.train], division.ids[Split.test]
    assert sorted([*train, *test]) == ANNOTATED
    assert 0 < len(test) < 5
    assert "some are test" in division.rule
    assert division.automatic


def test_folder_of_lists_may_lack(tmp_path: Path) -> None:
    assert "no lists" in divided(ImageLists(tmp_path / "none", {})).rule


def test_val_is_kept_out_of_sides_that_a_rule_makes(tmp_path: Path) -> None:
    division = divided(lists_of(tmp_path, trainval="a\n", val="b\n"), val="val")
    assert division.ids == {Split.train: ["a"], Split.val: ["b"], Split.test: ["c", "d", "e"]}
