"""Data sets of every format in object storage: the same as from a local folder, with few requests; faults."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import detpipe.datasets
from detpipe import load_dataset
from detpipe.datasets.auto import find_reading, recognised_source
from detpipe.datasets.check import check_source
from detpipe.datasets.corrected_copy import CopiedImages, write_corrected_copy
from detpipe.datasets.entry import RawObject
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.yolo import YoloSource
from detpipe.runs.run_folder import dataset_digest
from detpipe.storage.input_file import open_input
from detpipe.storage.object_storage import is_remote
from detpipe.storage.stored_file import list_once
from tests.command_line import detpipe as command
from tests.datasets import other_formats
from tests.datasets.conftest import VocFolder
from tests.datasets.other_formats import Row, image
from tests.storage.object_storage import forget, s3_server, storage_in_memory

URL = "memory://bucket/set"
NAMES = tuple(f"image_{number}" for number in range(6))
CAT = RawObject("cat", (15.0, 5.0, 25.0, 15.0))


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with storage_in_memory(tmp_path / "cache", monkeypatch) as files:
        yield files


@pytest.fixture
def requests(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of requests by the name of fsspec's method."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        method = getattr(type(memory), name)

        def counted(self: Any, *arguments: Any, **more: Any) -> Any:
            counts[name] += 1
            return method(self, *arguments, **more)

        monkeypatch.setattr(type(memory), name, counted)

    for name in ("cat_file", "find", "info", "ls"):
        count(name)
    return counts


def voc(folder: Path) -> None:
    """VOC's layout, with a list of test images."""
    made = VocFolder(folder)
    for name in NAMES:
        made.pair(name)
    made.list("test", "image_4\nimage_5\n")


def voc_beside(folder: Path) -> None:
    """XML files beside the images, in folders of splits."""
    made = VocFolder(folder.with_name("made"))
    for name, place in zip(NAMES, ("train", "train", "train", "valid", "valid", "test"), strict=True):
        made.pair(name)
        (folder / place).mkdir(parents=True, exist_ok=True)
        shutil.move(made.images / f"{name}.jpg", folder / place)
        shutil.move(made.annotations / f"{name}.xml", folder / place)


def yolo(folder: Path) -> None:
    """Ultralytics' layout, and an image without a label file."""
    for name, split in zip(NAMES, ("train", "train", "train", "val", "val", "test"), strict=True):
        image(folder / "images" / split / f"{name}.jpg", int(name[-1]))
        if name != NAMES[2]:
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            (folder / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\ntest: ../images/test\nnames: [cat]\n")


def other(write: Callable[[Path, Sequence[Row]], None]) -> Callable[[Path], None]:
    """A format whose files are beside the images."""

    def make(folder: Path) -> None:
        write(folder, [(image(folder / f"{name}.jpg", int(name[-1])), (20, 40), [CAT]) for name in NAMES])

    return make


def coco(folder: Path) -> None:
    images, objects = [], []
    for number, name in enumerate(NAMES):
        image(folder / "train2017" / f"{name}.jpg", number)
        images.append({"id": number, "file_name": f"{name}.jpg", "height": 20, "width": 40})
        objects.append({"id": number, "image_id": number, "category_id": 1, "bbox": [1, 2, 3, 4]})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


def image_labels(folder: Path) -> None:
    """Images with a class each, and MegaDetector's boxes."""
    box = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.1, 0.5, 0.5]}
    found = [{"file": image(folder / f"{name}.jpg", int(name[-1])).name, "detections": [box]} for name in NAMES]
    content = {"detection_categories": {"1": "animal"}, "images": found}
    (folder / "md.json").write_text(json.dumps(content))
    (folder / "labels.csv").write_text("file,class\n" + "".join(f"{name}.jpg,cat\n" for name in NAMES))


MAKERS = {
    "voc": voc,
    "voc, beside": voc_beside,
    "yolo": yolo,
    "yolo, flat": other(other_formats.write_yolo),
    "csv": other(other_formats.write_csv),
    "openimages": other(other_formats.write_open_images),
    "labelstudio": other(other_formats.write_label_studio),
    "cvat": other(other_formats.write_cvat),
    "labelme": other(other_formats.write_labelme),
    "coco": coco,
    "image_labels": image_labels,
}


def made(name: str, tmp_path: Path, files: Any) -> Path:
    """The local folder of a format, whose files are in the storage as well."""
    folder = tmp_path / "set"
    MAKERS[name](folder)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"/bucket/set/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return folder


