"""Images in tars: webdataset's samples, annotation files beside the tars, and hostile ones."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.datasets import image_file
from detpipe.datasets.auto import recognised_source
from detpipe.datasets.check import check_source
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.csv_boxes import CsvSource
from detpipe.datasets.entry import RawObject
from detpipe.datasets.image_file import BrokenImageError, file_digest, read_header, read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Split, TooManyBadError
from detpipe.datasets.tar import TarSource
from detpipe.runs.run_folder import images_digest
from detpipe.structures import ReadOptions
from tests.datasets.other_formats import image
from tests.storage.test_tar_file import tar_of

CAT = {"bbox": [1.5, 2, 8, 10], "category": "cat"}
XML = (
    "<annotation><size><width>40</width><height>20</height></size><object><name>dog</name><bndbox><xmin>1</xmin>"
    "<ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def jpeg(tmp_path: Path) -> bytes:
    return image(tmp_path / "one.jpg").read_bytes()


def write(path: Path, files: dict[str, Any]) -> Path:
    """A tar; what is no bytes is written as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of({k: v if isinstance(v, bytes) else json.dumps(v).encode() for k, v in files.items()}))
    return path


def source_of(root: Path, **settings: Any) -> TarSource:
    return TarSource(root=str(root), **{"test_share": 0.0, "max_bad": 0.5, **settings})


def test_samples_with_json_and_xml(tmp_path: Path, jpeg: bytes) -> None:
    content = {"image": {"height": 20, "width": 40}, "annotations": [CAT]}
    write(tmp_path / "t" / "000.tar", {"b.jpg": jpeg, "b.json": content, "b.txt": b"a caption"})
    write(tmp_path / "t" / "001.tar", {"./c.x.jpg": jpeg, "./c.x.xml": XML.encode()})
    source = source_of(tmp_path / "t")
    first, second = source.entries(Split.train)
    assert first.objects == (RawObject("cat", (1.5, 2, 9.5, 12), written=(1.5, 2, 8, 10)),)
    assert first.stated_size == second.stated_size == (20, 40)
    assert second.objects == (RawObject("dog", (0, 1, 5, 6)),)
    data = source.load(Split.train)
    assert data.classes == ("cat", "dog")
    assert [(one.image_id, one.path) for one in data.records] == [
        ("b", tmp_path / "t" / "000.tar" / "b.jpg"),
        ("c.x", tmp_path / "t" / "001.tar" / "c.x.jpg"),
    ]
    for record in data.records:
        np.testing.assert_array_equal(read_image(record.path), read_image(tmp_path / "one.jpg"))
        assert file_digest(record.path) == file_digest(tmp_path / "one.jpg")
        assert read_header(record.path) == read_header(tmp_path / "one.jpg")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 7}]}, "7"),
        ({"annotations": [{"bbox": [1, 2, 3, 4]}]}, "object"),
        ({"annotations": [{"bbox": [1, 2, 3, 4], "label": " cat "}]}, "cat"),
        ({"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 7}], "categories": [{"id": 7, "name": "dog"}]}, "dog"),
    ],
)
def test_the_class_of_an_object(tmp_path: Path, jpeg: bytes, content: Any, name: str) -> None:
    write(tmp_path / "a.tar", {"a.jpg": jpeg, "a.json": content})
    (entry,) = source_of(tmp_path / "a.tar").entries(Split.train)
    assert [one.name for one in entry.objects] == [name]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        {"annotations": 3},
        {"annotations": [3]},
        {"annotations": [{"bbox": [1, 2, 3], "category": "cat"}]},
        {"annotations": [{"bbox": [1, 2, 3, 1e400], "category": "cat"}]},
        {"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 1}], "categories": [{"id": 2, "name": "dog"}]},
        {"annotations": [], "categories": [{"id": "x"}]},
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, jpeg: bytes, content: Any) -> None:
    write(tmp_path / "a.tar", {"a.jpg": jpeg, "a.json": content, "b.jpg": jpeg, "b.json": {"annotations": [CAT]}})
    data = source_of(tmp_path / "a.tar").load(Split.train)
    assert [one.image_id for one in data.records] == ["b"]
    assert [one.path for one in data.bad] == [str(tmp_path / "a.tar" / "a.json")]


