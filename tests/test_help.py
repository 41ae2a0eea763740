"""`detpipe COMMAND --help` and `detpipe help SETTING`: what stands there is what the code has."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module

from detpipe import help as texts
from detpipe.commands.groups import GROUPS
from detpipe.commands.table import COMMANDS
from detpipe.config import register
from tests.command_line import detpipe


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def shown(*words: str) -> str:
    outcome = detpipe(*words)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out


def names_in(page: str) -> list[str]:
    """The settings of a page of a command, in its order."""
    after = page.partition("Settings used most:")[2]
    return [line.partition("=")[0].strip() for line in after.splitlines() if line.startswith("  ") and line[2] != " "]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_has_a_type_and_a_text(name: str) -> None:
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        settings = list(texts.settings_of(compose(COMMANDS[name].application), COMMANDS[name]))
    assert {one.name for one in settings} >= {"run_dir", "dataset", "dataset.root", "seed"}
    assert [one.name for one in settings if not one.text or not one.kind or not one.default] == []


def test_the_most_used_come_first_and_each_once() -> None:
    names = names_in(shown("run", "--help"))
    assert names[:10] == [
        *("run_dir", "dataset", "dataset.root", "experiment", "proposals"),
        *("head", "backbone", "solver.max_iter", "seed", "overwrite"),
    ]
    assert len(set(names)) == len(names)
    assert names_in(shown("proposals", "info", "--help"))[:5] == ["run_dir", "dataset", "dataset.root", "path", "seed"]


def test_a_page_has_types_defaults_sentences_and_its_groups_only() -> None:
    page = shown("detect", "-h")
    assert "  detect.nms_iou=0.3  (float)\n      IoU threshold of class-wise non-maximum suppression" in page
    assert "  device=auto  (auto|cpu|cuda)\n" in page
    assert "  detect.fast_rcnn.scales=[]  (list of int)\n" in page
    groups = page.partition("Groups, and their options:\n")[2].partition("\n\n")[0]
    assert groups.split() == [
        f"dataset={'|'.join(sorted(GROUPS['dataset']))}",
        f"engine={'|'.join(sorted(GROUPS['engine']))}",
    ]
    assert "experiment=" not in page
    assert "experiment=lenet" in shown("train-cls", "--help")


def test_a_page_has_the_settings_of_the_chosen_options() -> None:
    usual, fast = shown("train-cls", "--help"), shown("train-cls", "head=fast_rcnn", "solver=sgd", "--help")
    assert "head.pooling=" not in usual
    assert "\n  head=fast_rcnn  (option)\n" in fast
    assert "\n  head.pooling=align  (align|pool)\n" in fast
    assert "\n  solver.momentum=0.9  (float)\n" in fast
    assert "solver.lr.policy=" in usual  # parts of parts


@pytest.mark.parametrize("columns", [60, 80, 300])
def test_lines_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for page in (shown("run", "--help"), shown("help", "preset"), shown("help", "experiment")):
        lines = [line for line in page.splitlines() if max(map(len, line.split()), default=0) < 40]
        assert max(map(len, lines)) <= min(columns, 110)


def test_a_setting_that_is_refused_is_an_error_with_help_too() -> None:
    outcome = detpipe("detect", "detect.nms_uio=1", "--help")
    assert outcome.status == 1
    assert outcome.err.startswith("detpipe detect: ")
    assert "nms_uio" in outcome.err


def test_help_of_a_command_is_its_page() -> None:
    assert shown("help", "proposals", "info") == shown("proposals", "info", "--help")
    assert shown("help", "proposals") == shown("proposals", "--help")
    assert shown("help") == shown("--help")


def test_one_setting() -> None:
    page = shown("help", "detect.nms_iou")
    assert page.startswith("detect.nms_iou=0.3  (float)\n  IoU threshold of class-wise non-maximum suppression")
    commands = next(line for line in page.splitlines() if "commands: " in line)
    assert commands.split(": ")[1].split(", ") == ["run", "features", "detect", "export", "curve"]
    assert "experiment=fast_rcnn (0.5)" in page
    assert "proposals.nms_iou" not in page
    short = shown("help", "nms_iou")
    assert page in short
    assert "\nproposals.nms_iou=0.7  (float)\n" in short


def test_a_setting_with_the_options_that_have_it() -> None:
    page = shown("help", "head.pooling")
    assert "with: head=fast_rcnn, head=multibox_fast_rcnn\n" in page
    values = shown("help", "proposals.preset").splitlines()
    assert "      turbo: Our parameters for speed. 12 hierarchies at 288 pixels." in values
    assert any("proposals=ss_quality (turbo_quality)" in line for line in values)
    assert "with: head=svm" in shown("help", "head.positive_iou")  # whose file imports torch


def test_a_group_and_experiments() -> None:
    page = shown("help", "head")
    for option in [*GROUPS["head"], "ridge", "svm_2014"]:
        assert f"\n      {option}: " in page
    assert "experiment=fast_rcnn (fast_rcnn)" in page
    experiments = shown("help", "experiment")
    assert "\n  experiment=rcnn_2014\n" in experiments
    assert "detpipe run dataset.root=DIR" in experiments


@pytest.mark.parametrize(("word", "near"), [("nms_iuo", "nms_iou"), ("solver.max_itr", "solver.max_iter")])
def test_an_unknown_setting_has_its_nearest_names(word: str, near: str) -> None:
    outcome = detpipe("help", word)
    assert outcome.status == 1
    assert outcome.err.startswith(f"detpipe help: {word}: ")
    assert near in outcome.err.split("did you mean ")[1]


QUICK = """
import sys
from detpipe import cli
for words in (["detect", "--help"], ["proposals", "info", "--help"], ["help", "detect.nms_iou"], ["help", "nms_iuo"]):
    sys.argv = ["detpipe", *words]
    try:
        cli.main()
    except SystemExit:
        pass
    print("imported", *sorted({"torch", "torchvision", "matplotlib"} & sys.modules.keys()))
"""


def test_help_does_not_import_torch() -> None:
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("imported")] == ["imported"] * 4


def test_texts_under_fields_and_members() -> None:
    import ast

    tree = ast.parse('class A:\n    a: int = 1\n    """One.\n    Two."""\n    b: int\n    c = 3\n    "Three."\n')
    assert texts.texts_in(tree, "A") == {"a": "One. Two.", "c": "Three."}
    assert texts.texts_in(tree, "B") == {}


def test_the_first_sentence() -> None:
    assert texts.Setting("a", "int", "1", "Sides of 0.5 pixels. More.").sentence == "Sides of 0.5 pixels."
    assert texts.Setting("a", "int", "1", "no end").sentence == "no end"
    assert texts.Setting("a", "int", "1", "(Uijlings et al. 2013). More.").sentence == "(Uijlings et al. 2013)."


def test_values_as_they_are_typed() -> None:
    values = (None, True, 1 / 3, 4e-4, "", "a b", [1, 2], ["x"], {"*.bias": 2.0})
    written = ["null", "true", "0.333333", "0.0004", '""', "a b", "[1,2]", "[x]", "{*.bias: 2.0}"]
    assert [texts.written(value) for value in values] == written
