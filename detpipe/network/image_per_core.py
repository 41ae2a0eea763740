"""Parallel inference on a CPU, one image per core. It is faster than threads inside one pass, which wait per layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from detpipe.parallel import ordered_map

Item = TypeVar("Item")
Result = TypeVar("Result")


def image_per_core(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """Yield function(item) for each item, in order.

    On a CPU, as many threads as torch has run in parallel, each on one core; so results do not depend on the number
    of threads. On other devices items are processed one after the other. At most four items per thread are in
    progress. An error of `items` or `function` is raised when its item is due. No items: yields nothing.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(function, items)
        return

    def by_one_core(item: Item | _Error) -> Result:
        if isinstance(item, _Error):
            raise item.error
        torch.set_num_threads(1)
        return function(item)

    try:
        yield from ordered_map(by_one_core, _with_error(items), workers=threads, max_threads=threads)
    finally:
        torch.set_num_threads(threads)  # the number that any thread sets last holds for the whole process


class _Error:
    """The exception that ended a stream."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _with_error(stream: Iterable[Item]) -> Iterator[Item | _Error]:
    """The items, then the exception that ended them, if any: results of the items before it still come first."""
    try:
        yield from stream
    except Exception as error:
        yield _Error(error)
