"""`detpipe detect` of a data set, of a folder and of a file; and the Detector in Python."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from detpipe import Detector
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.commands.detected_chunks import unreadable_before
from detpipe.commands.stage_settings import Detect
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.detect_settings import keep_settings, kept_settings
from detpipe.runs.run_folder import RunFolder, dataset_digest
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.lmdb_store import LmdbWriter
from detpipe.storage.manifest import ArtefactError, read_manifest
from detpipe.structures import Proposals, Stretch
from tests import drawn
from tests.command_line import detpipe


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two good images, one in a subfolder, and one that is cut short."""
    folder = tmp_path / "pictures"
    drawn.write_jpeg(folder / "one.jpg", drawn.draw(50)[0])
    drawn.write_jpeg(folder / "more" / "two.jpg", drawn.draw(51)[0])
    (folder / "broken.jpg").write_bytes((folder / "one.jpg").read_bytes()[:900])
    return folder


def detect(run: Path, *arguments: str, out: str = "") -> list[dict[str, object]]:
    """Detect, and return detections.json. out: the folder of the source in the run folder."""
    outcome = detpipe("detect", *drawn.settings("detect"), *arguments, f"run_dir={run}")
    assert outcome.status == 0, outcome.err
    found: list[dict[str, object]] = json.loads((run / out / "detections.json").read_text())
    return found


def test_a_folder(run_copy: Path, pictures: Path, voc_root: Path) -> None:
    before = (run_copy / "detections.json").read_bytes()
    found = detect(run_copy, f"source={pictures}", "show_floor=0.1", out="sources/pictures")
    assert {one["image_id"] for one in found} == {"one", "two"}
    assert {one["file_name"] for one in found} == {"one.jpg", "more/two.jpg"}
    assert {(one["category_id"], one["category"]) for one in found} <= {(1, "disc"), (2, "square")}
    own = run_copy / "sources" / "pictures"
    assert sorted(path.name for path in (own / "annotated").iterdir()) == ["one.jpg", "two.jpg"]
    annotated = read_image(own / "annotated" / "one.jpg").astype(int)
    plain = drawn.draw(50)[0].astype(int)
    assert annotated.shape == plain.shape
    assert (abs(annotated - plain).max(axis=2) > 60).sum() > 100  # something is drawn on it
    manifest = read_manifest(own / "detections.json")
    assert [one.path for one in manifest.bad] == [str(pictures / "broken.jpg")]
    # The run's own detections stay, and can be evaluated.
    assert (run_copy / "detections.json").read_bytes() == before
    assert not (run_copy / "annotated").exists()
    assert detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}").status == 0


def test_the_table_of_a_source(run_copy: Path, pictures: Path) -> None:
    found = detect(run_copy, f"source={pictures}", "show_floor=0.3", out="sources/pictures")
    table = list(csv.DictReader((run_copy / "sources/pictures/detections.csv").read_text("utf-8").splitlines()))
    assert list(table[0]) == ["file", "class", "score", "x1", "y1", "x2", "y2", "shown"]
    for row, one in zip(table, found, strict=True):
        x, y, width, height = one["bbox"]  # type: ignore[misc]
        assert (row["file"], row["class"], float(row["score"])) == (one["file_name"], one["category"], one["score"])
        np.testing.assert_allclose([float(row[n]) for n in ("x1", "y1")], [x, y])
        np.testing.assert_allclose([float(row["x2"]) - x, float(row["y2"]) - y], [width, height], atol=0.011)
        assert row["shown"] == str(int(one["score"] >= 0.3))  # type: ignore[operator]


def test_the_counts_by_class_and_the_page(run_copy: Path, pictures: Path) -> None:
    arguments = [*drawn.settings("detect"), f"source={pictures}", f"run_dir={run_copy}", "show_floor=0"]
    outcome = detpipe("detect", *arguments)
    found = json.loads((run_copy / "sources/pictures/detections.json").read_text())
    shown = outcome.out + outcome.err
    for name in drawn.CLASSES:
        count = sum(one["category"] == name for one in found)
        assert re.search(rf"^{name} +{count} +\d$", shown, re.MULTILINE) or not count
    page = (run_copy / "sources/pictures/detections.html").read_text("utf-8")
    assert "more/two.jpg" in page
    assert "broken.jpg" in page
    assert 'href="annotated/two.jpg"' in page
    assert page.count("data:image/jpeg") == 2


