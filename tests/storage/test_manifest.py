"""Manifests: a stage that is done does nothing, one that was killed goes on, another key is refused by name."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from detpipe.storage.interrupt import Interrupted
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.manifest import (
    Artefact,
    ArtefactError,
    Manifest,
    State,
    differences,
    digest_of,
    find_manifest,
    manifest_path,
    package_version,
    plain,
    read_manifest,
    rekey,
)
from detpipe.structures import LeftOut


class Colour(enum.Enum):
    red = "r"


@dataclass
class Inner:
    sides: tuple[int, ...] = (1, 2)
    colour: Colour = Colour.red


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    path: Path = Path("a/b")
    none: int | None = None


def artefact(path: Path, *, inputs: dict[str, str] | None = None, **settings: Any) -> Artefact:
    return Artefact(path, stage="crop", settings={"size": 64, **settings}, inputs=inputs or {"proposals": "abc"})


@pytest.fixture(params=["crops.lmdb", "detections.json"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def make_content(path: Path) -> Path:
    """Something that a stage left: a file in a folder, or the file."""
    file = path if path.suffix == ".json" else path / "data.mdb"
    file.parent.mkdir(exist_ok=True)
    file.write_text("content")
    return file


def test_begin_finish_and_a_second_run(path: Path) -> None:
    stage = artefact(path)
    assert stage.begin(overwrite=False) is State.NEW
    make_content(path)
    with pytest.raises(ArtefactError, match="not finished; run `detpipe crop` again"):
        read_manifest(path)
    stage.finish(seconds=1.5, summary={"crops": 3}, bad=[LeftOut("a: b.jpg", "broken", "train/a: b")])
    manifest = read_manifest(path)
    assert (manifest.complete, manifest.seconds, manifest.summary, manifest.bad) == (
        True,
        1.5,
        {"crops": 3},
        [LeftOut("a: b.jpg", "broken", "train/a: b")],
    )
    assert manifest.detpipe == package_version()
    assert manifest.digest == stage.manifest.digest
    again = artefact(path)
    assert again.begin(overwrite=False) is State.COMPLETE
    assert again.manifest.summary == {"crops": 3}


def test_a_killed_run_goes_on_and_its_time_adds_up(path: Path) -> None:
    first = artefact(path)
    first.begin(overwrite=False)
    file = make_content(path)
    first.pause(2.0)
    second = artefact(path)
    assert second.begin(overwrite=False) is State.PARTIAL
    assert file.read_text() == "content"
    assert second.finish(seconds=1.0, summary={}).seconds == 3.0


def test_another_key_is_refused_by_name_and_loses_nothing(path: Path) -> None:
    artefact(path, nested={"k": 1}).begin(overwrite=False)
    file = make_content(path)
    for other, words in (
        (artefact(path, nested={"k": 2}), r"nested\.k: 1 -> 2\. Give overwrite=true"),
        (artefact(path, nested={"k": 1}, inputs={"proposals": "abd"}), "input proposals: abc -> abd"),
        (artefact(path), r"nested\.k: 1 -> none"),
        (artefact(path, nested={"k": 1, "new": None}), r"nested\.new: none -> None"),
        (artefact(path, nested={"k": 1}, empty={}), r"empty: none -> \{\}"),
    ):
        with pytest.raises(ArtefactError, match=words):
            other.begin(overwrite=False)
    assert file.read_text() == "content"


def test_where_weights_lie_is_no_part_of_the_key(path: Path) -> None:
    """Their digest is. A key stays as it was made: later artefacts know this one by it."""
    inputs = {"weights": "abc"}
    first = artefact(path, inputs=inputs, network={"weights": "/here/run/net"})
    first.begin(overwrite=False)
    make_content(path)
    moved = artefact(path, inputs=inputs, network={"weights": "elsewhere/run/net"})
    assert moved.begin(overwrite=False) is State.PARTIAL
    assert moved.manifest.digest == first.manifest.digest
    for other, words in (
        (artefact(path, inputs={"weights": "abd"}, network={"weights": "elsewhere/run/net"}), "input weights: abc"),
        (artefact(path, inputs=inputs, network={"weights": "imagenet"}), "network.weights: /here/run/net -> imagenet"),
        (artefact(path, inputs=inputs, network={"weights": None}), "network.weights: /here/run/net -> None"),
        (artefact(path, inputs=inputs, network={"weights": "", "side": 1}), "network.side: none -> 1"),
        (artefact(path, inputs=inputs, network={"folder": "/here/run/net"}), "network.folder"),
    ):
        with pytest.raises(ArtefactError, match=words):
            other.begin(overwrite=False)


def test_another_stage_is_refused_by_name(path: Path) -> None:
    artefact(path).begin(overwrite=False)
    make_content(path)
    other = Artefact(path, stage="propose", settings={"size": 64}, inputs={"proposals": "abc"})
    with pytest.raises(ArtefactError, match="stage: crop -> propose"):
        other.begin(overwrite=False)


def test_an_attempt_that_made_nothing_is_started_again_with_other_settings(tmp_path: Path) -> None:
    """Such as a backbone that could not be built."""
    path = tmp_path / "classifier"
    artefact(path, backbone="wrong").begin(overwrite=False)
    (path / "snapshots").mkdir()
    (path / "log.jsonl").write_text('{"iteration": 20}\n')
    assert artefact(path, backbone="right").begin(overwrite=False) is State.NEW
    assert artefact(path, backbone="right").begin(overwrite=False) is State.PARTIAL
    assert not (path / "log.jsonl").exists()
    (path / "snapshots").mkdir()
    (path / "snapshots" / "iter_20.pt").write_text("weights")
    with pytest.raises(ArtefactError, match="backbone: right -> other"):
        artefact(path, backbone="other").begin(overwrite=False)


def test_another_stage_is_refused_even_if_nothing_was_made(tmp_path: Path) -> None:
    artefact(tmp_path / "classifier").begin(overwrite=False)
    with pytest.raises(ArtefactError, match="stage"):
        Artefact(tmp_path / "classifier", stage="other", settings={}, inputs={}).begin(overwrite=False)


def test_a_database_without_records_is_nothing_and_one_record_is_something(tmp_path: Path) -> None:
    path = tmp_path / "crops.lmdb"
    artefact(path, side=1).begin(overwrite=False)
    LmdbWriter(path).close()
    assert artefact(path, side=2).begin(overwrite=False) is State.NEW
    writer = LmdbWriter(path)
    writer.put(b"key", b"value")
    writer.close()
    with pytest.raises(ArtefactError, match="side: 2 -> 3"):
        artefact(path, side=3).begin(overwrite=False)


def test_another_stage_is_refused_though_nothing_was_made(tmp_path: Path) -> None:
    artefact(tmp_path / "a").begin(overwrite=False)
    with pytest.raises(ArtefactError, match="stage: crop -> propose"):
        Artefact(tmp_path / "a", stage="propose", settings={}, inputs={}).begin(overwrite=False)


def test_what_has_changed_in_an_input_is_explained(path: Path) -> None:
    old, new = {"train": "a" * 32, "crops": "b" * 32}, {"train": "c" * 32, "crops": "d" * 32}
    artefact(path, inputs=old).begin(overwrite=False)
    make_content(path)

    def explain(name: str, earlier: str) -> str | None:
        return "annotations of 1 image changed: cat" if (name, earlier) == ("train", "a" * 32) else None

    other = Artefact(path, stage="crop", settings={"size": 64}, inputs=new, explain=explain)
    with pytest.raises(
        ArtefactError, match="made with other data: annotations of 1 image changed: cat; input crops ch"
    ):
        other.begin(overwrite=False)


def test_overwrite_removes_what_was_there(path: Path) -> None:
    artefact(path).begin(overwrite=False)
    file = make_content(path)
    assert artefact(path, other=1).begin(overwrite=True) is State.NEW
    assert not file.exists()
    assert sorted(path.parent.iterdir()) == [path if path.suffix == ".lmdb" else manifest_path(path)]


def test_what_has_no_manifest_is_not_ours_to_delete(path: Path) -> None:
    file = make_content(path)
    for overwrite in (False, True):
        with pytest.raises(ArtefactError, match="exists without a manifest, so detpipe didn't make it; move it away"):
            artefact(path).begin(overwrite=overwrite)
    assert file.read_text() == "content"


def test_of_a_link_the_link_is_replaced(tmp_path: Path) -> None:
    """What it leads to, on another disk, stays; one that leads nowhere is in nobody's way."""
    elsewhere = tmp_path / "elsewhere"
    one = Artefact(elsewhere, stage="s", settings={}, inputs={})
    one.begin(overwrite=False)
    for target in (elsewhere, tmp_path / "nowhere"):
        path = tmp_path / f"link_to_{target.name}"
        path.symlink_to(target)
        again = Artefact(path, stage="s", settings={"other": 1}, inputs={})
        assert again.begin(overwrite=True) is State.NEW
        assert path.is_dir()
        assert not path.is_symlink()
    assert (elsewhere / "manifest.json").is_file()


