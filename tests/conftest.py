"""Fixtures that every folder of tests uses."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import lmdb
import pytest
from hypothesis import settings

from tests import drawn
from tests.command_line import detpipe
from tests.kept_compositions import kept_compositions

# No example is timed: beside other work any of them can take long. On CI the examples are the same each time.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")


LONG = (
    "backbone/caffe/test_caffemodel.py",
    "backbone/caffe/test_load.py",
    "backbone/caffe/test_presets.py",
    "backbone/test_efficientnet_lite.py",
    "backbone/test_torchvision_models.py",
    "backbone/test_weights.py",
    "browser",
    "classify/export",
    "classify/fast_rcnn/test_train.py",
    "classify/multibox_fast_rcnn",
    "commands",
    "datasets/test_demo.py",
    "fuzz",
    "heads/multibox",
    "heads/stored/test_feature_heads.py",
    "inspect",
    "proposals/files/test_hostile_files.py",
    "proposals/selective_search/test_near_duplicates.py",
    "report",
    "runs",
    "solver/test_initial_weights.py",
    "solver/test_solver.py",
    "storage/test_reader_process.py",
    "storage/test_torch_file.py",
    "test_cli.py",
    "test_conf.py",
    "test_docs.py",
    "test_help.py",
    "test_jit.py",
    "test_package.py",
    "test_parallel.py",
    "test_serve_page.py",
    "test_tutorial.py",
)
"""Folders and files whose tests run commands, start processes, train networks or draw pages. `make test-quick` leaves
them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of LONG as `long`, and put them first: then no process waits for a long file of another.

    `make test` keeps this order; by itself pytest-xdist begins with the files of the most tests.
    """
    long = {Path(__file__).parent / part for part in LONG}
    for item in items:
        if not long.isdisjoint((item.path, *item.path.parents)):
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector off the objects of collection: they stay, and each of its passes visits them all.

    Its full passes visit all that was imported later, and took a twentieth of the time: they are rarer than by default.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(700, 10, 300)
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _do_not_wait_for_the_disk() -> Iterator[None]:
    """What is written is not flushed to the disk. It matters after a power failure only, and tests kill processes."""
    with (
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch.object(lmdb, "open", functools.partial(lmdb.open, sync=False)),
    ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _compose_once() -> Iterator[None]:
    """Hydra composes what the same words choose once."""
    with kept_compositions():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and Caffe files; a test that needs it is skipped where it is not."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DETPIPE_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} (set DETPIPE_DATA)")
    return folder


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads, for this test alone."""
    import torch  # which most tests do without

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# The drawn data set, and finished runs of the whole flow on it.


@pytest.fixture(scope="session")
def voc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The VOC folder. Read only: copy what is to be spoilt."""
    return drawn.write_voc(tmp_path_factory.mktemp("voc") / "drawn")


@pytest.fixture(scope="session")
def finished_run(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("run") / "finished"
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run"), f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="session")
def fast_run(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of Fast R-CNN. Read only: copy what is to be changed."""
    folder = tmp_path_factory.mktemp("fast") / "run"
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *drawn.FAST_RCNN), f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return drawn.copy(finished_run, tmp_path / "run")


@pytest.fixture(scope="session")
def proposed(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs oracle and gaussian, proposals alone. Read only: copy what is to be changed."""
    from detpipe.datasets.voc import VocSource
    from detpipe.proposals.baselines import Gaussian, GroundTruthBoxes
    from tests.commands.proposals.proposed import propose_into

    folder = tmp_path_factory.mktemp("runs")
    propose_into(folder / "oracle", VocSource(root=str(voc_root)), GroundTruthBoxes())
    propose_into(folder / "gaussian", VocSource(root=str(voc_root)), Gaussian(max_proposals=60))
    return folder


@pytest.fixture
def proposed_copy(proposed: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return drawn.copy(proposed, tmp_path / "runs")