def test_an_image_without_objects_where_others_have_them(tmp_path: Path, jpeg: bytes) -> None:
    files = {"a.jpg": jpeg, "b.jpg": jpeg, "b.json": {"annotations": []}, "c.jpg": jpeg, "c.json": {"caption": "c"}}
    source = source_of(write(tmp_path / "a.tar", files))
    assert [one.image_id for one in source.load(Split.train).records] == ["b"]
    assert [one.kind for one in source.strays()] == ["missing_annotation"] * 2


def test_splits_are_those_of_the_names(tmp_path: Path, jpeg: bytes) -> None:
    for name in ("coco-train-000.tar", "valid/000.tar", "test.tar"):
        write(
            tmp_path / "t" / name, {f"{Path(name).stem}.jpg": jpeg, f"{Path(name).stem}.json": {"annotations": [CAT]}}
        )
    source = source_of(tmp_path / "t", test_share=0.2)
    assert [[one.image_id for one in source.entries(split)] for split in Split] == [
        ["coco-train-000"],
        ["000"],
        ["test"],
    ]


def test_without_names_a_hash_divides_the_images(tmp_path: Path, jpeg: bytes) -> None:
    files = {
        f"{n}.{suffix}": data for n in range(10) for suffix, data in (("jpg", jpeg), ("json", {"annotations": []}))
    }
    write(tmp_path / "a.tar", files)
    source = source_of(tmp_path / "a.tar", test_share=0.3)
    train, test = ({one.image_id for one in source.entries(split)} for split in (Split.train, Split.test))
    assert train | test == {str(n) for n in range(10)}
    assert train
    assert test
    assert source.automatic_split() is not None


def test_images_without_any_objects_are_the_test_split(tmp_path: Path, jpeg: bytes) -> None:
    write(tmp_path / "a.tar", {"a.jpg": jpeg, "a.json": {"url": "…"}, "._a.jpg": b"resource fork"})
    data = source_of(tmp_path / "a.tar").load(Split.test)
    assert data.ground_truth is None
    assert [one.image_id for one in data.records] == ["a"]


def test_the_format_is_recognised(tmp_path: Path, jpeg: bytes) -> None:
    write(tmp_path / "t" / "000.tar", {"a.jpg": jpeg, "a.json": {"annotations": [CAT]}})
    assert recognised_source(tmp_path / "t") == TarSource(root=str(tmp_path / "t"))
    assert isinstance(recognised_source(tmp_path / "t" / "000.tar"), TarSource)
    # Tars beside image files are not read.
    image(tmp_path / "t" / "b.jpg")
    assert TarSource.recognise(tmp_path / "t") is None


