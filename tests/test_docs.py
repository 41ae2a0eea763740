"""README, docs/, benchmarks/notes/: each command composes or runs, each Python block runs, each table is the code's.

A comment before a block says what is done with it:
- none: `detpipe` lines are composed with all their overrides, as `--cfg job` does, and their values checked; other
  lines must begin with a known word; Python is run.
- `<!-- test: run -->`: the lines of a shell block are run one after the other with small settings. With
  `<!-- test: run status=1 -->` each must end with that exit status.
- `<!-- test: notebook -->`: a step of docs/tutorial.ipynb; tests/test_tutorial.py runs them one after the other.
- `<!-- test: skip REASON -->`: Python is not run; shell lines are composed all the same.

A file that a page shows after `<!-- file: NAME -->` stands where its lines are run.

The places that pages name (`my_voc`, `my_coco`, `photos`, `runs/mine`, ...) are drawn and made by the fixture `place`.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from detpipe import Detector, TrainingResult, training
from detpipe.auto_dataset import with_format
from detpipe.backbone.settings import NETWORKS
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.kinds import load_classifier
from detpipe.commands import detect_parts
from detpipe.commands.groups import GROUPS
from detpipe.commands.proposals.export import SUFFIX
from detpipe.commands.table import COMMANDS, CommandRow, family_of
from detpipe.config import APPLICATIONS, register, to_command
from detpipe.datasets.findings import SEVERITY
from detpipe.heads.table import HEADS
from detpipe.inspect.gradient_check import gradient_check
from detpipe.metrics.table import METRICS
from detpipe.proposals.selective_search.search import SelectiveSearchPreset
from detpipe.remote_run import with_local_copies
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.solver.lr_policy import LrPolicy, Policy
from detpipe.solver.parameter_groups import make_optimizer
from detpipe.solver.solver_config import Optimizer, SolverConfig
from detpipe.storage import shards
from tests import drawn
from tests.command_line import detpipe
from tests.test_layers import LAYERS
from tools import write_scaling_tables, write_settings_reference

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
BENCHMARKS = ROOT / "BENCHMARKS.md"
NOTES = sorted((ROOT / "benchmarks" / "notes").glob("*.md"))
PAGES = [*([README] if README.is_file() else []), *DOCS, *NOTES]
LINKED = [*PAGES, BENCHMARKS, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]

OTHER_WORDS = {
    "cat",
    "cd",
    "curl",
    "cvat-cli",
    "git",
    "kill",
    "label-studio-converter",
    "make",
    "pip",
    "python",
    "srun",
    "tail",
    "taskset",
    "tensorboard",
    "torchrun",
    "uvicorn",
}
"""What a shell line may begin with beside `detpipe`; such lines are not run."""
NOT_ALONE = ("skip", "notebook")
"""Marks of Python blocks that don't run by themselves."""
SMALL = {
    "backbone.weights": "none",
    "crops.size": "32",
    "detect.compile": "false",
    "proposals.max_proposals": "60",
    "proposals.max_side": "120",
    "proposals.preset": "opencv_single",
    "sampling.regions_per_image": "16",
    "solver.batch_size": "8",
    "solver.max_iter": "3",
    "workers": "0",
}
"""Settings that make a command quick; given to each command that has them."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the words of the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each shell line; a backslash joins lines, comments are left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


FENCE = re.compile(r"(?:<!-- test: (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def blocks_of(page: Path, text: str) -> list[Block]:
    return [
        Block(page, text[: match.start()].count("\n") + 1, match["language"], match["text"], match["mark"] or "")
        for match in FENCE.finditer(text)
    ]


@functools.cache
def blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page, page.read_text("utf-8")) if block.language == language]


def application(words: list[str]) -> tuple[str, list[str]]:
    """The application of a line and its arguments: `detpipe proposals info` is proposals-info."""
    if len(words) > 2 and words[2] in family_of(words[1]):
        return f"{words[1]}-{words[2]}", words[3:]
    return words[1], words[2:]


def compose_command(name: str, overrides: list[str]) -> DictConfig:
    """The configuration of a command, composed as the command line does it."""
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        return compose(name, with_format(overrides, lenient=True)[0])


def sweeps(overrides: list[str]) -> Iterator[list[str]]:
    """The jobs that `-m` makes of a line, one override at a time."""
    for place, override in enumerate(overrides):
        key, _, value = override.partition("=")
        for one in re.split(r",(?![^\[]*\])", value):
            yield [*overrides[:place], f"{key}={one}", *(other.split(",")[0] for other in overrides[place + 1 :])]


def has(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node or OmegaConf.is_missing(node, part):
            return False
        node = node[part]
    return True


def small(words: list[str]) -> list[str]:
    """A line of a page with the small settings that its command has."""
    name, arguments = application(words)
    config = compose_command(name, [word for word in arguments if not word.startswith("-")])
    return [*words, *(f"{key}={value}" for key, value in SMALL.items() if has(config, key))]


SERVER = """
import json, os, sys
from hydra._internal.hydra import Hydra
from detpipe import cli
from tests.kept_compositions import kept_compositions
Hydra.get_mode = lambda *_, **__: None  # as in tests/command_line.py
with kept_compositions():
    for line in sys.stdin:
        folder, sys.argv = json.loads(line)
        os.chdir(folder)
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        print("status", status, flush=True)
"""


class CommandLine:
    """One process that runs `detpipe` lines with small settings: torch is imported once for all of them."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        with errors.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def run(self, words: list[str], folder: Path) -> int:
        """The exit status of a line, run in `folder`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), small(words)]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("status "):
                return int(line.split()[1])
        raise AssertionError(f"{shlex.join(words)} ended the process: {self.errors.read_text()}")

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    one = CommandLine(tmp_path_factory.mktemp("errors") / "stderr.txt")
    yield one
    one.close()


# --- The places that pages name ---------------------------------------------------------------------------------------


def draw_data(folder: Path) -> None:
    """my_voc (lists trainval, its halves, and test), my_coco, photos, and the boxes and detections of others."""
    voc = drawn.write_voc(folder / "my_voc")
    for name, half in (("first_half", drawn.TRAIN[:5]), ("second_half", drawn.TRAIN[5:])):
        (voc / f"ImageSets/Main/{name}.txt").write_text("\n".join(half) + "\n")
    drawn.write_coco(folder / "my_coco", voc)
    drawn.write_yolo(folder / "my_yolo")
    drawn.write_camera_traps(folder)
    shutil.copytree(voc / "JPEGImages", folder / "my_coco/images")
    results = [
        {"image_id": name, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
        for number, name in enumerate((*drawn.TRAIN, *drawn.TEST))
        for (x1, y1, x2, y2), label in zip(*boxes_and_labels(number), strict=True)
    ]
    (folder / "their_boxes.json").write_text(json.dumps(results))
    of_test = [one for one in results if one["image_id"] in drawn.TEST]
    (folder / "their_detections.json").write_text(json.dumps(of_test))
    write_files(folder)
    for number, name in enumerate(("one", "two"), start=100):
        drawn.write_jpeg(folder / "photos" / f"{name}.jpg", drawn.draw(number)[0])


def draw_classes(folder: Path) -> None:
    """my_classes: a folder a class; my_list.txt of some of them, and my_names.txt."""
    lines = []
    for number in range(12):
        name = f"{drawn.CLASSES[number % 2]}/image {number}.jpg"
        drawn.write_jpeg(folder / "my_classes" / name, drawn.draw(number)[0])
        lines.append(f"{name} {number % 2}\n")
    (folder / "my_list.txt").write_text("".join(lines[:6]))
    (folder / "my_names.txt").write_text("\n".join(drawn.CLASSES) + "\n")


NAMED_FILE = re.compile(r"^<!-- file: (?P<name>[\w.]+) -->\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)


@functools.cache
def named_files() -> dict[str, str]:
    """The files that pages show whole, under the name in the comment before them."""
    shown = (match for page in PAGES for match in NAMED_FILE.finditer(page.read_text("utf-8")))
    return {match["name"]: match["text"] for match in shown}


def write_files(folder: Path) -> None:
    """Write them into a folder."""
    for name, text in named_files().items():
        (folder / name).write_text(text)


def boxes_and_labels(number: int) -> tuple[list[list[float]], list[int]]:
    truth = drawn.draw(number)[1]
    return truth.boxes.tolist(), truth.labels.tolist()


@pytest.fixture(scope="module")
def made(command_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn data and a finished run in runs/mine."""
    folder = tmp_path_factory.mktemp("docs")
    draw_data(folder)
    draw_classes(folder)
    words = ["detpipe", "run", "dataset=voc", "dataset.root=my_voc", "run_dir=runs/mine"]
    assert command_line.run(words, folder) == 0, command_line.errors.read_text()
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one page, as the working directory."""
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


# --- Blocks -----------------------------------------------------------------------------------------------------------

RUN_PAGES = sorted({block.page for block in blocks("sh") if block.mark.startswith("run")})
LONG_PAGES = {
    "audit.md",
    "image_database.md",
    "inspect_network.md",
    "learning_curve.md",
    "proposal_files.md",
    "resume.md",
}
"""Pages whose blocks take more than five seconds, most of them for trainings."""
PYTHON_PAGES = sorted({block.page for block in blocks("python") if not block.mark.startswith(NOT_ALONE)})


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_shell_lines_compose(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    # Lines that name no format look into this folder.
    (tmp_path / "my_voc").mkdir()
    (tmp_path / "my_voc/a.xml").write_text("<annotation><object/></annotation>")
    monkeypatch.chdir(tmp_path)
    for words in block.commands:
        if words[0] != "detpipe":
            assert words[0] in OTHER_WORDS, words
            continue
        if words[1:2] == ["help"]:  # tests/test_help.py
            continue
        if len(words) == 1 or words[1].startswith("-"):
            assert words[1:] in (["--help"], ["--version"]), words
            continue
        name, arguments = application(words)
        flags = [word for word in arguments if word.startswith("-")]
        assert set(flags) <= {"-m", "--cfg", "--help"}, words
        overrides = with_local_copies(COMMANDS["run"], [word for word in arguments if "=" in word]).words
        for job in sweeps(overrides) if "-m" in flags else [overrides]:
            config = compose_command(name, job)
            if not flags:  # as --cfg job and --help do, leave values that are still to be given
                to_command(config, job)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.name in LONG_PAGES else []) for page in RUN_PAGES],
    ids=lambda page: page.name,
)
def test_shell_blocks_run(page: Path, place: Path, command_line: CommandLine) -> None:
    for block in blocks("sh"):
        if block.page == page and block.mark.startswith("run"):
            wanted = int(block.mark.partition("status=")[2] or 0)
            for words in block.commands:
                status = command_line.run(words, place)
                assert status == wanted, f"{block}: {shlex.join(words)}\n{command_line.errors.read_text()}"


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_python(page, monkeypatch)


def run_python(page: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The blocks of a page one after the other, in one namespace, as a person would type them.

    `train` has the small settings.
    """
    monkeypatch.setattr(training, "train", small_train(training.train))
    module = ModuleType("page_of_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for block in blocks("python"):
        if block.page == page and not block.mark.startswith(NOT_ALONE):
            # Empty lines in front, so that a traceback shows the page's own line.
            source = "\n" * block.line + block.text
            exec(compile(source, str(page), "exec"), module.__dict__)
    return module


def small_train(train: Callable[..., TrainingResult]) -> Callable[..., TrainingResult]:
    return lambda dataset, **settings: train(dataset, **{**settings, **SMALL})


def test_a_network_with_an_own_layer_is_a_name_after_the_line_of_its_page(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "docs" / "own_layers.md"
    text = page.read_text("utf-8")
    ((name, module, kind),) = re.findall(r'^ {4}"(\w+)": "([\w.]+):(\w+)",$', text, re.M)
    (command,) = re.findall(r"^ {4}(detpipe .*)$", text, re.M)
    refused = detpipe(*shlex.split(command)[1:])
    assert (refused.status, "backbone.name: expected" in refused.err) == (1, True)
    monkeypatch.setitem(sys.modules, module, run_python(page, monkeypatch))
    monkeypatch.setitem(NETWORKS, name, f"{module}:{kind}")
    done = detpipe(*small(shlex.split(command))[1:])
    assert done.status == 0, done.err
    loaded = Detector.from_run(place / "runs/l2")
    assert "backbone.body.2.scale" in dict(loaded.scorer.network.named_parameters())


def test_a_proposer_is_a_method_after_the_line_of_its_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "new_proposer.md").read_text("utf-8")
    ((name, module, kind),) = re.findall(r'^ {4}"(\w+)": "([\w.]+):(\w+)",$', text, re.M)
    ((table_name, file),) = re.findall(r"one line into `(\w+)` of `(detpipe/[\w/]+)\.py`", text)
    ((setting, value),) = re.findall(rf"`proposals={name} proposals\.(\w+)=(\d+)`", text)
    own = ModuleType(module)
    monkeypatch.setitem(sys.modules, module, own)
    first = next(block for block in blocks("python") if block.page.name == "new_proposer.md")
    exec(compile(first.text, "saturated.py", "exec"), own.__dict__)
    monkeypatch.setitem(getattr(import_module(file.replace("/", ".")), table_name), name, f"{module}:{kind}")

    words = ["propose", "dataset=voc", "dataset.root=my_voc", "run_dir=runs/own", "workers=0", "seed=3"]
    done = detpipe(*words, f"proposals={name}", f"proposals.{setting}={value}")
    assert done.status == 0, done.err
    of_new_images = proposer_of_run(RunFolder(place / "runs/own"))
    assert type(of_new_images) is vars(own)[kind]
    assert getattr(of_new_images, setting) == int(value)


def test_vocs_files_are_made_from_the_detections_that_stand(place: Path, command_line: CommandLine) -> None:
    page = next(page for page in DOCS if page.name == "evaluate.md")
    lines = [words for block in blocks("sh") if block.page == page for words in block.commands]
    (words,) = [words for words in lines if "voc_results=true" in words and "source=photos" not in words]
    before = (place / "runs/mine/detections.json").stat().st_mtime_ns
    assert command_line.run(words, place) == 0, command_line.errors.read_text()
    assert {path.name for path in (place / "runs/mine/voc_results").iterdir()} == {
        f"comp4_det_test_{name}.txt" for name in drawn.CLASSES
    }
    assert (place / "runs/mine/detections.json").stat().st_mtime_ns == before


def write_package(folder: Path, page: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Python block of a page as the file of "package.module", in a folder that Python imports from."""
    package, _, file = module.partition(".")
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    (folder / package / f"{file}.py").write_text(next(one.text for one in blocks("python") if one.page == page))
    monkeypatch.syspath_prepend(folder)


def row_and_command(page: Path) -> tuple[str, list[str]]:
    """The row of a table and the command that a page shows in indented blocks of one line."""
    text = page.read_text("utf-8")
    (row,) = re.findall(r"^ {4}(.*),$", text.partition("## On the command line")[2], re.M)
    (command,) = re.findall(r"^ {4}detpipe (.*)$", text, re.M)
    return row, shlex.split(command)


def test_a_command_is_a_word_after_the_row_of_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_data(tmp_path)
    page = ROOT / "docs" / "new_command.md"
    text, words = row_and_command(page)
    row = eval(text, {"CommandRow": CommandRow})
    write_package(tmp_path, page, row.settings.partition(":")[0], monkeypatch)
    assert detpipe(*words).status == 1
    monkeypatch.setitem(COMMANDS, row.name, row)
    monkeypatch.setitem(APPLICATIONS, row.application, row)  # made from COMMANDS when the program starts

    (tmp_path / "runs/mine").mkdir(parents=True)
    one_found = [one for one in json.loads(Path("their_detections.json").read_text()) if one["category_id"] == 1]
    Path("runs/mine/detections.json").write_text(json.dumps(one_found))
    done = detpipe(*words)
    assert done.status == 0, done.err
    truth = {name: boxes_and_labels(number)[1] for number, name in enumerate(drawn.TEST, start=len(drawn.TRAIN))}
    missed = {name: labels.count(2) for name, labels in truth.items()}
    mined = json.loads(Path("runs/mine/mined.json").read_text())
    assert list(mined.values()) == sorted(missed.values(), reverse=True)[:3]
    assert all(missed[name] == count for name, count in mined.items())
    refused = detpipe(*words[:-1], "top=0")
    assert (refused.status, "top: expected" in refused.err) == (1, True)
    assert "  top=10  (int)\n      How many images are listed.\n" in detpipe(row.name, "--help").out
    assert f"  {row.name} " in detpipe("--help").out


def test_a_metric_is_shown_and_written_after_the_row_of_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_data(tmp_path)
    page = ROOT / "docs" / "new_metric.md"
    text, words = row_and_command(page)
    ((key, path),) = eval(f"{{{text}}}").items()
    write_package(tmp_path, page, path.partition(":")[0], monkeypatch)
    monkeypatch.setitem(METRICS, key, path)
    done = detpipe(*words)
    assert done.status == 0, done.err
    written = json.loads(Path("runs/theirs/metrics.json").read_text())
    assert written[key] == dict.fromkeys(drawn.CLASSES, 0)
    assert f"{key}  disc 0.000   square 0.000" in done.out + done.err
    assert f"<h3>{key.replace('_', ' ').title()}</h3>" in Path("runs/theirs/report.html").read_text()


def test_a_backbone_is_a_name_after_the_row_of_its_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "new_backbone.md"
    text, words = row_and_command(page)
    ((name, path),) = eval(f"{{{text}}}").items()
    write_package(place, page, path.partition(":")[0], monkeypatch)
    refused = detpipe(*words)
    assert (refused.status, "backbone.name: expected" in refused.err) == (1, True)
    monkeypatch.setitem(NETWORKS, name, path)
    done = detpipe(*small(["detpipe", *words])[1:])
    assert done.status == 0, done.err
    loaded = Detector.from_run(place / "runs/tiny")
    assert "backbone.stem.0.weight" in dict(loaded.scorer.network.named_parameters())


def test_a_head_is_a_word_after_the_row_of_its_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained, saved, loaded and scores, from a package of its own and one row of the table."""
    page = ROOT / "docs" / "new_head.md"
    (row,) = re.findall(r'^ {4}"(\w+)": "([\w.]+):(\w+)",$', page.read_text("utf-8"), re.M)
    (command,) = re.findall(r"^ {4}(detpipe .*)$", page.read_text("utf-8"), re.M)
    word, module, name = row
    write_package(place, page, module, monkeypatch)
    refused = detpipe(*shlex.split(command)[1:])
    assert (refused.status, word in refused.err) == (1, True)
    monkeypatch.setitem(HEADS, word, f"{module}:{name}")
    words = [*small(shlex.split(command)), "features.image_sides=[64]", "features.grid=1"]
    done = detpipe(*words[1:])
    assert done.status == 0, done.err
    network, spec = load_classifier(place / "runs/centres/classifier")
    assert isinstance(spec, FeatureClassifierSpec)
    assert isinstance(network, FeatureClassifier)
    assert (spec.head, type(network.head).__name__) == (word, "CentresModule")
    assert float(network.head.width) == 2
    assert json.loads((place / "runs/centres/detections.json").read_text("utf-8"))
    detector = Detector.from_run(place / "runs/centres")
    assert len(detector.predict(place / "photos/one.jpg"))


def test_blocks_are_found() -> None:
    text = "a\n<!-- test: run status=1 -->\n```sh\ndetpipe x \\\n  a=1  # why\n\n```\n\n```python\n1\n```\n"
    shell, python = blocks_of(README, text)
    assert (shell.language, shell.mark, shell.line) == ("sh", "run status=1", 2)
    assert shell.commands == [["detpipe", "x", "a=1"]]
    assert (python.language, python.mark, python.text) == ("python", "", "1\n")


def test_every_page_has_a_block() -> None:
    listed = {*DOCS, *NOTES} - {ROOT / "docs" / "files.md"}  # files.md is a generated list
    assert {block.page for block in [*blocks("sh"), *blocks("python")]} >= listed


# --- Commands of benchmarks -------------------------------------------------------------------------------------------

BENCHMARK_COMMANDS = {
    "data_sets": "run",
    "held_out": "run",
    "label_loop": "run",
    "lenet_mnist": "train-cls",
    "multibox": "train-multibox",
    "propose_rate": "propose",
    "voc20": "run",
}
"""The command that gets the key=value words of a benchmark's line."""


def benchmark_lines() -> list[list[str]]:
    """The words after `python` of each line in the notes, and in BENCHMARKS.md's table, that runs a benchmark."""
    shell = [words for block in blocks("sh") if block.page in NOTES for words in block.commands]
    inline = [shlex.split(line) for line in re.findall(r"`(python benchmarks/[^`]*)`", BENCHMARKS.read_text("utf-8"))]
    return [words[words.index("python") + 1 :] for words in [*shell, *inline] if "python" in words]


@pytest.mark.parametrize("words", benchmark_lines(), ids=shlex.join)
def test_benchmark_lines_fit_their_scripts(words: list[str]) -> None:
    script = ROOT / words[0]
    options = set(re.findall(r'add_argument\("(--[\w-]+)"', script.read_text("utf-8")))
    assert {word for word in words if word.startswith("--")} <= options
    overrides = [word for word in words if "=" in word]
    if overrides:
        places = ["dataset=voc", "dataset.root=my_voc", "run_dir=runs/mine"]
        name = BENCHMARK_COMMANDS[script.stem]
        to_command(compose_command(name, [*places, *overrides]), [*places, *overrides])


def test_every_benchmark_is_in_the_notes() -> None:
    assert {words[0] for words in benchmark_lines()} == {
        f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")
    }


# --- Links ------------------------------------------------------------------------------------------------------------

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text("utf-8")) if not re.match(r"[a-z]+:", target)]
    broken = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert broken == []


