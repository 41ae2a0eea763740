"""docs/plugins.md: the package of the page is installed in a folder, and used by fresh processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from detpipe.classify.kinds import load_classifier
from detpipe.plugins import ALLOWED, PluginError
from tests import drawn
from tests.command_line import detpipe
from tests.test_plugins import declare

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "plugins.md"
SMALL = [*drawn.TINY, "features.image_sides=[64]", "features.grid=1"]
SMALL = [one for one in SMALL if not one.startswith(("proposals.", "solver."))]
"""The settings that make `detpipe run` quick with the head and the proposer of the page."""


def text_of_page() -> str:
    return PAGE.read_text("utf-8")


def write_package(folder: Path) -> None:
    """The package of the page in a folder, as pip installs it: modules, METADATA and entry_points.txt."""
    for name, text in re.findall(r"^```python\n# (my_detection/\w+\.py)\n(.*?)^```$", text_of_page(), re.M | re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "my_detection" / "__init__.py").touch()
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", text_of_page(), re.M | re.S)
    project = tomllib.loads(toml)["project"]
    declare(folder, project["name"], project["entry-points"])


def write_boxes(folder: Path) -> None:
    """The drawn data set as the page's format has it."""
    lines = []
    for number, name in enumerate((*drawn.TRAIN, *drawn.TEST)):
        image, truth = drawn.draw(number)
        drawn.write_jpeg(folder / f"{name}.jpg", image)
        split = "train" if name in drawn.TRAIN else "test"
        for box, label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            lines.append(f"{split} {name}.jpg {' '.join(map(str, box))} {drawn.CLASSES[label - 1]}")
    (folder / "boxes.txt").write_text("\n".join(lines) + "\n")


def in_new_process(words: list[str], place: Path, *, path: Path | None = None, allow: str = "") -> tuple[int, str]:
    """Run `detpipe` in `place`; returns its status and all its output. path: where packages are installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([str(path)] if path else [])]),
        ALLOWED: allow,
    }
    # As the script `detpipe`, which has no working directory on its path.
    script = "import sys; sys.path[:] = [one for one in sys.path if one]; from detpipe.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's package in site/, data in my_boxes/, a photo, and the run of the page in runs/own."""
    folder = tmp_path_factory.mktemp("plugins")
    write_package(folder / "site")
    write_boxes(folder / "my_boxes")
    (folder / "photos").mkdir()
    shutil.copy(folder / "my_boxes" / "test_0.jpg", folder / "photos")
    (command,) = re.findall(r"^ {4}detpipe (run .*?) \\\n {8}(.*?)$", text_of_page(), re.M)
    words = [*shlex.split(" ".join(command)), *SMALL, "proposals.side=30", "head.width=2"]
    status, output = in_new_process(words, folder, path=folder / "site")
    assert status == 0, output
    return folder


def test_words_of_a_package_work_and_are_stored_with_it(place: Path) -> None:
    run = place / "runs" / "own"
    described = json.loads((run / "classifier" / "classifier.json").read_text())
    assert (described["head"], described["backbone"]["name"]) == ("centres@my-detection", "tiny_net@my-detection")
    proposer = json.loads((run / "classifier" / "proposals.json").read_text())
    assert (proposer["method"], proposer["side"]) == ("grid@my-detection", 30)
    assert json.loads((run / "dataset.json").read_text())["dataset"] == "box_lines@my-detection"
    assert json.loads((run / "metrics.json").read_text())["per_image"]["objects"] == 2
    status, output = in_new_process(["detect", "photos", "run_dir=runs/own"], place, path=place / "site")
    assert status == 0, output


@pytest.mark.parametrize(
    ("words", "entry"),
    [
        (["detect", "source=photos"], "entry point grid in detpipe.proposals"),
        (["detect"], "entry point box_lines in detpipe.datasets"),
    ],
)
def test_a_missing_package_is_one_sentence(
    place: Path, words: list[str], entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = detpipe(*words, "run_dir=runs/own")
    assert done.status == 1
    assert entry in done.err
    assert "pip install my-detection" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(
        PluginError, match=r"head=centres: .*entry point centres in detpipe.heads.*install my-detection"
    ):
        load_classifier(place / "runs" / "own" / "classifier")


def test_a_class_that_only_a_file_names_is_not_imported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run folder of somebody else, beside a module that the working directory happens to have."""
    theirs = place / "theirs"
    shutil.copytree(place / "runs" / "own", theirs / "run")
    shutil.copytree(place / "site" / "my_detection", theirs / "my_detection")
    shutil.rmtree(theirs / "run" / "proposals.lmdb")
    for name in ("classifier.json", "proposals.json"):
        file = theirs / "run" / "classifier" / name
        text = file.read_text().replace("centres@my-detection", "my_detection.heads:Centres")
        text = text.replace("grid@my-detection", "my_detection.proposals:Grid")
        file.write_text(text.replace("tiny_net@my-detection", "my_detection.networks:TinyNet"))
    (theirs / "photos").mkdir()
    shutil.copy(place / "photos" / "test_0.jpg", theirs / "photos")
    words = ["detect", "photos", "run_dir=run"]
    monkeypatch.chdir(theirs)
    refused = detpipe(*words)
    assert refused.status == 1
    assert f"{ALLOWED}=my_detection" in refused.err
    assert "my_detection" not in sys.modules
    status, output = in_new_process(words, theirs, allow="my_detection")
    assert status == 0, output


def test_a_typed_class_is_found_in_the_working_directory(place: Path) -> None:
    folder = place / "typed"
    shutil.copytree(place / "site" / "my_detection", folder / "my_detection")
    words = ["propose", "dataset=my_detection.formats:BoxLines", f"dataset.root={place / 'my_boxes'}"]
    words += ["proposals=my_detection.proposals:Grid", "proposals.side=50", "workers=0", "run_dir=run"]
    status, output = in_new_process(words, folder)
    assert status == 0, output
    settings = json.loads((folder / "run" / "proposals.lmdb" / "manifest.json").read_text())["settings"]
    assert (settings["proposals"]["method"], settings["proposals"]["side"]) == ("my_detection.proposals:Grid", 50)
    assert json.loads((folder / "run" / "dataset.json").read_text())["dataset"] == "my_detection.formats:BoxLines"