def told(source: DatasetSource, root: str) -> dict[str, Any]:
    """All that a source tells, with paths relative to the root."""

    def below(path: Path | None) -> str | None:
        return None if path is None else str(path).removeprefix(f"{root}/")

    splits = [split for split in Split if source.has(split)]
    stored = source.automatic_split()
    return {
        "entries": {
            split.value: [
                (entry.image_id, below(entry.image), below(entry.origin), entry.objects, entry.stated_size)
                for entry in source.entries(split)
            ]
            for split in splits
        },
        "digests": {split.value: dataset_digest(source.load(split)) for split in splits},
        "classes": source.class_names(),
        "split": None if stored is None else (stored.train, stored.test),
        "check": Counter(one.kind for one in check_source(source, workers=0).findings),
    }


@pytest.mark.parametrize("name", MAKERS)
def test_a_format_is_found_and_read_as_from_a_local_folder(memory: Any, tmp_path: Path, name: str) -> None:
    folder = made(name, tmp_path, memory)
    local, remote = recognised_source(folder), recognised_source(URL)
    assert type(remote) is type(local)
    reading = find_reading(Path(URL))
    assert reading.why == find_reading(folder).why
    assert all(str(value).startswith(URL) for value in reading.settings.values())
    assert told(remote, "memory:/bucket/set") == told(local, str(folder))
    assert len(load_dataset(URL, "train")) == len(load_dataset(folder, "train"))
    entries = [entry for split in Split if remote.has(split) for entry in remote.entries(split)]
    assert all(is_remote(entry.origin) and (entry.image is None or is_remote(entry.image)) for entry in entries)
    assert sum(len(entry.objects) for entry in entries) >= 5


@pytest.mark.parametrize(("name", "files"), [("voc", 13), ("yolo", 12), ("labelme", 12)])
def test_each_file_is_one_request_and_the_next_command_needs_none(
    memory: Any, requests: Counter[str], tmp_path: Path, name: str, files: int
) -> None:
    made(name, tmp_path, memory)
    for wanted in (files, 0):
        requests.clear()
        forget()
        source = recognised_source(URL)
        for split in Split:
            if source.has(split):
                source.load(split)
        assert requests["cat_file"] == wanted
        assert requests["find"] <= 4
        assert requests["ls"] + requests["info"] <= 16


def test_small_files_are_fetched_together(memory: Any, requests: Counter[str], tmp_path: Path) -> None:
    made("voc", tmp_path, memory)
    list_once(Path(URL))
    for name, wanted in (("JPEGImages/image_0.jpg", 1), ("Annotations/image_0.xml", 6), ("Annotations/image_1.xml", 0)):
        requests.clear()
        open_input(Path(URL) / name, "a file").close()
        assert requests == ({"cat_file": wanted} if wanted else {})


def test_a_changed_file_is_read_again(memory: Any, tmp_path: Path) -> None:
    folder = made("voc", tmp_path, memory)
    before = VocSource(root=URL).load(Split.train)
    data = (folder / "Annotations" / f"{NAMES[0]}.xml").read_bytes()
    memory.pipe_file(f"/bucket/set/Annotations/{NAMES[0]}.xml", data.replace(b">cat<", b">dog<"))
    forget()
    after = VocSource(root=URL).load(Split.train)
    assert (before.classes, after.classes) == (("cat",), ("cat", "dog"))


@pytest.mark.parametrize("name", ["voc", "yolo", "labelme", "csv", "coco"])
@pytest.mark.parametrize("calls", [0, 5])
@pytest.mark.parametrize("error", [ConnectionResetError("gone"), PermissionError("Access Denied")])
def test_a_storage_that_stops_answering_is_one_sentence_and_leaves_nothing(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int, error: Exception
) -> None:
    """No image or annotation counts as damaged, although max_bad would allow it."""
    made(name, tmp_path, memory)
    read, count = type(memory).cat_file, iter(range(1000))

    def fails(self: Any, *arguments: Any, **more: Any) -> Any:
        if next(count) >= calls:
            raise error
        return read(self, *arguments, **more)

    monkeypatch.setattr(type(memory), "cat_file", fails)
    outcome = command("check", f"dataset.root={URL}", "dataset.max_bad=1", f"run_dir={tmp_path / 'run'}", "workers=0")
    assert outcome.status == 1
    (line,) = [one for one in outcome.err.splitlines() if one.startswith("detpipe check: ")]
    assert "memory://bucket/set/" in line
    assert str(error) in line
    assert not (tmp_path / "run" / "check.json").exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("name", ["voc", "yolo", "labelme", "csv"])