def test_the_best_threshold_of_the_run_is_the_default(run_copy: Path, pictures: Path, voc_root: Path) -> None:
    kept = run_copy / "classifier" / "operating_point.json"
    point = json.loads(kept.read_text())
    assert point["score"] == json.loads((run_copy / "metrics.json").read_text())["best_f1"]["score"]
    assert point["images"] == 4
    kept.write_text(json.dumps({**point, "score": 0.123}))
    arguments = [*drawn.settings("detect"), f"source={pictures}", f"run_dir={run_copy}"]
    outcome = detpipe("detect", *arguments)
    assert "0.12 (the best F1 on the 4 images of " in outcome.out + outcome.err
    table = list(csv.DictReader((run_copy / "sources/pictures/detections.csv").read_text().splitlines()))
    assert all(row["shown"] == str(int(float(row["score"]) >= 0.123)) for row in table)
    kept.unlink()
    outcome = detpipe("detect", *arguments)
    assert "0.50 (the default; `detpipe eval`" in outcome.out + outcome.err
    outcome = detpipe("detect", *arguments, "show_floor=0.7")
    assert "0.70 (as set by show_floor)" in outcome.out + outcome.err
    kept.write_text('{"score": "high"}')
    outcome = detpipe("detect", *arguments)
    assert outcome.status == 1
    assert "operating_point.json" in outcome.err
    assert "score" in outcome.err
    assert "Traceback" not in outcome.err


def test_each_source_has_a_folder_of_its_own(run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, parent in enumerate(("a", "b")):
        drawn.write_jpeg(tmp_path / parent / "photos" / f"{parent}.jpg", drawn.draw(60 + number)[0])
    detect(run_copy, f"source={tmp_path / 'a' / 'photos'}", out="sources/photos")
    first = (run_copy / "sources/photos/detections.json").read_bytes()
    found = detect(run_copy, f"source={tmp_path / 'b' / 'photos'}", out="sources/photos_2")
    assert {one["file_name"] for one in found} == {"b.jpg"}
    assert (run_copy / "sources/photos/detections.json").read_bytes() == first
    assert [path.name for path in (run_copy / "sources/photos_2/annotated").iterdir()] == ["b.jpg"]
    # The same source, typed in another way, and with another image.
    drawn.write_jpeg(tmp_path / "b" / "photos" / "c.jpg", drawn.draw(62)[0])
    (tmp_path / "b" / "photos" / "b.jpg").unlink()
    monkeypatch.chdir(tmp_path / "b")
    found = detect(run_copy, "source=./photos/", out="sources/photos_2")
    assert {one["file_name"] for one in found} == {"c.jpg"}
    assert [path.name for path in (run_copy / "sources/photos_2/annotated").iterdir()] == ["c.jpg"]
    assert sorted(path.name for path in (run_copy / "sources").iterdir()) == ["photos", "photos_2"]


def test_pixels_that_turn_out_bad_are_named(run_copy: Path, pictures: Path) -> None:
    """The header and the end of the file are sound: only the decoder finds out."""
    file = pictures / "hollow.png"
    data = bytearray(cv2.imencode(".png", drawn.draw(52)[0])[1].tobytes())
    start = data.index(b"IDAT") + 4
    data[start : start + 2000] = bytes(2000)
    file.write_bytes(bytes(data))
    with pytest.raises(BrokenImageError):
        read_image(file)
    alone = detpipe("detect", *drawn.settings("detect"), f"source={file}", f"run_dir={run_copy}")
    assert alone.status == 1
    assert f"source={file}: expected a readable image, got none: {file}: " in alone.err
    own = run_copy / "sources" / "hollow"
    with pytest.raises(ArtefactError, match="not finished"):
        read_manifest(own / "detections.json")
    assert not (own / "detections.json").exists()
    assert not (own / "detections.lmdb").exists()
    outcome = detpipe("detect", *drawn.settings("detect"), f"source={pictures}", f"run_dir={run_copy}")
    assert outcome.status == 0, outcome.err
    assert "hollow.png" in outcome.err
    own = run_copy / "sources" / "pictures"
    bad = read_manifest(own / "detections.json").bad
    assert {one.path for one in bad} == {str(file), str(pictures / "broken.jpg")}
    assert sorted(path.name for path in (own / "annotated").iterdir()) == ["one.jpg", "two.jpg"]


def test_another_image_of_as_many_bytes(run_copy: Path, tmp_path: Path) -> None:
    """As BMPs of one size are."""
    camera = tmp_path / "camera"
    camera.mkdir()
    found = []
    for number in (0, 1):
        cv2.imwrite(str(camera / "now.bmp"), drawn.draw(number)[0])
        found.append(detect(run_copy, f"source={camera}", out="sources/camera"))
    assert found[0] != found[1]


def test_a_source_without_a_readable_image_fails(run_copy: Path, pictures: Path, tmp_path: Path) -> None:
    before = (run_copy / "detections.json").read_bytes()
    folder = tmp_path / "all_broken"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"<html>not found</html>")
    for source, named in ((pictures / "broken.jpg", "broken.jpg: expected an image file, got a truncated one"),
                          (folder, "2.jpg: expected an image file, got an HTML page")):  # fmt: skip
        outcome = detpipe("detect", *drawn.settings("detect"), f"source={source}", f"run_dir={run_copy}")
        assert outcome.status == 1
        last = outcome.err.strip().splitlines()[-1]
        assert last.startswith(f"detpipe detect: source={source}: expected a readable image, got none: ")
        assert named in last
    assert last.endswith("; and 2 more")
    assert (run_copy / "detections.json").read_bytes() == before  # of the data set, as they were
    assert read_manifest(run_copy / "detections.json").settings["source"] is None
    assert not (run_copy / "sources").exists()


