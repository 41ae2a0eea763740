"""Fixtures that every folder of tests uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No example is timed: beside other work any of them can take long. On CI the examples are the same each time.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")


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
