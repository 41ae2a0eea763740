"""An image a core: in order, by one thread each, and errors in their turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch

from detpipe.network.image_per_core import image_per_core

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, use_threads: Callable[[int], None]) -> int:
    """So many threads of torch's."""
    count: int = request.param
    use_threads(count)
    return count


def test_in_order_by_one_thread_each(threads: int) -> None:
    found = list(image_per_core(lambda one: (one, torch.get_num_threads()), range(20), CPU))
    assert found == [(one, 1) for one in range(20)]
    assert torch.get_num_threads() == threads
    assert list(image_per_core(lambda one: one, [], CPU)) == []


@pytest.mark.usefixtures("threads")
def test_an_error_comes_in_its_turn() -> None:
    """Of the items as of the function."""

    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("the sixth")

    found = image_per_core(lambda one: one, broken(), CPU)
    assert list(itertools.islice(found, 5)) == list(range(5))
    with pytest.raises(OSError, match="the sixth"):
        next(found)
    with pytest.raises(ZeroDivisionError):
        list(image_per_core(lambda one: 1 // one, [2, 1, 0], CPU))