def test_a_file(run_copy: Path, pictures: Path) -> None:
    found = detect(run_copy, f"source={pictures / 'one.jpg'}", out="sources/one")
    assert {one["image_id"] for one in found} == {"one"}
    assert {one["file_name"] for one in found} == {"one.jpg"}
    assert [path.name for path in (run_copy / "sources/one/annotated").iterdir()] == ["one.jpg"]


def test_the_floor_of_what_is_drawn_can_be_changed_afterwards(run_copy: Path, pictures: Path) -> None:
    drawing = run_copy / "sources/one/annotated/one.jpg"
    detect(run_copy, f"source={pictures / 'one.jpg'}", "show_floor=1", out="sources/one")
    empty = drawing.read_bytes()
    detect(run_copy, f"source={pictures / 'one.jpg'}", "show_floor=0", out="sources/one")
    assert drawing.read_bytes() != empty


def test_a_threshold_outside_0_to_1_is_refused(run_copy: Path, pictures: Path) -> None:
    outcome = detpipe("detect", f"source={pictures}", f"run_dir={run_copy}", "show_floor=50")
    assert outcome.status == 1
    assert "show_floor: expected a score in [0, 1]" in outcome.err


def test_a_missing_source(run_copy: Path, tmp_path: Path) -> None:
    outcome = detpipe("detect", *drawn.settings("detect"), f"source={tmp_path / 'nowhere'}", f"run_dir={run_copy}")
    assert outcome.status == 1
    assert str(tmp_path / "nowhere") in outcome.err
    assert read_manifest(run_copy / "detections.json").settings["source"] is None  # what was there stays


def test_a_run_of_an_earlier_version_may_have_detections_of_a_source(run_copy: Path, voc_root: Path) -> None:
    own = (run_copy / "detections.json").read_bytes()
    path = run_copy / "detections.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["source"] = "photos"
    path.write_text(json.dumps(manifest))
    outcome = detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "of photos; run `detpipe detect dataset=...`" in outcome.err
    detect(run_copy, *drawn.voc(voc_root))
    assert (run_copy / "detections.json").read_bytes() == own
    assert detpipe("eval", *drawn.voc(voc_root), f"run_dir={run_copy}").status == 0


