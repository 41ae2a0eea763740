"""The page of a training: its head, its table, its settings, and text from outside."""

from __future__ import annotations

from detpipe.report.training_page import SnapshotFile, TrainingPage, render
from tests.report.run.test_page import EVIL, read

ROWS = [
    {"iteration": 10, "loss": 2.0, "examples_per_second": 40.0, "waiting": 0.25},
    {"iteration": 20, "loss": 1.0, "val_accuracy": 0.5, "examples_per_second": 40.0, "waiting": 0.25},
]


def test_a_training_under_way() -> None:
    data = TrainingPage(
        subtitle=EVIL,
        rows=ROWS,
        complete=False,
        wanted=100,
        batch=4,
        age=3.0,
        snapshots=[SnapshotFile(name=EVIL, size=1200)],
        settings={EVIL: EVIL, "solver": {"lr": 0.1}},
    )
    page = read(render(data))
    text = " ".join(page.words)
    for words in ("not complete, 20 of 100 iterations logged, 8.0 s left", "25.00% of the time", "solver.lr", "1.2 kB"):
        assert words in text
    assert not [tag for tag, attributes in page.tags if tag in ("script", "img") or "onerror" in attributes]
    assert [words for words in page.words if words in ("Curves", "Numbers", "Settings")] == [
        *("Curves", "Numbers", "Settings"),  # the links
        *("Curves", "Numbers", "Settings"),
    ]


def test_before_the_first_row_the_page_says_so() -> None:
    page = read(render(TrainingPage(subtitle="", rows=[])))
    assert "The log is still empty." in page.words
    assert "No settings were recorded." in page.words
    assert "Numbers" not in page.words
