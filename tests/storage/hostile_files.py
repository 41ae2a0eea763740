"""Small hostile and damaged files for a reader, and the limits that a reader must keep.

Each file has at most a few MB, most less than 10 kB. A reader returns something, or raises one error that names the
file: never another error, never much memory or time. The reader runs in a process of its own, whose memory is limited.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEMORY = 1 << 30
"""Bytes of address space that a reader may use in addition to what its process has at the start."""
SECONDS = 10
"""CPU time for one file. The limit is for a busy machine; all files take less than 2 s."""

SAME_FOR_ALL = {
    "empty": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n",
    "an HTML page": b"\xef\xbb\xbf\n <!DOCTYPE html><html><title>Sign in</title></html>",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "text": b"Not found\n" * 9,
    "gzip of zeros": gzip.compress(bytes(1 << 20), mtime=0),
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "a zip": b"PK\x03\x04" + bytes(64),
    "long varints": b"\x80" * 4096,
    "nested groups": b"\x0b" * 4096,
    "nested braces": b"{" * 4096 + b"}" * 4096,
    "quotes": b'\\"' * 4096,
    "nulls in text": b'name: "a\x00b"\x00',
    "surrogates": b"\xed\xa0\x80" * 99,
}
UNFINISHED = "the process ended before the last file"
SPECIAL = ("a folder", "a named pipe", "a socket", "a device")


class Reader(NamedTuple):
    """A function of a module, the name of its files, a file that it reads, and its own hostile files by name."""

    read: Callable[[Path], object]
    name: str
    sound: bytes
    own: Mapping[str, bytes]


def damaged(sound: bytes) -> Iterator[tuple[str, bytes]]:
    """The file cut off at 12 places, and with 40 bytes changed, always the same."""
    for share in np.linspace(0.02, 0.99, 12):
        yield f"cut at {share:.2f}", sound[: int(len(sound) * share)]
    generator = np.random.default_rng(len(sound))
    # The start has what describes the rest: half of the changes are there.
    places = np.concatenate([generator.integers(0, min(len(sound), 64), 20), generator.integers(0, len(sound), 20)])
    for place, value in zip(places, generator.integers(0, 256, 40), strict=True):
        yield f"byte {place} is {value}", sound[:place] + bytes([value]) + sound[place + 1 :]


def corpus(sound: bytes, own: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files for a reader by name: the same for all, the damaged ones of a sound file, and the reader's own."""
    return {**SAME_FOR_ALL, **dict(damaged(sound)), **own}


def faults_of(readers: Mapping[str, Reader], folder: Path) -> dict[str, list[str]]:
    """What each reader did wrong with its files, tried one after another in one process. No faults give empty lists."""
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.SimpleQueue[tuple[str, str]] = context.SimpleQueue()
    process = context.Process(target=_try_all, args=(dict(readers), folder, found))
    process.start()
    faults = {name: [f"{UNFINISHED} was read"] for name in readers}
    while process.is_alive() or not found.empty():
        if found.empty():
            time.sleep(0.01)
            continue
        name, text = found.get()
        faults[name] = [text, *faults[name]] if text else faults[name][:-1]
    process.join()
    return faults


def _try_all(readers: dict[str, Reader], folder: Path, found: multiprocessing.SimpleQueue[tuple[str, str]]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, reader in readers.items():
        path = folder / reader.name
        for kind, content in corpus(reader.sound, reader.own).items():
            path.write_bytes(content)
            _report(found, name, kind, _fault(reader.read, path, kind))
            path.unlink()
        for kind in SPECIAL:
            with Special(path, kind):
                _report(found, name, kind, _fault(reader.read, path, kind))
        found.put((name, ""))


def _report(found: multiprocessing.SimpleQueue[tuple[str, str]], name: str, kind: str, fault: str) -> None:
    if fault:
        found.put((name, f"{kind}: {fault}"))


def _fault(read: Callable[[Path], object], path: Path, kind: str) -> str:
    """What the reader did wrong with the file; empty if nothing."""
    begun = time.process_time()
    fault = ""
    try:
        read(path)
        if kind in (*SPECIAL, "empty", "a Git LFS pointer", "an HTML page"):
            fault = "was read"
    except (ValueError, OSError) as error:
        text = str(error)
        if path.name not in text and str(path.parent) not in text:
            fault = f"the error does not name the file: {text[:200]}"
        elif len(text) > 1000 or "\n" in text.strip():
            fault = f"the error is not one sentence: {text[:200]!r}"
        elif kind in (*SPECIAL, "an HTML page", "a Git LFS pointer") and kind.removeprefix("an ") not in text:
            fault = f"the error does not name {kind}: {text[:200]}"
    except BaseException as error:
        fault = f"{type(error).__name__}: {str(error)[:200]}"
    if time.process_time() - begun > SECONDS:
        fault = f"took {time.process_time() - begun:.1f} s"
    return fault


class Special:
    """A path that is not a regular file, for the block."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self.socket: socket.socket | None = None

    def __enter__(self) -> None:
        if self.kind == "a folder":
            self.path.mkdir()
        elif self.kind == "a named pipe":
            os.mkfifo(self.path)
        elif self.kind == "a device":
            self.path.symlink_to("/dev/zero")
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            here = Path.cwd()
            os.chdir(self.path.parent)  # a socket's path has at most 107 bytes
            self.socket.bind(self.path.name)
            os.chdir(here)

    def __exit__(self, *_: object) -> None:
        if self.socket is not None:
            self.socket.close()
        if self.path.is_dir():
            self.path.rmdir()
        else:
            self.path.unlink()
