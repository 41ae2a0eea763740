"""Image-level labels with a detector's boxes: which boxes become objects, what is left out, and the splits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detpipe.datasets.auto import UnknownFormatError, find_reading
from detpipe.datasets.check import check_source
from detpipe.datasets.exif_boxes import ExifBoxes
from detpipe.datasets.image_label_table import ImageLabelError
from detpipe.datasets.image_labels import ImageLabelsSource
from detpipe.datasets.megadetector import MegaDetectorFileError
from detpipe.datasets.source import Split, TooManyBadError
from tests.datasets.test_image_list import folder_of

HEIGHT, WIDTH = 20, 30


def box(confidence: float, category: str = "1", bbox: tuple[float, ...] = (0.1, 0.1, 0.5, 0.5)) -> dict[str, Any]:
    return {"category": category, "conf": confidence, "bbox": list(bbox)}


class Photos:
    """A folder of photos with labels.csv and md.json, made as they are added."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows, self.images = root, ["file,class"], list[dict[str, Any]]()

    def add(self, name: str, *classes: str, found: list[dict[str, Any]] | None = None, **image: Any) -> None:
        folder_of(self.root / "photos", name)
        self.rows += [f"{name},{one}" for one in classes]
        if found is not None or image:
            self.images.append({"file": name, "detections": found, **image})

    def source(self, **settings: Any) -> ImageLabelsSource:
        (self.root / "labels.csv").write_text("\n".join(self.rows))
        categories = {"1": "animal", "2": "person"}
        (self.root / "md.json").write_text(json.dumps({"detection_categories": categories, "images": self.images}))
        paths = {"root": self.root / "photos", "labels": self.root / "labels.csv", "detections": self.root / "md.json"}
        return ImageLabelsSource(**{"test_share": 0, **{name: str(path) for name, path in paths.items()}, **settings})


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


def objects(source: ImageLabelsSource) -> dict[object, list[tuple[str, list[float]]]]:
    data = source.load(Split.train)
    assert data.ground_truth is not None
    return {
        image_id: [
            (data.classes[label - 1], np.round(corners, 3).tolist())
            for label, corners in zip(truth.labels.tolist(), truth.boxes, strict=True)
        ]
        for image_id, truth in data.ground_truth.items()
    }


def test_confident_boxes_get_the_class_of_their_image(photos: Photos) -> None:
    photos.add("a/1.jpg", "fox", "fox", found=[box(0.2), box(0.19), box(0.9, "2"), box(0.9, bbox=(0.5, 0.5, 0.5, 0.5))])
    photos.add("a/2.jpg", "hare", found=[box(1)])
    photos.add("a/3.jpg", "Empty", found=[box(0.9)])
    photos.add("a/4.jpg", "Empty")
    source = photos.source()
    assert objects(source) == {
        "a/1": [("fox", [3, 2, 18, 12]), ("fox", [15, 10, 30, 20])],
        "a/2": [("hare", [3, 2, 18, 12])],
        "a/3": [],
        "a/4": [],
    }
    assert source.known_classes() == ["fox", "hare"]
    assert objects(photos.source(confidence=0.95))["a/2"] == [("hare", [3, 2, 18, 12])]
    assert len(objects(photos.source(categories=["person", "animal"]))["a/1"]) == 3