def test_a_kill_before_the_manifest_stood_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "crops.lmdb"
    path.mkdir()
    (path / ".manifest.json.x8f2.part").write_text("{")
    assert artefact(path).begin(overwrite=False) is State.NEW
    assert [child.name for child in path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("point", [0, 1, 2])
def test_a_kill_while_the_old_one_is_removed(path: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call is the last, the next run finds a whole artefact or none."""
    stage = artefact(path)
    stage.begin(overwrite=False)
    file = make_content(path)
    stage.finish(seconds=0, summary={})
    calls = 0

    def dies(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > point:
                raise KeyboardInterrupt
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, wrapped)

    dies(Path, "rename")
    dies(Path, "unlink")
    dies(shutil, "rmtree")
    with contextlib.suppress(KeyboardInterrupt):  # a file is gone after two calls, a folder after three
        artefact(path).begin(overwrite=True)
    monkeypatch.undo()
    state = artefact(path).begin(overwrite=False)
    assert (state is State.COMPLETE) == file.exists()
    assert artefact(path, other=1).begin(overwrite=True) is State.NEW
    assert not [child for child in path.parent.iterdir() if child.name.endswith(".deleted")]


def test_a_deleted_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    stage = artefact(path)
    stage.begin(overwrite=False)
    make_content(path)
    stage.finish(seconds=1, summary={})
    path.unlink()
    assert artefact(path).begin(overwrite=False) is State.NEW


def test_a_missing_artefact_is_named(path: Path) -> None:
    with pytest.raises(ArtefactError, match="run the stage"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"stage": "crop"}', '{"unknown": 1}', "\udcff"])
def test_an_unreadable_manifest_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "crops.lmdb"
    path.mkdir()
    (path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtefactError, match=r"manifest\.json: expected a manifest"):
        read_manifest(path)
    with pytest.raises(ArtefactError, match="overwrite=true"):
        artefact(path).begin(overwrite=False)
    assert artefact(path).begin(overwrite=True) is State.NEW


def test_plain_is_json() -> None:
    value = plain(Outer())
    assert value == {"inner": {"sides": [1, 2], "colour": "r"}, "path": "a/b", "none": None}
    assert json.loads(json.dumps(value)) == value
    assert plain({}) == {}
    assert plain({1: (Path("x"),)}) == {"1": ["x"]}


def test_digest_is_of_the_value() -> None:
    assert digest_of({"a": 1, "b": (1, 2)}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})
    assert len(digest_of([])) == 32
    # Known forever: an artefact of an older version must keep its key.
    assert digest_of({"b": [1, "é"], "a": None}) == "94215e9219b30a5005f2265135d109ac"


def test_a_dataclass_as_settings_survives_the_disk(path: Path) -> None:
    artefact(path, outer=Outer()).begin(overwrite=False)
    assert artefact(path, outer=Outer()).begin(overwrite=False) is State.PARTIAL


def test_differences_are_at_most_five_lines() -> None:
    old = Manifest(stage="crop", settings={f"k{n}": 0 for n in range(8)}, inputs={})
    new = Manifest(stage="crop", settings={f"k{n}": 1 for n in range(8)}, inputs={})
    assert differences(old, old) == []
    assert differences(old, new) == [*(f"k{n}: 0 -> 1" for n in range(5)), "and 3 more"]


def test_long_values_are_cut_in_messages() -> None:
    old = Manifest(stage="train-multibox", settings={"shapes": [0.5] * 100, "seed": 0}, inputs={})
    new = Manifest(stage="train-multibox", settings={"shapes": [1.5] * 100, "seed": 0}, inputs={})
    (line,) = differences(old, new)
    assert line.startswith("shapes: [0.5, 0.5,")
    assert "... -> [1.5, 1.5," in line
    assert len(line) < 250


def test_making_seals_an_artefact(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path / "a", stage="s", settings={"x": 1}, inputs={})
    with artefact.making(overwrite=False) as making:
        assert making.needed
        (tmp_path / "a").mkdir(exist_ok=True)
        time.sleep(0.01)
        making.summary, making.bad = {"n": 3}, [LeftOut("b.jpg", "broken")]
    found = read_manifest(tmp_path / "a")
    assert (found.complete, found.summary, found.bad) == (True, {"n": 3}, [LeftOut("b.jpg", "broken")])
    assert found.seconds > 0
    with Artefact(tmp_path / "a", stage="s", settings={"x": 1}, inputs={}).making(overwrite=False) as again:
        assert not again.needed
    assert read_manifest(tmp_path / "a") == found


def test_making_that_a_signal_stopped_counts_its_time_and_stays_partial(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def attempt(*, stopped: bool) -> None:
        artefact = Artefact(path, stage="s", settings={}, inputs={})
        with artefact.making(overwrite=False) as making, making.stoppable() as stop:
            (path / "part").write_text("1")
            time.sleep(0.01)
            if stopped:
                stop.signal = signal.SIGINT

    with pytest.raises(Interrupted, match=r"run the same command again"):
        attempt(stopped=True)
    before = find_manifest(path)
    assert before is not None
    assert (before.complete, before.seconds > 0, (path / "part").exists()) == (False, True, True)
    attempt(stopped=False)
    assert read_manifest(path).seconds > before.seconds


def test_making_that_failed_stays_partial(tmp_path: Path) -> None:
    artefact = Artefact(tmp_path / "a", stage="s", settings={}, inputs={})
    with pytest.raises(OSError, match="full"), artefact.making(overwrite=False):
        raise OSError("disk full")
    found = find_manifest(tmp_path / "a")
    assert found is not None
    assert (found.complete, found.seconds) == (False, 0)


WHOLE = {"stage": "crop", "settings": {"classes": ["a"]}, "inputs": {}, "complete": True, "seconds": 1.0, "bad": []}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"settings": None}, "settings"),
        ({"seconds": "x"}, "seconds"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {"proposals": 3}}, "inputs"),
        ({"complete": "yes"}, "complete"),
        ({"summary": [1]}, "summary"),
        ({"summary": {"crops": "many"}}, "summary: crops"),
        ({"bad": [{"path": 1, "reason": "x"}]}, "bad"),
        ({"bad": {}}, "bad"),
        ({"stage": 3}, "stage"),
        ({"settings": {"classes": "abc"}}, "settings: classes"),
        ({"settings": {"classes": [1, 2]}}, "settings: classes"),
        ({"settings": {"crops": None}}, "settings: crops"),
    ],
)
def test_a_wrong_value_in_a_manifest_is_named(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    path = tmp_path / "crops.lmdb"
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({**WHOLE, **change}))
    with pytest.raises(ArtefactError, match=rf"manifest\.json: expected a manifest.*{key}.*overwrite=true"):
        read_manifest(path)


def test_a_missing_setting_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "crops.lmdb"
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps({**WHOLE, "settings": {"crops": {"size": 3}}}))
    manifest = read_manifest(path)
    assert manifest.settings["crops"]["size"] == 3
    with pytest.raises(ArtefactError, match=r"manifest\.json: settings: expected a value of 'classes'.*overwrite=true"):
        manifest.settings["classes"]
    with pytest.raises(ArtefactError, match=r"settings: crops: expected a value of 'shape'"):
        manifest.settings["crops"]["shape"]
    with pytest.raises(ArtefactError, match=r"summary: expected a value of 'crops'"):
        manifest.summary["crops"]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_folder_with_another_thing_in_place_of_its_manifest_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "crops.lmdb"
    path.mkdir()
    (path / "diary.txt").write_text("mine")
    if kind == "folder":
        (path / "manifest.json").mkdir()
    else:
        os.mkfifo(path / "manifest.json")
    for overwrite in (False, True):
        with pytest.raises(ArtefactError, match=r"manifest"):
            artefact(path).begin(overwrite=overwrite)
    assert (path / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "data.mdb", "snapshots/log.jsonl"])
def test_an_unfinished_artefact_is_not_continued_through_a_link(tmp_path: Path, inside: str) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "run" / "crops.lmdb"
    artefact(tmp_path / "mine" if not inside else path).begin(overwrite=False)
    link = path / inside
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(ArtefactError, match=r"got a link to .*mine; give overwrite=true"):
        artefact(path).begin(overwrite=False)
    assert artefact(path).begin(overwrite=True) is State.NEW
    assert (tmp_path / "mine").is_dir()
    assert not path.is_symlink()


def test_inputs_are_not_replaced_through_a_link(tmp_path: Path) -> None:
    one = artefact(tmp_path / "mine")
    one.begin(overwrite=False)
    one.finish(seconds=0, summary={})
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(ArtefactError, match="got a link to"):
        rekey(tmp_path / "link", {"proposals": "new"}, {})
    assert read_manifest(tmp_path / "mine").inputs == {"proposals": "abc"}
