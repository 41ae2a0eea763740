"""The command line: what a person sees of commands, mistakes, sweeps and completions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detpipe import cli
from detpipe.commands import propose
from detpipe.commands.groups import GROUPS
from detpipe.commands.run_settings import Propose
from detpipe.commands.table import COMMANDS, family_of
from detpipe.storage.interrupt import Interrupted
from tests import drawn
from tests.command_line import Outcome, detpipe, process

EACH = [name.split() for name in COMMANDS]
"""The words of each command."""


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.write_voc(tmp_path_factory.mktemp("voc") / "drawn")


@pytest.fixture(autouse=True)
def _stand_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing command makes its run folder all the same: not in the checkout."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def assert_one_sentence(outcome: Outcome, command: str, *words: str) -> None:
    """Exit status 1, and on stderr one line that begins with the command."""
    assert outcome.status == 1, outcome.err
    assert "Traceback" not in outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith(f"detpipe {command}: "), outcome.err
    for word in words:
        assert word in last


def test_nothing_shows_the_usage_and_fails() -> None:
    outcome = detpipe()
    assert outcome.status == 2
    assert outcome.out.startswith("usage: detpipe COMMAND")
    for name in cli.summary_of_all():
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_the_usage(flag: str) -> None:
    outcome = detpipe(flag)
    assert outcome.status == 0
    assert outcome.out == detpipe().out


def test_version() -> None:
    outcome = detpipe("--version")
    assert outcome.status == 0
    assert re.fullmatch(r"detpipe \d+\.\d+\.\d+\n", outcome.out)


@pytest.mark.parametrize(("typed", "meant"), [("propse", "propose"), ("train_cls", "train-cls"), ("evaluate", "eval")])
def test_a_mistyped_command(typed: str, meant: str) -> None:
    outcome = detpipe(typed, "run_dir=x")
    assert outcome.status == 1
    assert f"got '{typed}'; did you mean {meant}?" in outcome.err


def test_a_command_like_no_other() -> None:
    outcome = detpipe("zzz")
    assert outcome.status == 1
    assert "got 'zzz'. The commands are" in outcome.err
    assert "did you mean" not in outcome.err
    assert "train-cls" in outcome.err


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_each_command_shows_its_settings(command: list[str]) -> None:
    outcome = detpipe(*command, "--cfg", "job")
    assert outcome.status == 0, outcome.err
    for line in ("run_dir: runs/latest", "dataset: null", "seed: 0", "device: auto", "overwrite: false"):
        assert line in outcome.out.splitlines()


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_each_command_has_help(command: list[str]) -> None:
    outcome = detpipe(*command, "--help")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"detpipe {' '.join(command)}: ")
    assert "\n  run_dir=runs/latest  (text)\n" in outcome.out
    assert f"\n  dataset={'|'.join(sorted(GROUPS['dataset']))}\n" in outcome.out


@pytest.mark.parametrize(("flags", "status"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_a_family_shows_its_commands(flags: list[str], status: int) -> None:
    outcome = detpipe("proposals", *flags)
    assert outcome.status == status
    assert outcome.out.startswith("usage: detpipe proposals COMMAND")
    for name in family_of("proposals"):
        assert f"\n  {name} " in outcome.out


def test_a_mistyped_command_of_a_family() -> None:
    outcome = detpipe("proposals", "inof")
    assert outcome.status == 1
    assert "detpipe proposals: expected a command, got 'inof'; did you mean info?" in outcome.err


def test_an_error_of_a_family_says_its_words(tmp_path: Path) -> None:
    assert_one_sentence(detpipe("proposals", "info", f"path={tmp_path}"), "proposals info", str(tmp_path))
    assert_one_sentence(detpipe("proposals", "export", "outt=a"), "proposals export", "outt")


def test_what_only_reads_leaves_nothing_behind(tmp_path: Path) -> None:
    for command in ("info", "verify", "export"):
        detpipe("proposals", command, f"path={tmp_path}")
    assert list(Path.cwd().iterdir()) == []


def test_a_value_of_another_type() -> None:
    assert_one_sentence(detpipe("train-cls", "solver.max_iter=many"), "train-cls", "many", "max_iter")
    assert_one_sentence(detpipe("run", "device=tpu"), "run", "tpu", "cuda")


def test_a_value_that_a_component_refuses(voc_root: Path) -> None:
    outcome = detpipe("run", *drawn.voc(voc_root), "solver.batch_size=0")
    assert_one_sentence(outcome, "run", "solver.batch_size: expected at least 1, got 0")


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_a_negative_seed_is_refused_before_any_work(command: list[str]) -> None:
    outcome = detpipe(*command, "seed=-1")
    assert_one_sentence(outcome, " ".join(command), "seed: expected")


def test_a_seed_too_large_for_the_generators() -> None:
    outcome = detpipe("train-cls", f"seed={2**63}")
    assert_one_sentence(outcome, "train-cls", "seed: expected")


def test_an_unknown_option_of_a_group() -> None:
    assert_one_sentence(detpipe("run", "dataset=pascal"), "run", "pascal", "voc")
    assert_one_sentence(detpipe("propose", "proposals=rpn"), "propose", "rpn", "selective_search")


@pytest.mark.parametrize("command", ["detect", "train-cls"])
def test_an_experiment_of_another_command(command: str) -> None:
    outcome = detpipe(command, "experiment=fast_rcnn")
    assert outcome.status == 1
    assert f"experiment=fast_rcnn: expected an experiment for `detpipe {command}`" in outcome.err
    assert "give the settings one by one (In 'experiment/fast_rcnn': " in outcome.err


@pytest.mark.parametrize(
    ("word", "command", "suggested"),
    [
        ("solver.max_itr=3", "run", "did you mean solver.max_iter?"),
        ("solvr.max_iter=3", "run", "did you mean solver.max_iter?"),
        ("run_dri=x", "propose", "did you mean run_dir?"),
        ("run_di=x", "proposals info", "did you mean run_dir?"),
        ("xyzzy=3", "check", "`detpipe check --help` lists all settings"),
        ("+sampling.foo=3", "run", "remove +sampling.foo=..."),
        ("+foo=3", "run", "remove +foo=..."),
    ],
)
def test_an_unknown_setting(word: str, command: str, suggested: str) -> None:
    outcome = detpipe(*command.split(), "dataset=demo", word) if command == "run" else detpipe(*command.split(), word)
    assert_one_sentence(outcome, command, word.lstrip("+").partition("=")[0] + ":", suggested)


@pytest.mark.parametrize("name", ["Bücher", "my data (2024)", "a=b", "R&D's #1; new", 'a 5" disk\\', "写真"])
def test_a_path_of_any_letters(name: str, voc_root: Path) -> None:
    drawn.copy(voc_root, Path(name))
    outcome = detpipe("check", "dataset=voc", f"dataset.root={name}", f"run_dir=runs/{name}", "workers=0")
    assert outcome.status == 0, outcome.err
    assert (Path("runs") / name / "check.json").is_file()


def test_what_is_not_quoted_says_how_to() -> None:
    for word in ('dataset.classes="a', "dataset.classes=[a"):
        assert_one_sentence(
            detpipe("run", "dataset=voc", word), "run", word, """'dataset.classes="..."', or in a list '"""
        )


