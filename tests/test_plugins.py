"""Words and classes of other packages: found without an import, refused with both names, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import detpipe as api
from detpipe.backbone.settings import BackboneConfig
from detpipe.commands.table import COMMANDS
from detpipe.completion import completions
from detpipe.datasets.formats import FORMATS, format_word
from detpipe.datasets.voc import VocSource
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.table import HEADS, head_class, head_word
from detpipe.metrics.evaluate import evaluate
from detpipe.metrics.table import load_metrics
from detpipe.plugins import ALLOWED, PluginError, PluginTable, _declared, allow, is_allowed, package_versions
from detpipe.proposals.baselines import Uniform
from detpipe.proposals.methods import METHODS
from detpipe.tracking.table import tracker_class, tracker_word
from detpipe.tracking.tracker import NoTracker
from detpipe.training import _words
from tests import drawn
from tests.command_line import detpipe

GROUPS = {
    "heads": {"steady": "CODE.parts:Steady"},
    "proposals": {"corners": "CODE.parts:Corners"},
    "trackers": {"paper": "CODE.parts:Paper"},
    "metrics": {"images": "CODE.parts:images"},
    "datasets": {"old_voc": "CODE.parts:OldVoc"},
}
PARTS = '''
from dataclasses import dataclass

from detpipe.datasets.voc import VocSource
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.proposals.baselines import Uniform
from detpipe.tracking.tracker import NoTracker


@dataclass(kw_only=True)
class Steady(SvmConfig):
    """A steady SVM."""

    calm: str = "1.10"
    """How calm it is."""


class Corners(Uniform):
    """Boxes in corners."""


class Paper(NoTracker):
    """Written on paper."""


class OldVoc(VocSource):
    """VOC of old."""


def images(ground_truth, detections, classes):
    return {"all": len(ground_truth)}
'''


def declare(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """The metadata of an installed distribution with these entry points."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, words in groups.items()
        for line in (f"[{group}]", *(f"{word} = {words[word]}" for word in words))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The module folder of an installed package "my-parts", under a name of its own in each test."""
    name = f"parts_of_{abs(hash(request.node.nodeid))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "parts.py").write_text(PARTS)
    install(tmp_path, "my-parts", GROUPS, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ALLOWED, "")
    return name


def install(folder: Path, package: str, groups: Mapping[str, Mapping[str, str]], code: str) -> None:
    declare(
        folder,
        package,
        {
            f"detpipe.{group}": {word: path.replace("CODE", code) for word, path in words.items()}
            for group, words in groups.items()
        },
    )


def table(**rows: str) -> PluginTable:
    return PluginTable("head", "detpipe.heads", "detpipe.heads.region_head:RegionHeadConfig", rows)


def test_without_packages_a_table_has_its_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert dict(table(svm="a.b:C")) == {"svm": "a.b:C"}
    assert (table().installed(), list(table()), len(table()), "svm" in table()) == ({}, [], 0, False)
    with pytest.raises(KeyError):
        table()["svm"]
    with pytest.raises(KeyError):
        table().load("")


def test_the_version_of_a_package_is_in_keys(code: str, tmp_path: Path) -> None:
    """By the names that files have. Names that look like it, as of files, have none."""
    settings = {"head": {"word": "steady@my-parts"}, "listed": ["corners@my-parts", 3, None, "steady@gone", "a@b"]}
    assert package_versions(settings) == {"package my-parts": "1.0"}
    assert package_versions({"head": "svm", "path": f"{code}.parts:Steady"}) == package_versions(None) == {}
    proposer = METHODS.load("corners")()
    assert package_versions(proposer.describe()) == {"package my-parts": "1.0"}
    metadata = tmp_path / "my_parts-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    _declared.cache_clear()
    assert package_versions(settings) == {"package my-parts": "1.1"}
    _declared.cache_clear()


def test_a_word_is_listed_and_described_without_an_import(code: str) -> None:
    assert list(HEADS)[-1] == "steady"
    assert HEADS["steady"] == f"{code}.parts:Steady"
    assert HEADS.stored("steady") == "steady@my-parts"
    run = COMMANDS["run"]
    assert completions(run, [], "head=st") == ["head=steady"]
    assert completions(run, ["head=steady"], "head.ca") == ["head.calm="]
    assert completions(run, [f"head={code}.parts:Steady"], "head.ca") == ["head.calm="]
    assert not [module for module in sys.modules if module.startswith(code)]


def test_a_class_and_its_word_find_each_other(code: str) -> None:
    steady = HEADS.load("steady")
    assert issubclass(steady, SvmConfig)
    assert head_word(steady()) == "steady@my-parts"
    assert head_class("steady@my-parts") is steady
    assert head_class(f"{code}.parts:Steady") is steady  # it is imported
    assert head_word(SvmConfig()) == "svm"
    assert tracker_word(tracker_class("paper")()) == "paper@my-parts"
    assert isinstance(tracker_class("paper")(), NoTracker)
    assert "corners" not in HEADS
    assert format_word(FORMATS.load("old_voc")) == "old_voc@my-parts"
    assert format_word(VocSource) == "voc"


def test_settings_of_a_plug_in_are_settings_of_its_key(code: str) -> None:
    for word in ("steady", f"{code}.parts:Steady"):
        shown = detpipe("run", f"head={word}", "head.calm=2.50", "--cfg", "job")
        assert shown.status == 0, shown.err
        assert "calm: '2.50'" in shown.out
    shown = detpipe("run", "head=steady", "--help")
    assert "head.calm=1.10  (text)\n      How calm it is." in shown.out
    assert "steady" in shown.out.partition("Settings used most")[0]
    assert "How calm it is." in detpipe("help", "head.calm").out
    unknown = detpipe("run", "head=steady", "head.calmm=2")
    assert (unknown.status, "did you mean head.calm" in unknown.err) == (1, True)


def test_a_word_of_two_packages_is_refused_with_both_names(code: str, tmp_path: Path) -> None:
    install(tmp_path, "other-parts", {"heads": {"steady": "CODE.parts:Steady"}}, code)
    refused = detpipe("run", "head=steady", "--cfg", "job")
    assert refused.status == 1
    assert "my-parts" in refused.err
    assert "head=steady@other-parts" in refused.err
    assert "steady" not in list(HEADS)
    assert detpipe("run", "head=svm", "--cfg", "job").status == 0
    assert "calm:" in detpipe("run", "head=steady@other-parts", "--cfg", "job").out


def test_a_word_of_ours_is_refused_when_typed_and_ours_when_stored(code: str, tmp_path: Path) -> None:
    install(
        tmp_path,
        "other-parts",
        {"heads": {"svm": "CODE.parts:Steady"}, "backbones": {"efficientnet_lite0": "a:B"}},
        code,
    )
    for word in ("head=svm", "backbone.name=efficientnet_lite0"):
        refused = detpipe("run", word, "--cfg", "job")
        assert refused.status == 1
        assert f"{word}: expected a word of one package, got one of detpipe and other-parts" in refused.err
    assert head_class("svm") is SvmConfig
    assert BackboneConfig().name == "efficientnet_lite0"
    assert detpipe("run", "head=knn", "--cfg", "job").status == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import no_such_package_at_all", "ModuleNotFoundError"),
        ("def broken(", "SyntaxError"),
        ("", "expected Steady in its module"),
        ("Steady = int", "expected a subclass of detpipe.heads.region_head:RegionHeadConfig"),
    ],
)
def test_a_broken_package_is_named_when_it_is_used_and_in_no_other_command(
    code: str, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / code / "parts.py").write_text(text)
    refused = detpipe("run", "head=steady", "--cfg", "job")
    assert refused.status == 1
    assert said in refused.err
    assert "my-parts" in refused.err
    drawn.write_voc(tmp_path / "voc")
    for words in (
        ["--help"],
        ["run", "--help"],
        ["help", "head.ridge"],
        ["run", "head=svm", "head.ridge=10", f"dataset.root={tmp_path / 'voc'}", "--cfg", "job"],
    ):
        done = detpipe(*words)
        assert done.status == 0, (words, done.err)
    completions(COMMANDS["run"], ["head=steady"], "head.")


def test_damaged_metadata_is_left_out(code: str, tmp_path: Path) -> None:
    install(tmp_path, "damaged-parts", {"heads": {"torn": "CODE.parts:Steady"}}, code)
    (tmp_path / "damaged_parts-1.0.dist-info" / "entry_points.txt").write_bytes(
        b"[detpipe.heads]\n\xff\xfe no equals sign\n"
    )
    assert "steady" in HEADS
    assert "torn" not in HEADS


def test_a_class_that_only_a_file_names_is_not_imported(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{code}.parts:Steady"
    with pytest.raises(PluginError, match=f"{ALLOWED}={code} "):
        HEADS.load(path)
    assert f"{code}.parts" not in sys.modules
    for other in (code[:-1], f"{code}.part", f"{code}.parts:Stead", "parts"):
        monkeypatch.setenv(ALLOWED, other)
        assert not is_allowed(path)
    for enough in (code, f"{code}.parts", path, f"x, {path} ,y"):
        monkeypatch.setenv(ALLOWED, enough)
        assert is_allowed(path)
    assert HEADS.load(path).__name__ == "Steady"


def test_allowing_is_for_this_class_and_for_processes_that_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED, raising=False)
    allow("a.b:C")
    allow("a.b:C")
    allow("d:E")
    assert os.environ[ALLOWED] == "a.b:C,d:E"
    assert not is_allowed("a.b:D")


@pytest.mark.parametrize(
    "path", ["os:system", "json:JSONDecoder", "detpipe.heads.region_head:RegionHeadConfig", "x:y.z"]
)
def test_a_file_cannot_name_what_is_no_settings_of_a_head(path: str) -> None:
    """Also what is imported already."""
    assert json.JSONDecoder
    if path.startswith("detpipe"):
        assert HEADS.word_of(HEADS.load(path)) is None
    else:
        with pytest.raises((PluginError, ValueError)):
            head_class(path)


def test_objects_and_classes_are_words_of_a_training(code: str) -> None:
    steady = HEADS.load("steady")
    assert list(_words("", {"head": steady(calm="2", ridge=7.0)})) == [
        "head=steady@my-parts",
        "head.ridge=7.0",
        "head.calm=2",
    ]
    assert list(_words("", {"head": steady, "proposals": Uniform(seed=2)})) == [
        "head=steady@my-parts",
        "proposals=uniform",
        "proposals.seed=2",
    ]
    with pytest.raises(TypeError, match=r"head: expected a class .* got int"):
        list(_words("", {"head": int}))


def test_a_data_set_of_a_class_an_object_or_a_word(code: str, tmp_path: Path) -> None:
    drawn.write_voc(tmp_path / "voc")
    wanted = api.load_dataset("voc", "train", root=tmp_path / "voc")
    old = FORMATS.load("old_voc")
    for found in (
        api.load_dataset("old_voc", "train", root=tmp_path / "voc"),
        api.load_dataset("old_voc@my-parts", "train", root=tmp_path / "voc"),
        api.load_dataset(f"{code}.parts:OldVoc", "train", root=tmp_path / "voc"),
        api.load_dataset(old, "train", root=tmp_path / "voc"),
        api.load_dataset(old(root=str(tmp_path / "voc")), "train"),
    ):
        assert (found.records, found.classes) == (wanted.records, wanted.classes)
    with pytest.raises(TypeError, match="rot: expected a setting"):
        api.load_dataset(old, "train", rot="x")


def test_metrics_of_packages_are_computed_where_they_are_named(code: str, tmp_path: Path) -> None:
    drawn.write_voc(tmp_path / "voc")
    dataset = api.load_dataset("voc", root=tmp_path / "voc")
    found = api.Detections(
        boxes=np.array([[0, 0, 9, 9]], np.float32), scores=np.array([0.5], np.float32), labels=np.array([1])
    )
    measured = evaluate(dataset, {dataset.records[0].image_id: found}, metrics=["images"])
    assert measured.others["images"] == {"all": len(dataset)}
    assert list(load_metrics()) == ["best_f1"]
    assert list(load_metrics(["images", len])) == ["best_f1", "images", "len"]
    assert list(load_metrics([f"{code}.parts:images"])) == ["best_f1", "images"]
    for wrong in ("imagess", "images_of@no-package"):
        with pytest.raises((ValueError, PluginError), match=wrong.partition("@")[0]):
            load_metrics([wrong])
    with pytest.raises(ValueError, match="metrics: expected functions with other names"):
        load_metrics(["images", f"{code}.parts:images"])


def test_the_start_of_the_command_line_looks_at_no_package() -> None:
    program = (
        "import sys; sys.argv[1:] = ['--help']; from detpipe.cli import main\n"
        "try: main()\n"
        "finally: print(*{'importlib.metadata', 'detpipe.plugins'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@dataclass(kw_only=True)
class Mine(SvmConfig):
    """A head of this module."""


def test_a_class_of_a_module_that_is_imported_needs_no_word() -> None:
    assert head_word(Mine()) == f"{__name__}:Mine"
    assert head_class(head_word(Mine())) is Mine

    @dataclass(kw_only=True)
    class Local(SvmConfig):
        pass

    with pytest.raises(ValueError, match="HEADS"):
        head_word(Local())
