"""Writing weights, means, snapshots and logs on a full disk: an OSError, and the old files stay."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, NetParameter
from detpipe.backbone.caffe.caffemodel import read_caffemodel, write_caffemodel
from detpipe.backbone.settings import BackboneConfig
from detpipe.network.network_folder import save_network
from detpipe.solver.snapshot import save_snapshot
from detpipe.solver.training_log import TrainingLog
from detpipe.storage.mean_file import write_mean

LIMIT = 1 << 20
VALUES = 1 << 19
"""Numbers of a tensor of 2 MiB, which is more than the limit."""


def caffemodel(folder: Path, values: int) -> None:
    layer = LayerParameter(name="c", type="InnerProduct")
    write_caffemodel(folder / "w.caffemodel", NetParameter(layer=[layer]), {"c": [np.zeros(values, np.float32)]})


def mean(folder: Path, values: int) -> None:
    write_mean(folder / "m.binaryproto", np.zeros((1, 1, values), np.float32))


def mean_array(folder: Path, values: int) -> None:
    write_mean(folder / "m.npy", np.zeros((1, 1, values), np.float32))


def network(folder: Path, values: int) -> None:
    save_network(folder, nn.Linear(values, 1), BackboneConfig())


def snapshot(folder: Path, values: int) -> None:
    save_snapshot(folder, 5, {"iteration": 5, "model": {"w": torch.zeros(values)}}, keep=1)


def csv_of_log(folder: Path, values: int) -> None:
    log = TrainingLog(folder, resume_at=0)
    log.append({"iteration": 1, "loss": "1" * values if values < VALUES else "1" * 2 * values})
    log.write_csv()


WRITERS: dict[str, Callable[[Path, int], None]] = {
    one.__name__: one for one in (caffemodel, mean, mean_array, network, snapshot, csv_of_log)
}


def write_all(folder: Path, found: multiprocessing.SimpleQueue[tuple[str, str]]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file too large is an error of the write
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    for name, write in WRITERS.items():
        try:
            write(folder / name, VALUES)
            found.put((name, "written"))
        except OSError as error:
            found.put((name, str(error)))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, dict[str, bytes]]]:
    """The folder, the error of each writer, and the files before."""
    folder = tmp_path_factory.mktemp("full")
    for name, write in WRITERS.items():
        (folder / name).mkdir()
        write(folder / name, 3)
    before = {name: contents(folder / name) for name in WRITERS}
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.SimpleQueue[tuple[str, str]] = context.SimpleQueue()
    process = context.Process(target=write_all, args=(folder, found))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder, dict(found.get() for _ in WRITERS), before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_and_the_old_files_stay(
    name: str, results: tuple[Path, dict[str, str], dict[str, dict[str, bytes]]]
) -> None:
    folder, errors, before = results
    assert "too large" in errors[name] or "make room" in errors[name]
    assert "\n" not in errors[name]
    after = contents(folder / name)
    if name == "csv_of_log":  # a line that is cut off is passed over when the log is read
        after.pop("log.jsonl")
        before[name].pop("log.jsonl")
    assert after == before[name]


def test_a_sound_file_stays(results: tuple[Path, dict[str, str], dict[str, dict[str, bytes]]]) -> None:
    assert read_caffemodel(results[0] / "caffemodel" / "w.caffemodel")["c"][0].values.tolist() == [0, 0, 0]