@pytest.mark.skipif(not README.is_file(), reason="there is no README.md")
def test_readme_links_every_page() -> None:
    linked = {(ROOT / target).resolve() for target in LINK.findall(README.read_text("utf-8"))}
    assert [page.name for page in DOCS if page not in linked] == []


def test_benchmarks_links_every_page_of_notes() -> None:
    linked = {(ROOT / target).resolve() for target in LINK.findall(BENCHMARKS.read_text("utf-8"))}
    assert [page.name for page in NOTES if page not in linked] == []


# --- Tables -----------------------------------------------------------------------------------------------------------


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the rows of a page's table whose first heading is `first`; backticks are taken off."""
    rows: list[list[str]] = []
    lines = iter((ROOT / "docs" / page).read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {first} |"):
            next(lines)  # the rule
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip().replace("`", "") for cell in row.strip("|").split("|")])
    assert rows, f"{page} has no table of {first}"
    return rows


def test_findings_are_those_of_check() -> None:
    stated = [(kind, severity) for kind, severity, _ in table("own_data.md", "kind")]
    assert stated == [(kind, severity.value) for kind, severity in SEVERITY.items()]


def test_methods_and_presets_are_those_of_the_code() -> None:
    assert {row[0] for row in table("proposals.md", "method")} == set(GROUPS["proposals"])
    assert [row[0] for row in table("proposals.md", "preset")] == [preset.value for preset in SelectiveSearchPreset]


