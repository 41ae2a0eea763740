"""Files in object storage: blocks, the bounded cache, tars and data sets there; on an S3 server of this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.auto import recognised_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.csv_boxes import CsvSource
from detpipe.datasets.image_file import read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.parquet import ParquetSource
from detpipe.datasets.source import Split
from detpipe.datasets.tar import TarSource
from detpipe.runs.command import Command
from detpipe.runs.kept_dataset import keep_dataset, kept_dataset
from detpipe.runs.run_folder import RunFolder
from detpipe.storage import remote_file, remote_listing
from detpipe.storage.input_file import InputFileError, open_input, read_input
from detpipe.storage.object_storage import address, is_remote
from detpipe.storage.remote_file import cache_limit, local_copy, shrink
from detpipe.storage.remote_listing import remote_exists, remote_files
from detpipe.storage.stored_file import container_index, container_of, is_folder, read_stored, stored_size
from tests.datasets.other_formats import image
from tests.storage.object_storage import s3_server, storage_in_memory
from tests.storage.test_tar_file import tar_of


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Storage in memory, with blocks of 1000 bytes."""
    monkeypatch.setattr(remote_file, "BLOCK", 1000)
    with storage_in_memory(tmp_path / "cache", monkeypatch) as files:
        yield files


@pytest.mark.parametrize("text", ["s3://bucket/a.tar", "s3:/bucket/a.tar", "gs://b", "memory://x/y"])
def test_addresses(text: str) -> None:
    assert is_remote(text)
    assert is_remote(Path(text))
    assert address(Path(text)).count("://") == 1


@pytest.mark.parametrize("text", ["/a/s3:/b", "a/b", "C:/photos", "s3:", "s3://", "a:b", "./s3x"])
def test_paths_of_this_machine(text: str) -> None:
    assert not is_remote(text)


def test_a_file_is_read_in_blocks_and_kept(memory: object, tmp_path: Path) -> None:
    data = bytes(range(250)) * 12
    memory.pipe_file("/b/file", data)  # type: ignore[attr-defined]
    with open_input(Path("memory://b/file"), "a file") as file:
        assert file.seek(1990) == 1990
        assert file.read(20) == data[1990:2010]
        assert file.seek(-3, os.SEEK_END) == 2997
        assert file.read() == data[-3:]
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(path.stat().st_size for path in kept) == [1000, 1000, 1000]
    assert read_input(Path("memory://b/file"), "a file") == data
    with pytest.raises(InputFileError, match="0 MB"):
        read_input(Path("memory://b/file"), "a file", 100)
    # A damaged block of the cache is fetched again.
    remote_file._block.cache_clear()
    for path in kept:
        path.write_bytes(b"x")
    assert read_input(Path("memory://b/file"), "a file") == data


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        path = tmp_path / "aa" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    shrink(tmp_path, 250)
    assert sorted(path.name for path in (tmp_path / "aa").iterdir()) == ["3", "4"]
    shrink(tmp_path, -1)
    assert not list((tmp_path / "aa").iterdir())
    monkeypatch.setenv(remote_file.GIGABYTES, "0.5")
    assert cache_limit() == 500_000_000
    monkeypatch.setenv(remote_file.GIGABYTES, "much")
    with pytest.raises(ValueError, match=remote_file.GIGABYTES):
        cache_limit()


def test_a_tar_in_storage(memory: object) -> None:
    memory.pipe_file("/b/t/0.tar", tar_of({"a.jpg": b"x" * 3000, "b.jpg": b"y"}))  # type: ignore[attr-defined]
    root = Path("memory://b/t")
    assert is_folder(root)
    assert remote_files(root) == [root / "0.tar"]
    assert container_of(root / "0.tar" / "a.jpg") == (root / "0.tar", "a.jpg")
    assert read_stored(root / "0.tar" / "a.jpg", "an image", 5000) == b"x" * 3000
    assert stored_size(root / "0.tar" / "b.jpg") == 1
    with pytest.raises(FileNotFoundError):
        read_stored(root / "0.tar" / "c.jpg", "an image", 10)


def test_a_whole_copy_is_kept_and_made_again_when_the_file_changes(
    memory: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = Path("memory://b/file"), bytes(range(250)) * 10
    memory.pipe_file("/b/file", data)  # type: ignore[attr-defined]
    copy = local_copy(path)
    assert copy.is_relative_to(tmp_path / "cache")
    assert copy.read_bytes() == data
    before = copy.stat().st_ino
    assert local_copy(path) == copy
    assert copy.stat().st_ino == before
    copy.write_bytes(b"cut")
    assert local_copy(path).read_bytes() == data
    memory.pipe_file("/b/file", b"other")  # type: ignore[attr-defined]
    remote_listing._info.cache_clear()
    assert local_copy(path).read_bytes() == b"other"
    memory.pipe_file("/b/empty", b"")  # type: ignore[attr-defined]
    assert local_copy(Path("memory://b/empty")).read_bytes() == b""
    with pytest.raises(FileNotFoundError, match="memory://b/none"):
        local_copy(Path("memory://b/none"))
    monkeypatch.setenv(remote_file.GIGABYTES, "0.000001")
    memory.pipe_file("/b/large", data)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=remote_file.GIGABYTES):
        local_copy(Path("memory://b/large"))