def test_no_data_set() -> None:
    for command in ("run", "check", "propose", "crop"):
        assert_one_sentence(detpipe(command), command, "dataset.root=DIR")


def test_a_data_set_without_its_folder() -> None:
    assert_one_sentence(detpipe("run", "dataset=voc"), "run", "dataset.root")


def test_a_missing_folder(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    for command in ("run", "check", "propose"):
        assert_one_sentence(detpipe(command, *drawn.voc(missing)), command, str(missing), "dataset.root")


def test_a_missing_file_is_named_first(tmp_path: Path, voc_root: Path) -> None:
    data = [f"dataset.root={voc_root}", f"run_dir={tmp_path / 'run'}", f"out={tmp_path / 'out'}"]
    outcome = detpipe("labels", "apply", *data, f"corrections={tmp_path / 'none.json'}")
    assert outcome.status == 1
    assert f"detpipe labels apply: {tmp_path / 'none.json'}: expected a file" in outcome.err
    assert "Errno" not in outcome.err


def test_a_run_folder_that_cannot_be_made(voc_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = detpipe("check", *drawn.voc(voc_root), f"run_dir={tmp_path / 'file' / 'run'}")
    assert_one_sentence(outcome, "check", str(tmp_path / "file"))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    outcome = detpipe("check", *drawn.voc(tmp_path / "nowhere"), "debug=true")
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("detpipe check: ")


def test_a_process_of_its_own(voc_root: Path, tmp_path: Path) -> None:
    """Exit status and stderr as a shell has them; relative paths are from where the person stands."""
    good = process("check", *drawn.voc(Path(os.path.relpath(voc_root))), "run_dir=here/run", "workers=0")
    assert good.status == 0, good.err
    assert Path("here/run/check.json").is_file()
    bad = process("check", *drawn.voc(tmp_path / "nowhere"), "run_dir=here/run", "workers=0")
    assert bad.status == 1
    assert bad.out == ""
    assert len(bad.err.splitlines()) == 1


def test_a_sweep_has_a_run_folder_for_each_value(voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = [*drawn.voc(voc_root), "proposals=uniform", "workers=0", f"run_dir={folder}"]
    outcome = detpipe("propose", *arguments, "proposals.max_proposals=5,9", "-m")
    assert outcome.status == 0, outcome.err
    for number, count in enumerate((5, 9)):
        manifest = (folder / str(number) / "proposals.lmdb" / "manifest.json").read_text()
        assert f'"max_proposals": {count}' in manifest
    assert not (folder / "proposals.lmdb").exists()


def test_a_sweep_goes_on_after_a_failure_and_fails(voc_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    arguments = [*drawn.voc(voc_root), "proposals=uniform", "workers=0", f"run_dir={folder}"]
    outcome = detpipe("propose", *arguments, "proposals.max_proposals=0,9", "-m")
    assert outcome.status == 1
    assert "max_proposals: expected a number from 1" in outcome.err
    assert (folder / "1" / "proposals.lmdb" / "manifest.json").is_file()


def test_a_signal_ends_the_whole_sweep(voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def interrupted(config: Propose) -> None:
        begun.append(config.seed)
        raise Interrupted("saved")

    monkeypatch.setattr(propose, "run", interrupted)
    outcome = detpipe("propose", *drawn.voc(voc_root), f"run_dir={tmp_path}", "seed=1,2", "-m")
    assert outcome.status == 130
    assert "detpipe propose: stopped: saved" in outcome.err
    assert begun == [1]


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
"""What torchrun tells the first of two processes."""


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if not row.torchrun])
def test_only_trainings_of_networks_run_under_torchrun(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in TORCHRUN.items():
        monkeypatch.setenv(variable, value)
    outcome = detpipe(*name.split(), "run_dir=here")
    assert_one_sentence(outcome, name, "WORLD_SIZE=2", "without torchrun")
    assert list(Path.cwd().iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "torchrun" not in detpipe(*name.split(), "--cfg", "job").err


def test_commands_that_may_run_under_torchrun() -> None:
    assert [name for name, row in COMMANDS.items() if row.torchrun] == ["train-multibox", "train-cls"]


@pytest.mark.parametrize("head", ["svm", "linear", "two_layers", "knn", "prototypes", "zero_shot"])
def test_a_head_on_stored_features_does_not_train_under_torchrun(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in TORCHRUN.items():
        monkeypatch.setenv(variable, value)
    assert_one_sentence(detpipe("train-cls", f"head={head}", "run_dir=here"), "train-cls", "without torchrun")


def piped_into_nothing(*arguments: str, stderr: int | None = None) -> tuple[int, str]:
    """Exit status and stderr of a command whose stdout is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    started = subprocess.Popen(
        [sys.executable, "-m", "detpipe", *arguments],
        stdout=writer,
        stderr=writer if stderr is None else stderr,
        text=True,
    )
    os.close(writer)
    _, err = started.communicate(timeout=120)
    return started.returncode, err


def test_a_reader_that_has_ended_is_no_error(voc_root: Path) -> None:
    for arguments in (["--help"], ["--version"], ["check", "--cfg", "job"], ["check", "--help"]):
        assert piped_into_nothing(*arguments, stderr=subprocess.PIPE) == (141, "")
    # Log lines go to stderr: they are lost, and the work is done.
    assert piped_into_nothing("check", *drawn.voc(voc_root), "run_dir=here", "workers=0")[0] in (0, 141)


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(config: Propose) -> None:
        raise BrokenPipeError("a worker has ended")

    monkeypatch.setattr(propose, "run", broken)
    assert_one_sentence(detpipe("propose", f"run_dir={tmp_path}"), "propose", "a worker has ended")


def completions(monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash would offer after this line."""
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    outcome = detpipe("-sc", "query=bash")
    assert outcome.status == 0, outcome.err
    return outcome.out.split()


def test_commands_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completions(monkeypatch, "detpipe ") == [*cli.summary_of_all(), "help"]
    assert completions(monkeypatch, "detpipe tr") == ["train-multibox", "train-cls"]
    assert completions(monkeypatch, "detpipe zz") == []
    assert completions(monkeypatch, "detpipe pro") == ["propose", "proposals"]
    assert completions(monkeypatch, "detpipe proposals ") == list(family_of("proposals"))
    assert completions(monkeypatch, "detpipe proposals ex") == ["export"]
    assert completions(monkeypatch, "detpipe proposals zz") == []
    assert completions(monkeypatch, "detpipe proposals") == ["proposals"]  # still being typed


def test_help_and_its_commands_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completions(monkeypatch, "detpipe he") == ["help"]
    assert completions(monkeypatch, "detpipe help") == ["help"]
    assert completions(monkeypatch, "detpipe help ") == list(cli.summary_of_all())
    assert completions(monkeypatch, "detpipe help tr") == ["train-multibox", "train-cls"]
    assert completions(monkeypatch, "detpipe help proposals ex") == ["export"]
    assert completions(monkeypatch, "detpipe help run ") == []


def test_groups_and_keys_of_a_command_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completions(monkeypatch, "detpipe run dataset=") == [f"dataset={name}" for name in sorted(GROUPS["dataset"])]
    assert completions(monkeypatch, "detpipe propose proposals=sl") == ["proposals=sliding_window"]
    assert completions(monkeypatch, "detpipe train-cls solver.max_") == ["solver.max_iter="]
    assert "sampling." not in completions(monkeypatch, "detpipe detect ")
    assert completions(monkeypatch, "detpipe proposals export form") == ["format="]
    assert completions(monkeypatch, "detpipe proposals fuse proposals.dup") == ["proposals.duplicate_iou="]


def test_the_completion_can_be_installed() -> None:
    outcome = detpipe("-sc", "install=bash")
    assert outcome.status == 0, outcome.err
    assert "complete" in outcome.out