def test_formats_are_those_of_export() -> None:
    stated = {form: suffix for form, suffix, _ in table("proposal_files.md", "format")}
    assert stated == {form.value: suffix for form, suffix in SUFFIX.items()}


def test_artefacts_are_those_of_a_run(place: Path) -> None:
    stated = {name.rstrip("/") for row in table("resume.md", "file") for name in row[0].split(", ")}
    there = {path.name for path in (place / "runs/mine").iterdir()}
    inside = {f"classifier/{path.name}" for path in (place / "runs/mine/classifier").iterdir()}
    assert (there - {"classifier"}) | inside <= stated


def settings(page: Path) -> list[tuple[str, str]]:
    """(name, default) of the rows `| \\`name\\` | default | ...` of a page."""
    return re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \| [^|\n]+ \|$", page.read_text("utf-8"), re.M)


@functools.cache
def defaults() -> dict[str, set[str]]:
    """Each setting by its name, as `--cfg job` shows it: its default, or those that it has in several commands."""
    found: dict[str, set[str]] = {}
    options = [("train-cls", f"head={head}") for head in GROUPS["head"]]
    options += [("propose", f"proposals={method}") for method in GROUPS["proposals"]]
    options += [("check", f"dataset={form}") for form in GROUPS["dataset"]]
    for name, *more in [(name,) for name in APPLICATIONS] + options:
        dataset = [] if any(one.startswith("dataset=") for one in more) else ["dataset=voc", "dataset.root=my_voc"]
        config = OmegaConf.to_container(compose_command(name, [*dataset, *more]), enum_to_str=True)
        for setting, value in flat("", config).items():
            found.setdefault(setting, set()).add(value)
    return found


