"""Object storage for tests: fsspec's in the memory of this process, and an S3 server of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from detpipe.storage import remote_file, remote_listing


@contextmanager
def storage_in_memory(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fsspec's file system `memory://`. cache: the folder of the blocks and of copies of run folders."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setenv(remote_file.FOLDER, str(cache))
    forget()
    files = fsspec.filesystem("memory")
    try:
        yield files
    finally:
        files.store.clear()
        forget()


def forget() -> None:
    """Forget what this process knows of the storage, as after a minute, or in another process."""
    remote_listing._listings.clear()
    remote_listing._info.cache_clear()
    remote_listing._children.cache_clear()
    remote_file._block.cache_clear()


@contextmanager
def s3_server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's server on a loopback address, and s3fs's file system, which uses it as processes do that are started."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            remote_file.FOLDER: str(cache),
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # an earlier test had another server
        forget()
        yield s3fs.S3FileSystem()
    finally:
        moto.stop()
        s3fs.S3FileSystem.clear_instance_cache()
