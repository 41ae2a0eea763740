"""`detpipe` as a person calls it: in this process, which is quick, or in one of its own, which can be killed."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra._internal.hydra import Hydra

from detpipe import cli


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, and the texts on stdout and stderr."""

    status: int
    out: str
    err: str


def detpipe(*arguments: str) -> Outcome:
    """Run a command in this process and leave no trace of it in logging, sys.argv or the environment."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["detpipe", *arguments]),
        mock.patch.dict(os.environ),
        # Hydra composes all settings one time more only to read hydra.mode, which is null unless a user's file sets it.
        mock.patch.object(Hydra, "get_mode", return_value=None),
        _own_logging(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            status: object = 0
        except SystemExit as stopped:
            status = stopped.code
            if isinstance(status, str):  # what the interpreter does with such an exit
                err.write(status + "\n")
                status = 1
    assert isinstance(status, int)
    return Outcome(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Hydra gives the root logger handlers of its own, and the command line takes warnings into the log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("detpipe").setLevel(logging.NOTSET)


def start(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """The command in a process of its own, its output in pipes.

    It computes with as many threads as this process does: the last bits of a sum depend on them.
    """
    import torch  # here, because the command line itself must start without it

    threads = str(torch.get_num_threads())
    return subprocess.Popen(
        [sys.executable, "-m", "detpipe", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": threads, **(environment or {})},
    )


def process(*arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Outcome:
    """The command in a process of its own, waited for."""
    started = start(*arguments, cwd=cwd, environment=environment)
    out, err = started.communicate(timeout=120)
    return Outcome(started.returncode, out, err)