def test_changed_annotations_do_not_make_detections_outdated(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    """Neither of this version, nor of an earlier one, whose manifest has a digest of images and objects."""
    path = run_copy / "detections.manifest.json"
    before = (run_copy / "detections.json").stat().st_mtime_ns
    other = drawn.copy(voc_root, tmp_path / "other")
    annotation = other / "Annotations" / "test_0.xml"
    annotation.write_text(annotation.read_text().replace("disc", "square"))
    detect(run_copy, *drawn.voc(other))
    manifest = json.loads(path.read_text())
    manifest["inputs"]["images"] = dataset_digest(VocSource(root=str(voc_root)).load(Split.test))
    path.write_text(json.dumps(manifest))
    detect(run_copy, *drawn.voc(voc_root))
    assert (run_copy / "detections.json").stat().st_mtime_ns == before


def test_a_detection_that_failed_before_its_first_image_is_started_again(run_copy: Path, voc_root: Path) -> None:
    path = run_copy / "detections.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["complete"], manifest["settings"]["detect"]["nms_iou"] = False, 0.7
    path.write_text(json.dumps(manifest))
    (run_copy / "detections.json").unlink()
    assert detect(run_copy, *drawn.voc(voc_root))


def test_voc_results_can_be_asked_for_afterwards(run_copy: Path, voc_root: Path) -> None:
    found = detect(run_copy, *drawn.voc(voc_root), "voc_results=true")
    lines = {
        name: (run_copy / "voc_results" / f"comp4_det_test_{name}.txt").read_text().splitlines()
        for name in drawn.CLASSES
    }
    assert sum(map(len, lines.values())) == len(found)
    discs = [one for one in found if one["category_id"] == 1]
    name, score, xmin, _, xmax, _ = lines["disc"][0].split()
    assert name == discs[0]["image_id"]
    assert float(score) == pytest.approx(discs[0]["score"], rel=1e-4)
    x, _, width, _ = discs[0]["bbox"]  # type: ignore[misc]
    assert float(xmin) == pytest.approx(x + 1, abs=0.02)  # VOC counts from 1, and its last pixel belongs to the box
    assert float(xmax) == pytest.approx(x + width, abs=0.02)


def test_yolo_text_of_the_detections(run_copy: Path, voc_root: Path) -> None:
    found = detect(run_copy, *drawn.voc(voc_root), "yolo=true", "show_floor=0.0")
    labels = run_copy / "yolo" / "labels"
    assert {path.name for path in labels.iterdir()} == {f"{name}.txt" for name in drawn.TEST}
    assert (run_copy / "yolo" / "classes.txt").read_text().splitlines() == list(drawn.CLASSES)
    rows = [line for path in labels.iterdir() for line in path.read_text().splitlines()]
    assert len(rows) == len(found)
    first = found[0]
    number, *shares, score = (labels / f"{first['image_id']}.txt").read_text().split("\n")[0].split()
    x, y, width, height = first["bbox"]  # type: ignore[misc]
    wanted = [(x + width / 2) / 160, (y + height / 2) / 120, width / 160, height / 120]
    assert int(number) + 1 == first["category_id"]
    assert list(map(float, shares)) == pytest.approx(wanted, abs=1e-4)
    assert float(score) == pytest.approx(first["score"], rel=1e-4)


def test_a_class_that_the_classifier_does_not_know(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    other = drawn.copy(voc_root, tmp_path / "other")
    for path in (other / "Annotations").iterdir():
        path.write_text(path.read_text().replace("disc", "zebra"))
    before = (run_copy / "detections.json").read_bytes()
    outcome = detpipe("detect", *drawn.voc(other), *drawn.settings("detect"), f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "['zebra']; give dataset.classes=" in outcome.err
    assert "Traceback" not in outcome.err
    assert (run_copy / "detections.json").read_bytes() == before


def test_eval_wants_the_classifiers_order_of_classes(run_copy: Path, voc_root: Path) -> None:
    before = (run_copy / "metrics.json").read_bytes()
    outcome = detpipe("eval", *drawn.voc(voc_root), "dataset.classes=[square,disc]", f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "give dataset.classes=" in outcome.err
    assert (run_copy / "metrics.json").read_bytes() == before


def test_proposals_of_other_images_are_refused(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    other = drawn.copy(voc_root, tmp_path / "other")
    (other / "ImageSets" / "Main" / "test.txt").write_text("test_0\ntest_1\n")
    outcome = detpipe("detect", *drawn.voc(other), *drawn.settings("detect"), f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "give the dataset settings" in outcome.err


def test_an_image_that_changed_since_its_proposals(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    other = drawn.copy(voc_root, tmp_path / "drawn")
    path = other / "JPEGImages" / "test_2.jpg"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # of the same length, so that only its digest tells
    path.write_bytes(bytes(data))
    arguments = [*drawn.voc(other), *drawn.settings("detect"), f"run_dir={run_copy}", "overwrite=true"]
    outcome = detpipe("detect", *arguments)
    assert outcome.status == 1
    assert f"{path}: changed since its proposals were made" in outcome.err


def test_a_broken_manifest_is_named(run_copy: Path, voc_root: Path) -> None:
    (run_copy / "detections.manifest.json").write_text("{")
    outcome = detpipe("detect", *drawn.voc(voc_root), *drawn.settings("detect"), f"run_dir={run_copy}")
    assert outcome.status == 1
    assert "detections.manifest.json: expected a manifest" in outcome.err
    detect(run_copy, *drawn.voc(voc_root), "overwrite=true")


def test_the_detector_takes_arrays_paths_and_pillow(finished_run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    path = voc_root / "JPEGImages" / "test_0.jpg"
    pixels = read_image(path)
    first = detector.predict(pixels)
    assert len(first) > 0
    for other in (path, str(path), PIL.Image.fromarray(pixels)):
        again = detector.predict(other)
        np.testing.assert_array_equal(again.boxes, first.boxes)
        np.testing.assert_array_equal(again.scores, first.scores)
        np.testing.assert_array_equal(again.labels, first.labels)


def test_the_detector_says_what_detect_wrote(finished_run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    assert detector.spec.classes == drawn.CLASSES
    found = detector.predict(voc_root / "JPEGImages" / "test_3.jpg")
    written = [one for one in json.loads((finished_run / "detections.json").read_text()) if one["image_id"] == "test_3"]
    # The command worked in float32 and in other batches; the best are the same, rounded as JSON has them.
    for one, box, score in zip(written[:3], found.boxes, found.scores, strict=False):
        np.testing.assert_allclose(one["score"], score, atol=0.02)
        assert len(box) == 4
    assert abs(len(found) - len(written)) <= 0.2 * len(written)


def test_given_proposals_are_used(finished_run: Path, voc_root: Path) -> None:
    detector = Detector.from_run(finished_run, device="cpu")
    pixels = read_image(voc_root / "JPEGImages" / "test_0.jpg")
    none = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert len(detector.predict(pixels, none)) == 0
    one = Proposals(np.array([[10, 10, 60, 60]], np.float32), np.ones(1, np.float32))
    found = detector.predict(pixels, one)
    assert 1 <= len(found) <= 2  # one region, two classes


def test_the_detectors_proposer_is_the_runs(finished_run: Path, tmp_path: Path) -> None:
    proposer = proposer_of_run(RunFolder(finished_run))
    assert isinstance(proposer, SelectiveSearch)
    assert (proposer.preset.value, proposer.max_side, proposer.max_proposals) == ("opencv_single", 160, 60)
    assert proposer_of_run(RunFolder(tmp_path)) == SelectiveSearch()


def test_what_the_detector_refuses(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=r"found no classifier\.json"):
        Detector.from_run(tmp_path)
    detector = Detector.from_run(finished_run, device="cpu")
    with pytest.raises(ValueError, match=r"image: expected .* \(H, W, 3\) uint8 with H, W > 0, got \(20, 20\) float64"):
        detector.predict(np.zeros((20, 20)))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        detector.predict(tmp_path / "none.jpg")


def test_a_coco_data_set_can_be_asked_for_afterwards(run_copy: Path, pictures: Path) -> None:
    found = detect(run_copy, f"source={pictures}", out="sources/pictures")
    detect(run_copy, f"source={pictures}", "coco=true", "show_floor=0.2", out="sources/pictures")
    content = json.loads((run_copy / "sources/pictures/detections_coco.json").read_text())
    assert {image["file_name"] for image in content["images"]} == {"more/two.jpg", "one.jpg"}
    assert len(content["annotations"]) == sum(one["score"] >= 0.2 for one in found)  # type: ignore[operator]
    assert [category["name"] for category in content["categories"]] == list(drawn.CLASSES)


def test_new_images_are_stretched_as_those_of_the_data_set(run_copy: Path, voc_root: Path, tmp_path: Path) -> None:
    """12 bits in a 16-bit file: 255 x 16 = 4,080, so dividing by 16 gives the image back."""
    image = read_image(voc_root / "JPEGImages" / "test_0.jpg")
    assert image.max() >= 128
    (tmp_path / "dark.png").write_bytes(cv2.imencode(".png", image[..., ::-1].astype(np.uint16) << 4)[1].tobytes())
    classifier = run_copy / "classifier"
    keep_settings(classifier, replace(kept_settings(classifier), stretch=Stretch.bits), replace=True)
    wanted = Detector.from_run(run_copy, device="cpu").predict(image)
    assert len(wanted) > 0
    by_path = Detector.from_run(run_copy, device="cpu").predict(tmp_path / "dark.png")
    np.testing.assert_array_equal(by_path.boxes, wanted.boxes)
    found = detect(run_copy, f"source={tmp_path / 'dark.png'}", out="sources/dark")
    assert len(found) == len(wanted)
    np.testing.assert_allclose(sorted(float(one["score"]) for one in found), sorted(wanted.scores), atol=1e-3)


def test_the_limit_on_pixels_of_new_images(run_copy: Path, pictures: Path) -> None:
    outcome = detpipe("detect", f"source={pictures}", "max_pixels=99", f"run_dir={run_copy}", "device=cpu")
    assert outcome.status != 0
    assert "expected an image file of at most 99 pixels" in outcome.err


def test_a_stretch_is_part_of_what_a_stage_was_made_from(voc_root: Path) -> None:
    plain, bits = (VocSource(root=str(voc_root), stretch=stretch).load(Split.test) for stretch in list(Stretch)[:2])
    assert dataset_digest(plain) != dataset_digest(bits)


def test_damaged_detections_of_an_interrupted_run_are_named(run_copy: Path, voc_root: Path) -> None:
    path = run_copy / "detections.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "complete": False}))
    (run_copy / "detections.json").unlink()
    for key, value in ((b"bad", b"[3]"), (b"00000003", b"[[[1, 2]], 3]"), (b"00000003", b"{")):
        with LmdbWriter(run_copy / "detections.lmdb") as writer:
            for index in range(4):
                writer.put(f"{index:08d}".encode(), b"[[], [], [], null]")
            writer.put(b"bad", b"[]")
            writer.put(key, value)
        outcome = detpipe("detect", *drawn.voc(voc_root), *drawn.settings("detect"), f"run_dir={run_copy}")
        assert outcome.status == 1
        assert "detections.lmdb: expected the detections of finished images" in outcome.err
        assert "Traceback" not in outcome.err


def test_boxes_belong_to_a_source_and_a_threshold_is_a_probability() -> None:
    with pytest.raises(ValueError, match="boxes: expected source=DIR"):
        Detect(boxes="md.json")
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="taxonomy_threshold"):
            Detect(taxonomy_threshold=wrong)


def test_a_killed_start_has_no_unreadable_images(tmp_path: Path) -> None:
    assert unreadable_before(tmp_path) == []
    (tmp_path / "data.mdb").touch()  # by a process that was killed before it wrote the first page
    assert unreadable_before(tmp_path) == []
