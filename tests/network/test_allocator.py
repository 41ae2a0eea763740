"""keep_freed_memory: it works where glibc is, and says so where it isn't."""

from __future__ import annotations

import sys

import pytest
import torch

from detpipe.network.allocator import _mkl_free_buffers, free_mkl_buffers, keep_freed_memory


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert not keep_freed_memory()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this PyTorch has no MKL")
def test_mkl_has_its_function_for_a_fork() -> None:
    """`test_a_forked_process_detects_the_same` waited forever in one of ten runs without it."""
    assert "mkl" in getattr(_mkl_free_buffers(), "__name__", "")
    free_mkl_buffers()


def test_a_build_without_mkl_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/nowhere/__init__.py")
    _mkl_free_buffers.cache_clear()
    free_mkl_buffers()
    _mkl_free_buffers.cache_clear()
