"""Batches made ahead: in order, no more than `depth`, with errors at their turn and the waiting counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from detpipe.solver.prefetch import Prefetcher, read_ahead


def test_in_order() -> None:
    batches = Prefetcher(lambda index: index * index, 3, 9, depth=2)
    assert list(batches) == [9, 16, 25, 36, 49, 64]
    batches.close()


@pytest.mark.parametrize("stop", [5, 4])
def test_nothing_to_make(stop: int) -> None:
    batches = Prefetcher(lambda index: index, 5, stop)
    assert list(batches) == []
    batches.close()


def test_no_more_than_depth_ahead() -> None:
    made: list[int] = []
    batches = Prefetcher(lambda index: made.append(index) or index, 0, 100, depth=3)
    stream = iter(batches)
    assert next(stream) == 0
    time.sleep(0.2)
    assert len(made) <= 5  # taken, three in the queue, one in the maker's hand
    batches.close()
    assert len(made) <= 5


def test_an_error_comes_at_its_batchs_turn() -> None:
    def make(index: int) -> int:
        if index == 2:
            raise ValueError("batch 2 is bad")
        return index

    batches = Prefetcher(make, 0, 5)
    stream = iter(batches)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="batch 2 is bad"):
        next(stream)
    batches.close()


def test_waiting_is_counted() -> None:
    slow = Prefetcher(lambda index: time.sleep(0.05), 0, 4)
    assert list(slow) == [None] * 4
    assert slow.waited > 0.1
    slow.close()
    fast = Prefetcher(lambda index: index, 0, 4)
    time.sleep(0.2)
    assert list(fast) == [0, 1, 2, 3]
    assert fast.waited < 0.1
    fast.close()


def test_close_ends_the_thread_and_may_be_repeated() -> None:
    before = threading.active_count()
    batches = Prefetcher(lambda index: index, 0, 1_000_000, depth=1)
    assert threading.active_count() == before + 1
    batches.close()
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_several_threads_give_the_same_order(threads: int) -> None:
    def make(index: int) -> int:
        time.sleep(0.002 * (index % 3))  # the later are done before the earlier
        return index

    batches = Prefetcher(make, 3, 60, depth=2, threads=threads)
    assert list(batches) == list(range(3, 60))
    batches.close()


def test_several_threads_make_several_at_a_time() -> None:
    together = threading.Barrier(3, timeout=5)
    batches = Prefetcher(lambda index: together.wait(), 0, 3, threads=3)
    assert len(list(batches)) == 3
    batches.close()


def test_of_several_errors_the_first_by_turn_is_raised() -> None:
    def make(index: int) -> int:
        if index >= 2:
            time.sleep(0.02 * (6 - index))
            raise ValueError(f"batch {index} is bad")
        return index

    before = threading.active_count()
    batches = Prefetcher(make, 0, 9, threads=4)
    stream = iter(batches)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="batch 2 is bad"):
        next(stream)
    batches.close()
    assert threading.active_count() == before


def test_a_stream_read_ahead_is_the_stream() -> None:
    assert list(read_ahead(iter(range(20)))) == list(range(20))
    assert list(read_ahead([])) == []
    assert list(read_ahead([None, None])) == [None, None]  # whatever the items are, they are no end


def test_an_error_of_a_stream_comes_at_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    stream = read_ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_a_stream_that_is_given_up_ends_its_thread() -> None:
    before = threading.active_count()
    stream = read_ahead(iter(range(1000)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