def test_what_nothing_can_be_learned_from_is_left_out_and_counted(
    photos: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    photos.add("ok.jpg", "fox", found=[box(1)])
    photos.add("person.jpg", "person", found=[box(1, "2")])
    photos.add("unsure.jpg", "fox", found=[box(0.1)])
    photos.add("unseen.jpg", "fox")
    photos.add("failed.jpg", "fox", failure="Failure image access")
    photos.add("two.jpg", "fox", "hare", found=[box(1), box(1)])
    photos.add("blank.jpg", "fox", "empty", found=[box(1)])
    photos.add("unlabelled.jpg", "", found=[box(1)])
    photos.add("not_in_the_table.jpg", found=[box(1)])
    source = photos.source()
    assert list(objects(source)) == ["ok"]
    assert source.known_classes() == ["fox"]
    found = {Path(one.file).name: one.kind for one in check_source(source).findings if one.kind != "dark_image"}
    assert found == {
        **dict.fromkeys(("person.jpg", "unsure.jpg", "unseen.jpg", "failed.jpg"), "label_without_box"),
        **dict.fromkeys(("two.jpg", "blank.jpg"), "several_classes"),
    }
    assert "left out 4 images with no confident box" in caplog.text
    assert "left out 2 images with several classes" in caplog.text
    assert "1 without a class" in caplog.text


def test_names_as_another_machine_wrote_them(photos: Photos) -> None:
    photos.add("north/100/1.jpg", "fox")
    photos.add("south/100/1.jpg", "hare")
    photos.rows = ["class;file", "fox;NORTH\\100\\1.JPG", "hare;C:\\photos\\south\\100\\1.jpg"]
    photos.images = [
        {"file": "D:\\2024\\south\\100\\1.jpg", "detections": [box(1, bbox=(0, 0, 1, 1))]},
        {"file": "north/100/1.jpg", "detections": [box(1)]},
        {"file": "west/100/7.jpg", "detections": [box(1)]},
    ]
    assert objects(photos.source()) == {
        "north/100/1": [("fox", [3, 2, 18, 12])],
        "south/100/1": [("hare", [0, 0, WIDTH, HEIGHT])],
    }


def test_boxes_in_pixels(photos: Photos) -> None:
    photos.add("1.jpg", "fox")
    source = photos.source()
    found = [{"category": "animal", "confidence": 0.5, "bbox": [1, 2, 11, 12]}]
    (photos.root / "md.json").write_text(json.dumps([{"file": "1.jpg", "detections": found}]))
    assert objects(source) == {"1": [("fox", [1, 2, 11, 12])]}


def test_shares_are_of_the_upright_image(photos: Photos) -> None:
    import PIL.Image

    photos.add("1.jpg", "fox", found=[box(1, bbox=(0, 0, 1, 0.5))])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    image.save(photos.root / "photos" / "1.jpg", exif=exif.tobytes())
    assert objects(photos.source()) == {"1": [("fox", [0, 0, HEIGHT, WIDTH / 2])]}
    # On the pixels before rotation: the upper half, which rotation brings to the right.
    assert objects(photos.source(exif_boxes=ExifBoxes.raw)) == {"1": [("fox", [HEIGHT / 2, 0, HEIGHT, WIDTH])]}


def test_a_missing_image_counts_as_unusable(photos: Photos) -> None:
    photos.add("1.jpg", "fox", found=[box(1)])
    photos.rows.append("gone.jpg,fox")
    with pytest.raises(TooManyBadError, match=r"gone\.jpg"):
        photos.source().load(Split.train)
    assert len(photos.source(max_bad=0.5).load(Split.train)) == 1


def test_a_broken_image_is_named_when_it_is_loaded(photos: Photos) -> None:
    photos.add("1.jpg", "fox", found=[box(1)])
    photos.add("2.jpg", "fox", found=[box(1)])
    (photos.root / "photos" / "2.jpg").write_bytes(b"no image")
    data = photos.source(max_bad=0.5).load(Split.train)
    assert [Path(one.path).name for one in data.bad] == ["2.jpg"]


def test_photos_of_a_camera_stay_in_one_split(photos: Photos) -> None:
    for camera in range(10):
        for number in range(3):
            photos.add(f"c{camera}/{number}/x.jpg", "fox", found=[box(1)])
    source = photos.source(test_share=0.3, group=1)
    cameras = [
        {str(one.image_id).split("/")[0] for one in source.load(split).records} for split in (Split.train, Split.test)
    ]
    assert cameras[0]
    assert cameras[1]
    assert not cameras[0] & cameras[1]
    stored = source.automatic_split()
    assert (set(stored.train), set(stored.test)) == (cameras[0], cameras[1])
    alone = photos.source(test_share=0.3)
    mixed = [
        {str(one.image_id).split("/")[0] for one in alone.load(split).records} for split in (Split.train, Split.test)
    ]
    assert mixed[0] & mixed[1]


def test_one_camera_can_not_be_divided(photos: Photos) -> None:
    photos.add("c1/1.jpg", "fox", found=[box(1)])
    with pytest.raises(ValueError, match=r"dataset\.group=0"):
        photos.source(test_share=0.3, group=1).load(Split.test)
    assert len(photos.source(group=1).load(Split.train)) == 1


def test_without_boxes_for_any_class_it_stops(photos: Photos) -> None:
    photos.add("1.jpg", "fox", found=[box(0.1)])
    with pytest.raises(MegaDetectorFileError, match=r"md\.json: .*0\.2"):
        photos.source().load(Split.train)


def test_results_for_other_images(photos: Photos) -> None:
    photos.add("1.jpg", "fox")
    photos.images.append({"file": "other.jpg", "detections": []})
    with pytest.raises(MegaDetectorFileError, match=r"dataset\.root"):
        photos.source().load(Split.train)


def test_one_image_under_two_names(photos: Photos) -> None:
    photos.add("a/1.jpg", "fox", found=[box(1)])
    photos.images.append({"file": "a\\1.jpg", "detections": []})
    with pytest.raises(MegaDetectorFileError, match="once"):
        photos.source().load(Split.train)


def test_nothing(photos: Photos, tmp_path: Path) -> None:
    photos.add("1.jpg", "fox")
    source = photos.source()
    (tmp_path / "labels.csv").write_text("\n")
    with pytest.raises(ImageLabelError, match="no rows"):
        source.load(Split.train)
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        photos.source(root=str(tmp_path / "none")).load(Split.train)


@pytest.mark.parametrize("wrong", [{"confidence": 2}, {"confidence": float("nan")}, {"group": -1}, {"categories": []}])
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"dataset.{next(iter(wrong))}"):
        ImageLabelsSource(root="r", labels="l", detections="d", **wrong)


def test_a_folder_with_photos_table_and_boxes_is_recognised(photos: Photos) -> None:
    photos.add("a.jpg", "fox", found=[box(0.9)])
    source = photos.source()
    reading = find_reading(photos.root)
    assert reading.word == "image_labels"
    wanted = {"root": str(photos.root), "labels": source.labels, "detections": source.detections}
    assert reading.settings == wanted
    assert list(objects(ImageLabelsSource(**wanted, test_share=0)).values()) == [[("fox", [3.0, 2.0, 18.0, 12.0])]]
    (photos.root / "more.csv").write_text("file,class\na.jpg,fox\n")
    with pytest.raises(UnknownFormatError, match=r"labels\.csv, more\.csv; .*dataset\.labels="):
        find_reading(photos.root)


def test_photos_without_a_table_or_boxes_are_plain_images(photos: Photos) -> None:
    photos.add("a.jpg", "fox", found=[box(0.9)])
    photos.source()
    (photos.root / "labels.csv").unlink()
    assert find_reading(photos.root).word == "images"
