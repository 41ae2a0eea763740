from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.duration import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5min", 300),
        ("1h", 3600),
        ("1h30min", 5400),
        ("1h 30min 5s", 3605 + 1800),
        ("1.5h", 5400),
        (" 5 min ", 300),
        ("720h", 2592000),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text, "budget") == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "min",
        "5",
        "5m",
        "5 hours",
        "-5min",
        "30min1h",
        "5min5min",
        "0s",
        "721h",
        "1e3s",
        "nan",
        "٥s",
        "9" * 400 + "h",
    ],
)
def test_others_are_refused_with_the_setting_and_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"^budget: expected a duration"):
        seconds_of(text, "budget")


def test_a_number_without_a_unit_names_both() -> None:
    with pytest.raises(ValueError, match="budget=5s or budget=5min"):
        seconds_of("5", "budget")


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert seconds_of(f"{hours}h{minutes}min{seconds}s", "budget") == 3600 * hours + 60 * minutes + seconds
