"""Networks that run once on each image, on a CPU: an image a core, since threads within one wait at every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from detpipe.parallel import ordered_map

Item = TypeVar("Item")
Result = TypeVar("Result")


def image_a_core(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """function(item) for each item, in order: on a CPU by as many threads as torch has, each with one core.

    So what comes out doesn't depend on their number. Elsewhere one after the other. At most four items a thread are
    under way. An error of `items` or of `function` is raised at its item's turn. No items: yields nothing.
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
        yield from ordered_map(by_one_core, in_turn(items), workers=threads, max_threads=threads)
    finally:
        torch.set_num_threads(threads)  # torch keeps the last number that any thread asked for


class _Error:
    """What ended a stream."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def in_turn(stream: Iterable[Item]) -> Iterator[Item | _Error]:
    """The items, and last the error that ended them, if any: so that what came before it is answered first."""
    try:
        yield from stream
    except Exception as error:
        yield _Error(error)