def test_what_is_not_there_is_named(memory: Any, name: str) -> None:
    memory.pipe_file("/bucket/other/a.txt", b"words")
    outcome = command("check", f"dataset={name}", "dataset.root=memory://bucket/none", "workers=0")
    assert outcome.status == 1
    assert re.search("memory:/+bucket/none: expected", outcome.err)
    outcome = command("check", f"dataset={name}", "dataset.root=memory://bucket/other", "workers=0")
    assert outcome.status == 1
    assert re.search("memory:/+bucket/other: expected", outcome.err)
    outcome = command("check", f"dataset={name}", "dataset.root=nosuch://bucket/set", "workers=0")
    assert outcome.status == 1
    assert "nosuch://bucket/set" in outcome.err
    assert "detpipe[remote]" in outcome.err
    outcome = command("check", "dataset.root=memory://bucket/other", "workers=0")
    assert outcome.status == 1
    assert "got a folder with a.txt" in outcome.err


@pytest.mark.parametrize("name", ["voc", "yolo", "csv", "coco"])
def test_a_copy_of_a_remote_data_set_has_the_same_files(memory: Any, tmp_path: Path, name: str) -> None:
    folder = made(name, tmp_path, memory)
    for source, out in ((recognised_source(folder), "local"), (recognised_source(URL), "remote")):
        write_corrected_copy(source, tmp_path / out, {}, CopiedImages.copy)
    local, remote = (
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "local", tmp_path / "remote")
    )
    assert remote == local
    assert sum(path.suffix == ".jpg" for path in remote) == 6


def test_no_file_of_a_data_set_names_an_address(
    requests: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative root makes paths that begin with the text of the file."""
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    for more in ("path: memory://evil\n", "val: memory://evil/images\n"):
        (tmp_path / "data.yaml").write_text(more + text)
        assert len(YoloSource(root="data.yaml").load(Split.train)) == 3
    (tmp_path / "set").mkdir()
    coco(tmp_path / "set")
    file = tmp_path / "set" / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text().replace(f'"{NAMES[0]}', f'"memory://evil/{NAMES[0]}'))
    monkeypatch.chdir(tmp_path / "set")
    assert len(recognised_source(".", test_share=0.0).load(Split.train)) == 6
    assert not requests


def test_an_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "cache", monkeypatch) as files:
        files.mkdir("bucket")
        folder = made("yolo", tmp_path, files)
        files.pipe_file("bucket/set/labels/", b"")  # a folder, as the console of S3 makes it
        outcome = command("check", "dataset.root=s3://bucket/set", f"run_dir={tmp_path / 'run'}", "workers=0")
        assert outcome.status == 0, outcome.err
        assert told(recognised_source("s3://bucket/set"), "s3:/bucket/set") == told(
            recognised_source(folder), str(folder)
        )
        outcome = command("check", "dataset=voc", "dataset.root=s3://nobody/set", "workers=0")
        assert outcome.status == 1
        assert "s3:/nobody/set: expected" in outcome.err


def test_an_empty_prefix(memory: Any) -> None:
    with pytest.raises(FileNotFoundError, match="memory:/bucket/set"):
        recognised_source(URL)


READERS = Path(detpipe.datasets.__file__).parent
LOCAL = {
    "corrected_copy.py": {"glob", "is_dir", "is_file", "rglob", "stat"},  # of the copy; `_copy_file` asks `is_remote`
    "demo.py": {"exists", "is_dir", "iterdir"},  # generates its files
    "folder_scan.py": {"is_dir", "scandir", "stat"},  # `scan` asks `is_remote`
    "image_finder.py": {"stat"},  # `_is_file` asks `is_remote`
}


def test_readers_ask_for_files_in_one_place() -> None:
    """storage/stored_file.py knows folders of both kinds; Path and os know only those of this machine."""
    questions = {"exists", "glob", "is_dir", "is_file", "iterdir", "listdir", "rglob", "scandir", "stat", "walk"}
    for path in sorted(READERS.glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        found = {func.attr for func in calls if isinstance(func, ast.Attribute)} & questions
        assert found == LOCAL.get(path.name, set()), path.name