def test_an_annotation_file_beside_the_tars(tmp_path: Path, jpeg: bytes) -> None:
    write(tmp_path / "t" / "000.tar", {"train2017/a.jpg": jpeg, "b.jpg": jpeg})
    content = {
        "images": [{"id": 7, "file_name": "train2017/a.jpg"}, {"id": 8, "file_name": "other/b.jpg"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for images in (tmp_path / "t", tmp_path / "t" / "000.tar"):
        source = CocoSource(train_json=str(tmp_path / "coco.json"), train_images=str(images), test_share=0.0, max_bad=0)
        assert [one.path.name for one in source.load(Split.train).records] == ["a.jpg", "b.jpg"]
    (tmp_path / "boxes.csv").write_text("filename,xmin,ymin,xmax,ymax,class\na.jpg,1,2,4,6,cat\n")
    csv = CsvSource(root=str(tmp_path / "boxes.csv"), images_root=str(tmp_path / "t"), test_share=0.0, max_bad=0)
    (record,) = csv.load(Split.train).records
    assert record.path == tmp_path / "t" / "000.tar" / "train2017" / "a.jpg"


def test_check_reads_every_image(tmp_path: Path, jpeg: bytes) -> None:
    files = {"a.jpg": jpeg, "a.json": {"annotations": [CAT]}, "b.jpg": jpeg, "b.json": {"annotations": [CAT]}}
    write(tmp_path / "a.tar", {**files, "c.jpg": jpeg[:400], "c.json": {"annotations": [CAT]}})
    for workers in (0, 2):
        report = check_source(source_of(tmp_path / "a.tar"), workers=workers)
        assert report.images == {"train": 3}
        assert report.counts["truncated_image"] == 1
        assert report.counts["duplicate_image"] == 1  # the bytes of a and b


def test_what_can_not_be_read_is_named_and_counted(tmp_path: Path, jpeg: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("../out.jpg", "good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(jpeg)
            tar.addfile(member, io.BytesIO(jpeg))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    images = DetectedImages(root=str(tmp_path / "a.tar"), max_bad=1.0).load(Split.test)
    assert [one.image_id for one in images.records] == ["good"]
    assert len(images.bad) == 2
    assert all(one.path.startswith(str(tmp_path / "a.tar")) for one in images.bad)
    with pytest.raises(TooManyBadError, match=r"link\.jpg"):
        source_of(tmp_path / "a.tar").load(Split.test)


def test_a_cut_tar_gives_what_is_whole_and_is_named(tmp_path: Path, jpeg: bytes) -> None:
    path = write(tmp_path / "a.tar", {"a.jpg": jpeg, "b.jpg": jpeg})
    path.write_bytes(path.read_bytes()[: 1024 + len(jpeg) + 512])
    images = DetectedImages(root=str(path), max_bad=1.0).load(Split.test)
    assert [one.image_id for one in images.records] == ["a"]
    assert [one.path for one in images.bad] == [str(path)]


def test_a_member_with_an_absolute_name_is_named_inside_of_its_tar(tmp_path: Path, jpeg: bytes) -> None:
    path = write(tmp_path / "t.tar", {"a.jpg": jpeg, "/etc/b.jpg": jpeg})
    data = source_of(path, max_bad=0.5).load(Split.test)
    assert [one.image_id for one in data.records] == ["a"]
    assert [one.path for one in data.bad] == [str(path / "etc/b.jpg")]


@pytest.mark.parametrize("source", [TarSource, DetectedImages])
def test_a_tar_without_a_whole_image_is_named(tmp_path: Path, jpeg: bytes, source: Any) -> None:
    path = write(tmp_path / "t.tar", {"a.jpg": jpeg})
    path.write_bytes(path.read_bytes()[:600])
    (entry,) = source(root=str(path)).entries(Split.test)
    assert entry.image is None
    assert entry.fault is not None
    assert "cut off" in entry.fault.detail


def test_empty_and_missing_ones(tmp_path: Path) -> None:
    write(tmp_path / "t" / "empty.tar", {})
    with pytest.raises(ValueError, match=r"dataset\.root"):
        source_of(tmp_path / "t").entries(Split.train)
    with pytest.raises(FileNotFoundError, match="expected images"):
        DetectedImages(root=str(tmp_path / "t" / "empty.tar")).load(Split.test)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        source_of(tmp_path / "none").entries(Split.train)
    with pytest.raises(FileNotFoundError):
        source_of(tmp_path / "gone").entries(Split.train)


def test_a_huge_member_is_not_read(tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "_FILE_BYTES", 1000)
    path = write(tmp_path / "a.tar", {"a.jpg": jpeg + bytes(8000)})
    with pytest.raises(BrokenImageError, match="scale the image down"):
        read_image(path / "a.jpg", ReadOptions(max_pixels=800))


def test_the_digest_is_that_of_the_same_images_in_a_folder(tmp_path: Path, jpeg: bytes) -> None:
    folder = tmp_path / "folder"
    image(folder / "a.jpg")
    tar = write(tmp_path / "a.tar", {"a.jpg": jpeg})
    one, other = (DetectedImages(root=str(root)).load(Split.test) for root in (folder, tar))
    assert images_digest(one) == images_digest(other)
