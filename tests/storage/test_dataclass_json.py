"""From JSON to dataclasses: what is read, and what is refused with its file and key."""

from __future__ import annotations

import enum
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_dataclass, read_object, read_value
from detpipe.storage.manifest import plain


class Shape(enum.Enum):
    warp = "warp"
    square = "square"


@dataclass(kw_only=True)
class Crop:
    size: int
    pad: float = 0.5
    shape: Shape = Shape.warp

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected at least 1, got {self.size}")


@dataclass(frozen=True)
class Network:
    classes: tuple[str, ...]
    crop: Crop
    sides: list[int] = field(default_factory=list)
    ranks: tuple[tuple[float, float], ...] = ()
    note: str | None = None
    key: dict[str, Any] = field(default_factory=dict)


WHOLE = Network(("a", "b"), Crop(size=8, shape=Shape.square), [1, 2], ((1.0, 2.5),), "x", {"deep": [1, {"n": None}]})


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps(plain(WHOLE)))
    assert read_dataclass(path, Network) == WHOLE


def test_left_out_keys_have_their_defaults() -> None:
    found = from_json({"classes": [], "crop": {"size": 3}}, Network, "here")
    assert found == Network((), Crop(size=3))


def test_an_int_is_a_float() -> None:
    pad = from_json({"size": 1, "pad": 2}, Crop, "here").pad
    assert isinstance(pad, float)
    assert pad == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": "8"}, "size"),
        ({"size": 8.0}, "size"),
        ({"size": True}, "size"),
        ({"size": None}, "size"),
        ({"pad": 1.0}, "size"),
        ({"size": 8, "shape": "round"}, "shape"),
        ({"size": 8, "colour": 1}, "colour"),
        ({"size": 0}, "at least 1"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(DataclassJsonError, match=named) as caught:
        from_json({"classes": ["a"], "crop": values}, Network, "classifier.json")
    assert str(caught.value).startswith("classifier.json: ")
    assert "crop" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{", "\x00", "[" * 100_000])
def test_another_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(DataclassJsonError, match=r"network\.json: expected a JSON object"):
        read_dataclass(path, Network)


def test_a_text_is_no_list() -> None:
    with pytest.raises(DataclassJsonError, match=r"expected list.*classes"):
        from_json({"classes": "ab", "crop": {"size": 1}}, Network, "here")


def test_lists_in_lists_are_checked_to_the_last_number() -> None:
    values = {"classes": [], "crop": {"size": 1}, "ranks": [[1.0, 2.0], [1.0, "x"]]}
    with pytest.raises(DataclassJsonError, match="ranks"):
        from_json(values, Network, "here")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_dataclass(tmp_path / "none.json", Network)


def test_an_empty_object() -> None:
    with pytest.raises(DataclassJsonError, match="classes"):
        from_json({}, Network, "here")


def test_other_values_than_objects(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    path.write_text("[1, 2]")
    assert read_value(path, list[int]) == [1, 2]
    path.write_text('{"a": {"b": null}}')
    assert read_value(path, dict[str, dict[str, float | None]]) == {"a": {"b": None}}
    for text in ("[]", '{"a": 1}', '{"a": {"b": "x"}}', "null"):
        path.write_text(text)
        with pytest.raises(DataclassJsonError, match=r"done\.json.*; run it again$"):
            read_value(path, dict[str, dict[str, float | None]], "run it again")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"seconds": {number}}}')
    with pytest.raises(DataclassJsonError, match="not finite"):
        read_object(path)


@pytest.mark.parametrize(
    ("kind", "named"), [("folder", "a folder"), ("pipe", "a named pipe"), ("", "an empty file"), ("\xff", "decode")]
)
def test_what_is_not_a_json_file_is_named_with_the_remedy(tmp_path: Path, kind: str, named: str) -> None:
    path = tmp_path / "a.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(kind.encode("latin-1"))
    with pytest.raises(DataclassJsonError, match=f"{named}.*; run `detpipe check`$") as caught:
        read_object(path, "run `detpipe check`")
    assert str(path) in str(caught.value)


def test_a_message_about_a_hostile_file_is_short() -> None:
    @dataclass
    class Numbers:
        first: int = 0

    for values in ({"x" * 10_000: 1}, {"first": "y" * 10_000}, {f"key {number}": 1 for number in range(10_000)}):
        with pytest.raises(DataclassJsonError, match=r"^here: ") as raised:
            from_json(values, Numbers, "here")
        assert len(str(raised.value)) < 2_000
