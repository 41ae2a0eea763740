"""The whole flow from a YOLO folder: the same numbers as from the same data set as a VOC folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests import drawn
from tests.command_line import detpipe


def test_run_from_a_yolo_folder(tmp_path: Path) -> None:
    yolo = drawn.write_yolo(tmp_path / "yolo")
    voc = drawn.voc(drawn.write_voc(tmp_path / "voc"))
    for name, words in (("of_yolo", yolo), ("of_voc", voc)):
        outcome = detpipe("run", *words, *drawn.settings("run", *drawn.FAST_RCNN), f"run_dir={tmp_path / name}")
        assert outcome.status == 0, outcome.err
    one, other = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("of_yolo", "of_voc"))
    assert one["voc10"] == other["voc10"]
    assert one["coco"] == other["coco"]
    # Later commands need no dataset= words, also from another folder.
    outcome = detpipe(
        "detect", "yolo=true", "show_floor=0.0", f"run_dir={tmp_path / 'of_yolo'}", "device=cpu", "workers=0"
    )
    assert outcome.status == 0, outcome.err
    labels = tmp_path / "of_yolo" / "yolo" / "labels"
    assert {path.stem for path in labels.iterdir()} == set(drawn.TEST)