def test_a_parquet_file_in_storage(memory: object, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    jpeg = image(tmp_path / "one.jpg").read_bytes()
    boxes, labels = [[[1.0, 2.0, 3.0, 4.0]], []], [["cat"], []]
    table = pyarrow.table({"id": ["a", "b"], "bytes": [jpeg] * 2, "boxes": boxes, "labels": labels})
    parquet.write_table(table, tmp_path / "p.parquet", row_group_size=1)
    memory.pipe_file("/b/p/train-0.parquet", (tmp_path / "p.parquet").read_bytes())  # type: ignore[attr-defined]
    root = Path("memory://b/p")
    data = ParquetSource(root=str(root), test_share=0.0).load(Split.train)
    assert [one.path for one in data.records] == [root / "train-0.parquet" / name for name in "ab"]
    assert data.ground_truth is not None
    assert data.ground_truth["a"].boxes.tolist() == [[1, 2, 3, 4]]
    np.testing.assert_array_equal(read_image(data.records[1].path), read_image(tmp_path / "one.jpg"))
    (one, two) = DetectedImages(root=str(root)).load(Split.test).records
    assert (one.image_id, two.image_id) == ("a", "b")
    memory.pipe_file("/b/bad.parquet", b"PAR1 other PAR1")  # type: ignore[attr-defined]
    with pytest.raises(InputFileError, match=r"^memory:/b/bad\.parquet: expected a Parquet file"):
        container_index(Path("memory://b/bad.parquet"))


COCO = {
    "images": [{"id": 7, "file_name": "one.jpg", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "cat"}],
}


def test_annotation_files_in_storage(memory: object, tmp_path: Path) -> None:
    jpeg = image(tmp_path / "one.jpg").read_bytes()
    rows = b"filename,xmin,ymin,xmax,ymax,class\none.jpg,1,2,4,6,cat\n"
    files = {"i/one.jpg": jpeg, "coco.json": json.dumps(COCO).encode(), "c/one.jpg": jpeg, "c/train/boxes.csv": rows}
    files |= {"c/boxes.md": rows, "c/deep/train/other.csv": b"x", "t/0.tar": tar_of({"one.jpg": jpeg})}
    for name, data in files.items():
        memory.pipe_file(f"/b/{name}", data)  # type: ignore[attr-defined]
    of_coco = {"train_json": "memory://b/coco.json", "test_share": 0.0}
    for source in (
        CocoSource(train_images="memory://b/i", **of_coco),  # type: ignore[arg-type]
        CocoSource(train_images="memory://b/t", **of_coco),  # type: ignore[arg-type]
        CsvSource(root="memory://b/c", test_share=0.0),
        CsvSource(root="memory://b/c/train/boxes.csv", images_root=str(tmp_path), test_share=0.0),
    ):
        data = source.load(Split.train)
        (record,) = data.records
        assert record.path.name == "one.jpg"
        assert data.ground_truth is not None
        assert data.ground_truth[record.image_id].boxes.tolist() == [[1, 2, 4, 6]]
    assert isinstance(recognised_source("memory://b/c/train/boxes.csv"), CsvSource)
    with pytest.raises(FileNotFoundError, match=r"b/none\.csv"):
        CsvSource(root="memory://b/none.csv").load(Split.train)


def test_what_is_not_there_is_named(memory: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not remote_exists(Path("memory://b/none"))
    with pytest.raises(FileNotFoundError, match="memory://b/none"):
        open_input(Path("memory://b/none"), "a file")
    memory.pipe_file("/b/empty", b"")  # type: ignore[attr-defined]
    with pytest.raises(InputFileError, match="empty"):
        open_input(Path("memory://b/empty"), "a file")
    with pytest.raises(ImportError, match=r"detpipe\[remote\]"):
        open_input(Path("nosuch://b/file"), "a file")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"detpipe\[remote\]"):
        open_input(Path("memory://b/other"), "a file")


def test_an_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set in tars, kept in a run folder, and plain images."""
    with s3_server(tmp_path / "cache", monkeypatch) as files:
        files.mkdir("shards")
        jpeg = image(tmp_path / "one.jpg").read_bytes()
        labels = json.dumps({"annotations": [{"bbox": [1, 2, 3, 4], "category": "cat"}]}).encode()
        files.pipe_file("shards/t/train-0.tar", tar_of({"a.jpg": jpeg, "a.json": labels}))
        files.pipe_file("shards/t/val-0.tar", tar_of({"b.jpg": jpeg, "b.json": labels}))
        files.pipe_file("shards/photos/c.jpg", jpeg)
        assert isinstance(recognised_source("s3://shards/t"), TarSource)
        source = TarSource(root="s3://shards/t")
        (record,) = source.load(Split.train).records
        assert record.path == Path("s3://shards/t/train-0.tar/a.jpg")
        keep_dataset(RunFolder(tmp_path / "run"), source)
        kept = kept_dataset(RunFolder(tmp_path / "run"))
        assert kept is not None
        assert [one.image_id for one in kept.load(Split.test).records] == ["b"]
        (photo,) = DetectedImages(root="s3://shards/photos").load(Split.test).records
        assert photo.image_id == "c"
        with pytest.raises(FileNotFoundError, match="s3:/shards/none"):
            TarSource(root="s3://shards/none").load(Split.train)


def test_a_run_folder_is_on_this_machine() -> None:
    with pytest.raises(ValueError, match="run_dir"):
        Command(run_dir="s3://bucket/run")
