"""Arguments of the Python API are checked against their types; errors name the argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.arguments import checked, checked_fields


class Colour(Enum):
    red = "red"
    blue = "blue"


@pytest.mark.parametrize(
    ("hint", "value", "wanted"),
    [
        (int, 3, 3),
        (int, np.int64(3), 3),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (bool, True, True),
        (str, "a", "a"),
        (str, Path("a"), "a"),
        (str | None, None, None),
        (int | None, 4, 4),
        (Colour, "red", Colour.red),
        (Colour, Colour.blue, Colour.blue),
        (list[int], (1, 2), [1, 2]),
        (list[list[float]], [[1, 2.5], []], [[1.0, 2.5], []]),
        (list[str] | None, [Path("a")], ["a"]),
        (int | str, "a", "a"),
        (Any, object, object),
        (dict[str, int], 3, 3),  # not checked
    ],
)
def test_values_that_fit(hint: Any, value: Any, wanted: Any) -> None:
    found = checked("x", hint, value)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (int, "3", "x: expected int, got str '3'"),
        (int, 2.0, "x: expected int, got float"),
        (int, True, "x: expected int, got bool"),
        (float, "a", "x: expected float, got str"),
        (bool, 1, "x: expected bool, got int"),
        (str, 3, "x: expected str, got int 3"),
        (str, None, "x: expected str, got NoneType"),
        (int | None, "a", "x: expected int, got str"),
        (int | str, [], "x: expected int or str, got list"),
        (Colour, "green", "x: expected red, blue, got 'green'"),
        (list[int], "ab", r"x: expected list\[int\], got str"),
        (list[list[float]], [[1], ["a"]], r"x\[1\]\[0\]: expected float, got str"),
    ],
)
def test_values_that_do_not_fit_are_named(hint: Any, value: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        checked("x", hint, value)


def test_the_fields_of_a_dataclass() -> None:
    @dataclass
    class Settings:
        colour: Colour = Colour.red
        sizes: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            checked_fields(self)

    made = Settings("blue", (1, 2))  # type: ignore[arg-type]
    assert (made.colour, made.sizes) == (Colour.blue, [1, 2])
    with pytest.raises(TypeError, match=r"sizes\[0\]: expected int"):
        Settings(sizes=["a"])  # type: ignore[list-item]