def flat(prefix: str, node: Any) -> dict[str, str]:
    if not isinstance(node, dict) or (prefix and not node):
        return {prefix: node if isinstance(node, str) else json.dumps(node)}
    names = (flat(f"{prefix}.{key}" if prefix else key, value) for key, value in node.items())
    return {name: value for one in names for name, value in one.items()}


def test_defaults_are_those_of_the_code() -> None:
    true = defaults()
    wrong = {
        name: (value, true.get(name))
        for page in DOCS
        for name, value in settings(page)
        if value not in true.get(name, ())
    }
    assert wrong == {}


def test_the_settings_reference_is_what_the_code_says() -> None:
    stated = write_settings_reference.PAGE.read_text("utf-8")
    assert stated == write_settings_reference.page(), "run python tools/write_settings_reference.py"


def test_the_tables_of_scaling_are_those_of_its_constants() -> None:
    stated = write_scaling_tables.PAGE.read_text("utf-8")
    assert stated == write_scaling_tables.page(), "run python tools/write_scaling_tables.py"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 ms"), (0.0364, "36 ms"), (90, "90 s"), (7200, "2 h"), (1e9, "32 years")]
)
def test_durations_of_scaling(seconds: float, text: str) -> None:
    assert write_scaling_tables.duration(seconds) == text


