"""The table of the accuracy at each level of a class tree."""

from __future__ import annotations

from detpipe.report.text_table import number
from detpipe.taxonomy.level_accuracy import LevelAccuracy

LEVEL_HEAD = ("level", "names", "found objects", "right", "accuracy", "answers", "right answers")


def level_rows(levels: LevelAccuracy) -> list[list[str]]:
    """A row for each level, from the classes to the coarsest."""
    return [
        [
            one.name,
            f"{one.names:,}",
            f"{one.counted:,}",
            f"{one.right:,}",
            number(one.accuracy),
            f"{one.answers:,}",
            f"{one.answers_right:,}",
        ]
        for one in levels.levels
    ]
