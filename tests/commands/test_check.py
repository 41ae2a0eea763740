"""`detpipe check` on folders and files as people have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import drawn
from tests.command_line import detpipe


def check(run_dir: Path, *words: str) -> tuple[int, str]:
    outcome = detpipe("check", *words, f"run_dir={run_dir}", "workers=0", "full=false")
    return outcome.status, outcome.out + outcome.err


def test_several_roots_are_given_as_a_list(voc_root: Path, tmp_path: Path) -> None:
    copied = drawn.copy(voc_root, tmp_path / "second")
    status, text = check(tmp_path / "run", "dataset=voc", f"dataset.root=[{voc_root},{copied}]", "dataset.max_bad=1")
    assert status == 0, text
    assert f"train: {2 * len(drawn.TRAIN)} images" in text


def test_the_automatic_split_is_written_and_may_be_used_again(voc_root: Path, tmp_path: Path) -> None:
    root = drawn.copy(voc_root, tmp_path / "set")
    shutil.rmtree(root / "ImageSets")
    status, text = check(tmp_path / "run", *drawn.voc(root))
    assert status == 0, text
    assert "no lists: of the annotated images about 20% are test, by the hash of name and split_seed=0" in text
    stored = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(stored["train"] + stored["test"]) == sorted((*drawn.TRAIN, *drawn.TEST))
    swapped = tmp_path / "swapped.json"
    swapped.write_text(json.dumps({**stored, "train": stored["test"], "test": stored["train"]}))
    status, text = check(tmp_path / "again", *drawn.voc(root), f"dataset.split_file={swapped}")
    assert status == 0, text
    again = json.loads((tmp_path / "again" / "split.json").read_text())
    assert (again["train"], again["test"]) == (stored["test"], stored["train"])


def test_lists_write_no_split(voc_root: Path, tmp_path: Path) -> None:
    assert check(tmp_path / "run", *drawn.voc(voc_root))[0] == 0
    assert not (tmp_path / "run" / "split.json").exists()


def test_one_coco_file_has_train_and_test(voc_root: Path, tmp_path: Path) -> None:
    words = [word for word in drawn.write_coco(tmp_path, voc_root) if "test_" not in word.partition("=")[0]]
    status, text = check(tmp_path / "run", *words, "dataset.test_share=0.5")
    assert status == 0, text
    stored = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(stored["train"] + stored["test"]) == sorted(drawn.TRAIN)
    assert f"test: {len(stored['test'])} images" in text


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["dataset=voc", "dataset.root={kit}"], "dataset.root={kit}/set"),
        (["dataset=voc", "dataset.root={outside}", "dataset.max_bad=1", "fail_on=never"], "dataset.outside=true"),
    ],
)
def test_what_a_message_advises_works(voc_root: Path, tmp_path: Path, words: list[str], advice: str) -> None:
    kit, outside = tmp_path / "kit", tmp_path / "outside"
    drawn.copy(voc_root, kit / "set")
    (kit / "tools").mkdir()  # a folder with nothing but the set would be read as the set
    drawn.copy(voc_root, outside)
    name = f"{drawn.TRAIN[0]}.jpg"
    (outside / "JPEGImages" / name).rename(tmp_path / name)
    (outside / "JPEGImages" / name).symlink_to(tmp_path / name)
    words = [word.format(kit=kit, outside=outside) for word in words]
    advice = advice.format(kit=kit)
    _, text = check(tmp_path / "before", *words)
    assert advice in text
    kept = [word for word in words if not word.startswith(advice.partition("=")[0] + "=")]
    status, text = check(tmp_path / "after", *kept, advice)
    assert status == 0, text
    assert f"train: {len(drawn.TRAIN)} images" in text