def test_the_memory_of_scaling_is_the_sum_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_scaling_tables.Stage("propose", 1, 1, 3, 100, held=1000, own=500, merged=300)
    monkeypatch.setattr(write_scaling_tables, "STAGES", (one,))
    # A million images in 100 tasks of 10,000: 100 MB, and 1000 + 500, 1000 + 300, or 1000 MB + 500 * 10,000.
    assert write_scaling_tables.memory_alone().splitlines()[-1].split(" | ")[3] == "1.6 GB"
    assert write_scaling_tables.memory_of_driver().splitlines()[-1].split(" | ")[3] == "1.4 GB"
    assert write_scaling_tables.memory_of_task().splitlines()[-1].split(" | ")[3] == "1.1 GB"


def test_the_constants_of_scaling_are_those_of_the_code() -> None:
    assert write_scaling_tables.MOST_TASKS == shards.MOST_TASKS
    assert write_scaling_tables.PART == detect_parts.PART


def test_the_settings_reference_explains_every_setting() -> None:
    assert {
        name for name, meaning in re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", _reference(), re.M) if not meaning
    } == set()


def test_the_settings_reference_has_every_setting() -> None:
    stated = set(re.findall(r"^\| `([\w.]+)` \|", _reference(), re.M))
    missing = {name for name in defaults() if name not in stated and name.partition(".")[0] not in GROUPS}
    assert missing == set()


