"""Images in Parquet files: both layouts, row groups, odd ids, hostile files, and without pyarrow."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.datasets.auto import recognised_source
from detpipe.datasets.check import check_source
from detpipe.datasets.entry import RawObject
from detpipe.datasets.image_file import file_digest, read_header, read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.parquet import ParquetSource
from detpipe.datasets.source import Split
from detpipe.storage import parquet_file
from detpipe.storage.input_file import InputFileError
from detpipe.storage.parquet_file import read_parquet_index
from detpipe.storage.stored_file import open_stored, stored_size
from tests.datasets.other_formats import image

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture
def jpeg(tmp_path: Path) -> bytes:
    return image(tmp_path / "one.jpg").read_bytes()


def write(path: Path, columns: dict[str, Any], group: int = 2, metadata: dict[bytes, bytes] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group)
    return path


def source_of(root: Path, **settings: Any) -> ParquetSource:
    return ParquetSource(root=str(root), **{"test_share": 0.0, "max_bad": 0.5, **settings})


def test_bytes_id_boxes_and_labels(tmp_path: Path, jpeg: bytes) -> None:
    columns = {
        "id": ["a.v1", "b/2", "c"],
        "bytes": [jpeg, jpeg + b"\0", jpeg],
        "boxes": [[[1.5, 2, 9.5, 12]], [], [[1, 2, 3, 4], [5, 6, 7, 8]]],
        "labels": [["cat"], [], ["dog", "cat"]],
    }
    source = source_of(write(tmp_path / "p.parquet", columns))
    data = source.load(Split.train)
    assert [one.image_id for one in data.records] == ["a.v1", "b/2", "c"]
    assert data.classes == ("cat", "dog")
    first, second, third = source.entries(Split.train)
    assert first.objects == (RawObject("cat", (1.5, 2, 9.5, 12)),)
    assert second.objects == ()
    assert [one.name for one in third.objects] == ["dog", "cat"]
    path = data.records[0].path
    assert path == tmp_path / "p.parquet" / "a.v1"
    np.testing.assert_array_equal(read_image(path), read_image(tmp_path / "one.jpg"))
    assert read_header(path) == read_header(tmp_path / "one.jpg")
    assert file_digest(path) == file_digest(tmp_path / "one.jpg")
    assert stored_size(data.records[1].path) == len(jpeg) + 1
    with pytest.raises(FileNotFoundError):
        open_stored(tmp_path / "p.parquet" / "none", "an image")


@pytest.mark.parametrize("key", ["category", "categories"])
@pytest.mark.parametrize("as_list", [False, True])
def test_the_layout_of_hugging_face(tmp_path: Path, jpeg: bytes, as_list: bool, key: str) -> None:
    pairs = [([1.0, 2, 8, 10], 1), ([0.0, 0, 4, 4], 0)]
    objects = (
        [{"bbox": box, key: one} for box, one in pairs]
        if as_list
        else {"bbox": [box for box, _ in pairs], key: [one for _, one in pairs]}
    )
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    feature = [{key: label}] if as_list else {"feature": {key: label}}
    metadata = {b"huggingface": json.dumps({"info": {"features": {"objects": feature}}}).encode()}
    columns = {"image_id": [7], "image": [{"bytes": jpeg, "path": "x.jpg"}], "objects": [objects]}
    write(tmp_path / "p" / "train-00000-of-00001.parquet", columns, metadata=metadata)
    source = source_of(tmp_path / "p")
    assert [one.image_id for one in source.load(Split.train).records] == ["7"]
    (entry,) = source.entries(Split.train)
    assert entry.objects == (
        RawObject("dog", (1, 2, 9, 12), written=(1, 2, 8, 10)),
        RawObject("cat", (0, 0, 4, 4), written=(0, 0, 4, 4)),
    )


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/home/me/a b.jpg", "/home/me/sub/a b.jpg"], ["a b.jpg", "sub/a b.jpg"]),
        (["a b.jpg", "a b.jpg"], ["a b.jpg", "a b.jpg#2"]),
        (["a", "a#2", "a", "a#2"], ["a", "a#2", "a#3", "a#2#2"]),
    ],
)
def test_paths_of_images_as_hugging_face_writes_them(
    tmp_path: Path, jpeg: bytes, paths: list[str], names: list[str]
) -> None:
    write(tmp_path / "p.parquet", {"image": [{"bytes": jpeg, "path": one} for one in paths]})
    assert [one.image_id for one in source_of(tmp_path / "p.parquet").load(Split.test).records] == names


def test_images_alone(tmp_path: Path, jpeg: bytes) -> None:
    write(tmp_path / "p" / "0.parquet", {"image": [{"bytes": jpeg, "path": "x.jpg"}, {"bytes": None, "path": None}]})
    write(tmp_path / "p" / "1.parquet", {"bytes": [jpeg]})
    data = source_of(tmp_path / "p").load(Split.test)
    assert data.ground_truth is None
    assert [one.image_id for one in data.records] == ["x.jpg", "0"]
    assert [one.path for one in data.bad] == [str(tmp_path / "p" / "0.parquet" / "1")]
    assert isinstance(recognised_source(tmp_path / "p"), ParquetSource)
    images = DetectedImages(root=str(tmp_path / "p"), max_bad=1.0).load(Split.test)
    assert [one.image_id for one in images.records] == ["x.jpg", "0"]


def test_check_reads_in_other_processes(tmp_path: Path, jpeg: bytes) -> None:
    columns = {"id": ["a", "b", "c"], "bytes": [jpeg, jpeg, jpeg[:300]], "boxes": [[[1.0, 2, 3, 4]]] * 3}
    path = write(tmp_path / "p.parquet", {**columns, "labels": [["cat"]] * 3}, group=1)
    for workers in (0, 2):
        report = check_source(source_of(path), workers=workers)
        assert report.counts["truncated_image"] == 1
        assert report.counts["duplicate_image"] == 1


def test_odd_ids_are_named(tmp_path: Path, jpeg: bytes) -> None:
    path = write(tmp_path / "p.parquet", {"id": ["a", "../b", "/etc/b", "a", None], "bytes": [jpeg] * 5})
    data = source_of(path, max_bad=1.0).load(Split.test)
    assert [one.image_id for one in data.records] == ["a"]
    assert len(data.bad) == 4


@pytest.mark.parametrize("boxes", [[[float("nan"), 0, 1, 1]], [[1e30, 0, 1, 1]]])
def test_boxes_that_are_no_pixels(tmp_path: Path, jpeg: bytes, boxes: Any) -> None:
    columns = {"id": ["a", "b"], "bytes": [jpeg] * 2, "boxes": [boxes, [[1.0, 2, 3, 4]]], "labels": [["cat"], ["cat"]]}
    data = source_of(write(tmp_path / "p.parquet", columns)).load(Split.train)
    assert [one.image_id for one in data.records] == ["b"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": ["a"], "x": [1]}, "bytes"),
        ({"bytes": [1]}, "bytes"),
        ({"bytes": [b"x"], "boxes": [[[1.0, 2]]], "labels": [["cat"]]}, "row 0"),
        ({"bytes": [b"x"], "boxes": [[[1.0, 2, 3, 4]]], "labels": [[]]}, "row 0"),
    ],
)
def test_other_columns_are_named(tmp_path: Path, columns: Any, words: str) -> None:
    with pytest.raises(InputFileError, match=words) as caught:
        read_parquet_index(write(tmp_path / "p.parquet", columns))
    assert str(caught.value).startswith(str(tmp_path / "p.parquet"))


def test_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", {"id": pyarrow.array([], "string"), "bytes": pyarrow.array([], "binary")})
    index = read_parquet_index(path)
    assert (dict(index.members), index.faults, index.objects) == ({}, (), None)
    with pytest.raises(ValueError, match=r"dataset\.root"):
        source_of(path).entries(Split.test)


def test_damaged_files_are_one_sentence(tmp_path: Path, jpeg: bytes) -> None:
    path = write(tmp_path / "p.parquet", {"id": [str(n) for n in range(20)], "bytes": [jpeg] * 20})
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(data)
        start = len(data) - 800
        for place in generator.integers(start, len(data), 3):
            changed[place] = generator.integers(0, 256)
        path.write_bytes(changed)
        try:
            read_parquet_index(path)
        except InputFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
    path.write_bytes(data[:-100])
    with pytest.raises(InputFileError, match=r"p\.parquet"):
        read_parquet_index(path)


def test_a_huge_row_group_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", {"bytes": [bytes(1 << 20)] * 30}, group=30)
    monkeypatch.setattr(parquet_file, "LARGEST_GROUP", 1 << 10)
    with pytest.raises(InputFileError, match="row groups"):
        parquet_file.read_group(path, 0)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"detpipe\[parquet\]"):
        source_of(tmp_path / "p.parquet").entries(Split.test)
