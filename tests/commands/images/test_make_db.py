"""`detpipe make-db` and `compute-mean`: Caffe's own records and means, workers, shards, faults, kills."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.classify.images.database import ImagesReader
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter
from detpipe.storage.mean_file import read_mean
from detpipe.storage.messages_pb2 import Datum
from tests.command_line import Outcome, detpipe, start
from tests.storage.hostile_images import claiming

COUNT = 12


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """root/: 12 PNGs of 10 x 14 pixels in folders a and b; list.txt beside them, in order."""
    root = tmp_path / "pictures"
    generator = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        name = f"{'ab'[number * 2 // COUNT]}/image {number:02d}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (10, 14, 3), dtype=np.uint8)
        (root / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        lines.append(f"{name} {number * 2 // COUNT}\n")
    (root / "list.txt").write_text("".join(lines))
    return root


def make(root: Path, out: Path, *more: str) -> Outcome:
    return detpipe("make-db", f"root={root}", f"out={out}", "resize=8x8", "workers=0", *more)


def records(path: Path) -> dict[bytes, bytes]:
    with LmdbReader(path) as reader:
        return dict(reader.items())


def manifest(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((path / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("name", ["train", "test"])
def test_records_and_mean_are_caffes_to_the_byte(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "caffe/datum_lmdb_sujack1"
    database, mean = tmp_path / "db", tmp_path / "mean.binaryproto"
    outcome = detpipe(
        *("make-db", f"list={folder / f'{name}_files.txt'}", f"root={folder / f'{name}_raw_img'}"),
        *(f"out={database}", "shuffle=false", "check_size=true", "verify=true", "workers=0"),
    )
    assert outcome.status == 0, outcome.err
    assert records(database) == records(folder / f"{name}_lmdb")
    assert detpipe("compute-mean", f"db={database}", f"out={mean}").status == 0
    assert mean.read_bytes() == (folder / f"{name}_mean").read_bytes()


def test_folders_are_classes_and_the_order_is_drawn(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "db").status == 0
    found = manifest(tmp_path / "db")
    assert found["settings"]["classes"] == ["a", "b"]  # type: ignore[index]
    assert found["summary"]["labels"] == {"0": 6, "1": 6}  # type: ignore[index]
    names = [key.decode().partition("_")[2] for key in records(tmp_path / "db")]
    assert sorted(names) == sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    assert names != sorted(names)
    assert make(pictures, tmp_path / "other", "seed=1").status == 0
    assert list(records(tmp_path / "other")) != list(records(tmp_path / "db"))


def test_a_list_gives_the_same_records_as_the_folders(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "folders").status == 0
    assert make(pictures, tmp_path / "list", f"list={pictures / 'list.txt'}").status == 0
    assert records(tmp_path / "list") == records(tmp_path / "folders")


def test_worker_processes_make_the_same_file(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "one").status == 0
    assert make(pictures, tmp_path / "two", "workers=2").status == 0
    assert (tmp_path / "one/data.mdb").read_bytes() == (tmp_path / "two/data.mdb").read_bytes()


def test_shards_are_parts_of_the_order(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "one").status == 0
    assert make(pictures, tmp_path / "three", "num_shards=3", "verify=true").status == 0
    shards = [records(tmp_path / "three" / f"shard_{number:05d}") for number in range(3)]
    assert [len(shard) for shard in shards] == [4, 4, 4]
    assert {**shards[0], **shards[1], **shards[2]} == records(tmp_path / "one")
    with ImagesReader(tmp_path / "three") as three, ImagesReader(tmp_path / "one") as one:
        assert three.labels.tolist() == one.labels.tolist()
    assert make(pictures, tmp_path / "many", "num_shards=20", "verify=true").status == 0
    with ImagesReader(tmp_path / "many") as many:
        assert len(many) == COUNT


def test_it_is_made_once_and_refuses_other_settings(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "db").status == 0
    before = (tmp_path / "db/data.mdb").read_bytes()
    assert make(pictures, tmp_path / "db").status == 0
    assert (tmp_path / "db/data.mdb").read_bytes() == before
    refused = make(pictures, tmp_path / "db", "grey=true")
    assert refused.status == 1
    assert "grey: False -> True" in refused.err
    assert make(pictures, tmp_path / "db", "grey=true", "overwrite=true").status == 0
    with ImagesReader(tmp_path / "db") as reader:
        assert reader.planes(0).shape == (1, 8, 8)


def test_broken_images_are_named_counted_and_limited(pictures: Path, tmp_path: Path) -> None:
    (pictures / "a/image 03.png").write_bytes(b"no image")
    (pictures / "b/image 07.png").unlink()
    arguments = (f"list={pictures / 'list.txt'}", "shuffle=false")
    failed = make(pictures, tmp_path / "db", *arguments)
    assert failed.status == 1
    assert "2 of 12 images can't be read, more than max_bad=0.01" in failed.err
    assert "image 03.png: expected an image file" in failed.err
    passed = make(pictures, tmp_path / "db", *arguments, "max_bad=0.2")
    assert passed.status == 0, passed.err
    assert len(manifest(tmp_path / "db")["bad"]) == 2  # type: ignore[arg-type]
    keys = list(records(tmp_path / "db"))
    assert len(keys) == 10
    assert keys[3] == b"00000004_a/image 04.png"  # the place of a broken image stays empty, as Caffe leaves it


def test_check_size(pictures: Path, tmp_path: Path) -> None:
    (pictures / "b/image 11.png").write_bytes(cv2.imencode(".png", np.zeros((3, 4, 3), np.uint8))[1].tobytes())
    arguments = ("resize=none", "check_size=true", "shuffle=false")
    for _ in range(2):  # again, on what the first run left
        failed = make(pictures, tmp_path / "db", *arguments)
        assert failed.status == 1
        assert "image 11.png: expected (10, 14) (height, width) as the first image, got (3, 4)" in failed.err
    assert make(pictures, tmp_path / "free", "resize=none").status == 0
    assert "expected (3, 10, 14)" in detpipe("compute-mean", f"db={tmp_path / 'free'}", f"out={tmp_path / 'm.npy'}").err


def test_verify_finds_a_record_that_was_changed(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "db").status == 0
    key, record = next(iter(records(tmp_path / "db").items()))
    with LmdbWriter(tmp_path / "db") as writer:
        writer.put(key, record[:-10] + bytes([record[-10] ^ 1]) + record[-9:])
    outcome = make(pictures, tmp_path / "db", "verify=true")
    assert outcome.status == 1
    assert "run make-db with overwrite=true" in outcome.err


def test_a_killed_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    """Interrupted after the first records, which stand; the same command ends with the same records."""
    assert make(pictures, tmp_path / "whole").status == 0
    partial = manifest(tmp_path / "whole") | {"complete": False, "summary": {}}
    (tmp_path / "db").mkdir()
    (tmp_path / "db/manifest.json").write_text(json.dumps(partial))
    with LmdbWriter(tmp_path / "db") as writer:
        for key, record in list(records(tmp_path / "whole").items())[:5]:
            writer.put(key, record)
    again = make(pictures, tmp_path / "db")
    assert again.status == 0, again.err
    assert "5 of 12 images already done" in again.err
    assert records(tmp_path / "db") == records(tmp_path / "whole")
    assert manifest(tmp_path / "db")["summary"] == manifest(tmp_path / "whole")["summary"]


def test_a_signal_stops_it_cleanly(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))[1].tobytes()
    (root / "a.png").write_bytes(data)
    (root / "list.txt").write_text("a.png 0\n" * 20_000)
    arguments = ["make-db", f"list={root / 'list.txt'}", f"root={root}", f"out={tmp_path / 'db'}", "workers=0"]
    process = start(*arguments)
    while not (tmp_path / "db/data.mdb").exists() or (tmp_path / "db/data.mdb").stat().st_size < 1_000_000:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    assert "Traceback" not in err


def test_means(pictures: Path, tmp_path: Path) -> None:
    assert make(pictures, tmp_path / "db").status == 0
    outcome = detpipe("compute-mean", f"db={tmp_path / 'db'}", f"out={tmp_path / 'mean.npy'}")
    assert outcome.status == 0, outcome.err
    with ImagesReader(tmp_path / "db") as reader:
        wanted = np.mean([reader.planes(place) for place in range(COUNT)], axis=0)
    mean = read_mean(tmp_path / "mean.npy")
    np.testing.assert_allclose(mean, wanted, rtol=1e-6)
    assert f"blue {wanted[0].mean():.3f}, green {wanted[1].mean():.3f}, red {wanted[2].mean():.3f}" in outcome.out


def test_idx_files_become_grey_records_as_they_are(tmp_path: Path) -> None:
    pixels = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    (tmp_path / "images").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 3]) + pixels.tobytes())
    (tmp_path / "labels").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 3, 4]))
    words = ("make-db", f"idx_images={tmp_path / 'images'}", f"idx_labels={tmp_path / 'labels'}", "shuffle=false")
    assert detpipe(*words, f"out={tmp_path / 'db'}", "first=1", "count=3").status == 0
    with ImagesReader(tmp_path / "db") as reader:
        assert reader.labels.tolist() == [1, 2, 3]
        assert np.array_equal([reader.planes(place) for place in range(3)], pixels[1:4, None])
        assert [reader.key(place) for place in range(3)] == [
            b"00000000_00000001",
            b"00000001_00000002",
            b"00000002_00000003",
        ]
    found = manifest(tmp_path / "db")["settings"]
    assert (found["resize"], found["grey"]) == ("none", True)  # type: ignore[index]
    assert detpipe(*words, f"out={tmp_path / 'png'}", "encode=png", "resize=4x6").status == 0
    with ImagesReader(tmp_path / "png") as reader:
        assert reader.planes(0).shape == (1, 4, 6)
    # Other pixels in the same files are other images.
    (tmp_path / "images").write_bytes((tmp_path / "images").read_bytes()[:-8] + bytes(8))
    outcome = detpipe(*words, f"out={tmp_path / 'db'}", "first=1", "count=3")
    assert outcome.status == 1
    assert "images" in outcome.err
    outcome = detpipe(*words, f"out={tmp_path / 'more'}", "first=3", "count=3")
    assert "expected at least 6 images for first=3 and count=3, got 5" in outcome.err


def test_first_and_count_take_a_part_of_a_list(pictures: Path, tmp_path: Path) -> None:
    outcome = make(pictures, tmp_path / "db", f"list={pictures / 'list.txt'}", "first=5", "count=4", "shuffle=false")
    assert outcome.status == 0, outcome.err
    names = [key.decode().partition("_")[2] for key in records(tmp_path / "db")]
    assert names == ["a/image 05.png", "b/image 06.png", "b/image 07.png", "b/image 08.png"]


@pytest.mark.parametrize(
    ("command", "arguments", "wanted"),
    [
        ("make-db", ["root=."], "give out=DB"),
        ("make-db", ["out=db", "root=none"], "none: expected a folder of classes"),
        ("make-db", ["out=db", "list=none.txt"], "none.txt"),
        ("make-db", ["out=db", "list=empty.txt"], "got an empty list"),
        ("make-db", ["out=db", "list=hostile.txt"], "hostile.txt:1: expected a path"),
        ("make-db", ["out=db", "resize=big"], "resize: expected HEIGHTxWIDTH"),
        ("make-db", ["out=db", "classes=c.txt"], "expected list=FILE"),
        ("make-db", ["out=db", "idx_images=a"], "idx_images and idx_labels: expected both"),
        ("make-db", ["out=db", "idx_images=a", "idx_labels=b", "list=c"], "list and idx_images: expected one of them"),
        ("make-db", ["out=db", "idx_images=a", "idx_labels=b"], "a: expected an IDX file"),
        ("make-db", ["out=db", "first=-1"], "first: expected at least 0"),
        ("make-db", ["out=db", "count=0"], "count: expected at least 1"),
        ("compute-mean", ["db=db"], "give db=DB out=FILE.binaryproto"),
        ("compute-mean", ["db=none", "out=m.npy"], "none: expected an LMDB folder"),
        ("compute-mean", ["db=cut", "out=m.npy"], "copy or make it again"),
        ("compute-mean", ["db=void", "out=m.npy"], "got an empty database"),
        ("compute-mean", ["db=db", "out=m.jpg"], "ends in .binaryproto or .npy"),
    ],
)
def test_faults_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, arguments: list[str], wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    Path("hostile.txt").write_bytes(b"\x00\xff" * 100)
    with LmdbWriter(Path("void")):
        pass
    with LmdbWriter(Path("cut")) as writer:
        writer.put(b"a", bytes(100_000))
    data = Path("cut/data.mdb").read_bytes()
    Path("cut/data.mdb").write_bytes(data[: len(data) // 2])
    outcome = detpipe(command, *arguments)
    assert outcome.status == 1
    assert wanted in outcome.err
    assert outcome.err.startswith(f"detpipe {command}: ")
    assert outcome.err.count("\n") == 1


def one_picture(root: Path, pixels: np.ndarray) -> Path:
    """A folder with one class and one image."""
    (root / "a").mkdir(parents=True)
    (root / "a" / "one.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return root


@pytest.mark.parametrize(
    ("size", "settings", "reason"),
    [
        ((1, 70_000), ["resize=short:256"], "at most 100,000,000 pixels after resizing, got 17920000 x 256; .*resize"),
        (
            (1, 70_000),
            ["resize=none", "encode=jpg"],
            "sides of at most 65,500 pixels .* got 70000 x 1; .*resize",
        ),
        ((1, 300), ["resize=short:256", "encode=jpg"], "sides of at most 65,500 .* got 76800 x 256; .*encode=png"),
        ((20, 30), ["resize=none", "max_pixels=599"], "at most 599 pixels, got a huge one of 30 x 20; .*max_pixels"),
    ],
)
def test_extreme_shapes_are_bad_images(tmp_path: Path, size: tuple[int, int], settings: list[str], reason: str) -> None:
    root = one_picture(tmp_path / "root", np.zeros(size, np.uint8))
    outcome = detpipe("make-db", f"root={root}", f"out={tmp_path / 'db'}", "workers=0", *settings)
    assert outcome.status != 0
    assert re.search(rf"one\.png: expected .*{reason}", outcome.err), outcome.err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["resize=99999x99999"], "resize: expected an image of at most 100,000,000 pixels .* got 99999 x 99999"),
        (["resize=65501x1", "encode=jpg"], "resize: expected sides of at most 65,500 pixels for a JPEG"),
        (["resize=40000x40000", "max_pixels=2000000000"], "resize: expected at most 2,147,482,624 bytes"),
        (["max_pixels=0"], "max_pixels: expected at least 1, got 0"),
    ],
)
def test_extreme_settings_are_refused_before_work(tmp_path: Path, settings: list[str], reason: str) -> None:
    root = one_picture(tmp_path / "root", np.zeros((2, 3), np.uint8))
    outcome = detpipe("make-db", f"root={root}", f"out={tmp_path / 'db'}", "workers=0", *settings)
    assert outcome.status != 0
    assert re.search(reason, outcome.err), outcome.err
    assert not (tmp_path / "db").exists()


def test_the_mean_of_a_record_that_claims_a_huge_image(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        record = Datum(encoded=True, data=claiming("JPEG", 30_000, 30_000), label=0)
        writer.put(b"00000000_a", record.SerializeToString())
    outcome = detpipe("compute-mean", f"db={tmp_path / 'db'}", f"out={tmp_path / 'mean.npy'}")
    assert outcome.status != 0
    assert "a: expected an image file of at most 100,000,000 pixels, got a huge one of 30000 x 30000" in outcome.err


def test_a_mean_that_could_not_be_read_again_is_refused(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        png = cv2.imencode(".png", np.zeros((8_192, 8_193), np.uint8))[1].tobytes()
        writer.put(b"00000000_a", Datum(encoded=True, data=png, label=0).SerializeToString())
    outcome = detpipe("compute-mean", f"db={tmp_path / 'db'}", f"out={tmp_path / 'mean.npy'}")
    assert outcome.status != 0
    assert "expected images whose mean has at most 268,435,456 bytes, got (1, 8192, 8193)" in outcome.err