def _reference() -> str:
    return (ROOT / "docs" / "settings.md").read_text("utf-8")


def test_training_pages_have_every_setting_of_training() -> None:
    groups = ("solver.", "head.", "sampling.", "crops.", "backbone.", "multibox.")
    wanted = {name for name in defaults() if name.startswith(groups)}
    pages = ("training.md", "fast_rcnn.md", "features.md", "multibox.md")
    assert wanted <= {name for page in pages for name, _ in settings(ROOT / "docs" / page)}


def test_lr_formulas_are_those_of_the_code() -> None:
    rows = dict(table("training.md", "policy"))
    assert set(rows) == {policy.value for policy in Policy}
    for name, formula in rows.items():
        policy = LrPolicy(policy=Policy(name), gamma=0.3, stepsize=4, stepvalue=[3, 7], power=0.7)
        for i in range(10):
            known = {"i": i, "max_iter": 10, "gamma": 0.3, "stepsize": 4, "stepvalue": [3, 7], "power": 0.7}
            stated = eval(formula, {"exp": math.exp, "cos": math.cos, "pi": math.pi, **known})
            assert stated == pytest.approx(policy.factor(i, 10)), name


def test_update_formulas_are_those_of_the_code() -> None:
    rows = dict(table("solver.md", "type"))
    assert set(rows) == {kind.value for kind in Optimizer}
    for name, formula in rows.items():
        momentum = 0.0 if name in ("caffe_adagrad", "caffe_rmsprop") else 0.8
        config = SolverConfig(type=Optimizer(name), momentum=momentum, momentum2=0.9, rms_decay=0.7, delta=0.1)
        weight, decay = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64)), 0.01
        optimizer = make_optimizer(config, [{"params": [weight], "lr_mult": 1.0, "weight_decay": decay}])
        known = {"sqrt": math.sqrt, "momentum": momentum, "momentum2": 0.9, "rms_decay": 0.7, "delta": 0.1}
        state = {"w": 2.0, "decay": decay, **known, **dict.fromkeys("vmhkt", 0.0)}
        for rate, gradient in ((0.5, 1.0), (0.5, -0.3), (0.1, 0.7)):
            optimizer.param_groups[0]["lr"] = rate
            weight.grad = torch.full_like(weight, gradient)
            optimizer.step()
            state["r"], state["g"] = rate, gradient + (0 if name.endswith("adamw") else decay * state["w"])
            exec(formula, state)
            assert weight.item() == pytest.approx(state["w"], rel=1e-10), name


def test_arguments_are_those_of_gradient_check() -> None:
    parameters = inspect.signature(gradient_check).parameters.values()
    stated = [
        pair
        for names, values, _ in table("own_layers.md", "argument")
        for pair in zip(names.split(", "), values.split(", "), strict=True)
    ]
    assert stated == [(one.name, str(one.default)) for one in parameters if one.default is not one.empty]


def test_layers_are_those_that_are_held() -> None:
    stated = re.findall(r"^\| (`.+?`) \| (\d) \|", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.M)
    parts = {name: int(layer) for names, layer in stated for name in re.findall(r"`(\w+)(?:\.py|/)`", names)}
    assert parts == {name: layer for name, layer in LAYERS.items() if name != "__main__"}


@pytest.mark.parametrize("page", ["choose_a_recipe.md", "gpu_and_speed.md"])
def test_numbers_of_measurements_are_those_of_benchmarks(page: str) -> None:
    measured = re.compile(r"(?<![\d.])\d+\.\d{1,3}\b|(?<![\d.])\d+(?= (?:s|ms)\b)")
    text = (ROOT / "docs" / page).read_text("utf-8").replace("mAP@0.5", "").replace("IoU 0.5", "")
    known = (ROOT / "BENCHMARKS.md").read_text("utf-8")
    found = set(measured.findall(re.sub(r"`[^`]*`|^```.*?^```", "", text, flags=re.M | re.S)))
    assert {number for number in found if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]\d)", known)} == set()
    assert len(found) > 5


def test_navigation_has_every_page_once() -> None:
    def pages(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for inner in node.values() if isinstance(node, dict) else node:
                yield from pages(inner)

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert len(listed) == len(set(listed))
    assert {page.name for page in DOCS} <= set(listed)


def test_pictures_are_shown_and_small() -> None:
    pictures = {path.resolve() for path in (ROOT / "docs" / "pictures").iterdir()}
    shown = {(page.parent / target).resolve() for page in DOCS for target in LINK.findall(page.read_text("utf-8"))}
    assert pictures <= shown
    assert max(path.stat().st_size for path in pictures) < 150_000
