"""The command line: picks the command, leaves the rest of the line to Hydra, and turns errors into one sentence.

Hydra has no sub-commands, so each command is a Hydra application of its own: `detpipe COMMAND --help`.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

SUMMARY = {
    "run": "the whole flow: proposals, crops, classifier, detections, metrics and the page",
    "check": "list the faults of a data set",
    "propose": "where might things be: proposals of every image, and their recall",
    "crop": "what a classifier learns from: labelled regions in a database",
    "train-cls": "what are they: fine-tune a classifier on the crops",
    "detect": "classify the proposals of the test images, or of any image or folder",
    "eval": "average precisions of detections, ours or anybody's, and the page",
}

STOPPED = 130
"""The exit status of what a signal stopped, as shells have it for Ctrl-C."""

USAGE = """\
usage: detpipe COMMAND [group=option] [key=value] ... [-m for sweeps] [--cfg job] [--help]

{commands}

Each command shows its settings with `detpipe COMMAND --cfg job` and explains itself with --help.
A start: detpipe run dataset=voc dataset.root=DIR run_dir=runs/mine
"""


def main() -> None:
    """The entry point of `detpipe`. Exits with 0 only where all was done."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10} {text}" for name, text in SUMMARY.items())
        sys.stdout.write(USAGE.format(commands=lines))
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from detpipe.storage.manifest import package_version

        sys.stdout.write(f"detpipe {package_version()}\n")
        sys.exit(0)
    name = arguments[0]
    if name not in SUMMARY:
        near = difflib.get_close_matches(name, SUMMARY, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sys.exit(f"detpipe: no command {name!r}{hint} There are: {', '.join(SUMMARY)}")
    sys.argv = [f"{sys.argv[0]}", *arguments[1:]]
    sys.exit(run_command(name))


def complete(arguments: list[str]) -> None:
    """Answer a shell's question for completions: of the command itself, or by Hydra's completion of that command."""
    words = os.environ.get("COMP_LINE", "").split()
    if len(words) > 1 and words[1] in SUMMARY:
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {words[1]}", "", 1)
        sys.argv = [sys.argv[0], *arguments]
        sys.exit(run_command(words[1]))
    if arguments[1:2] == ["query=bash"]:
        typed = words[1] if len(words) > 1 else ""
        sys.stdout.write("\n".join(name for name in SUMMARY if name.startswith(typed)) + "\n")
        sys.exit(0)
    sys.argv = [sys.argv[0], *arguments]
    sys.exit(run_command("run"))


def run_command(name: str) -> int:
    """Run one command's Hydra application; returns the exit status: 0 done, 1 failed, 130 stopped by a signal."""
    # hydra and torch take seconds: `detpipe --help` doesn't wait for them.
    import hydra

    from detpipe.config import register

    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here
    debug = any(argument in ("debug=true", "debug=True", "debug=1") for argument in sys.argv)

    status = 0

    def application(config: DictConfig) -> None:
        nonlocal status
        # Caught here, not around Hydra: it would print a line of its own, and end a sweep at its first failure.
        status = max(status, guarded(name, lambda: execute(name, config), debug=debug))
        if status == STOPPED:  # a sweep's other jobs as well
            sys.exit(status)

    start = hydra.main(version_base="1.3", config_path="pkg://detpipe.conf", config_name=name)(application)
    return max(guarded(name, start, debug=debug), status)


def guarded(name: str, work: Callable[[], None], *, debug: bool) -> int:
    """Do the work; turn an error into one sentence on the terminal. Returns the exit status."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from detpipe.solver.interrupt import Interrupted

    try:
        work()
    except Interrupted as stopped:
        sys.stderr.write(f"detpipe {name}: stopped: {stopped}\n")
        return STOPPED
    except KeyboardInterrupt:
        sys.stderr.write(f"detpipe {name}: stopped at once; the same command goes on from what is on disk\n")
        return STOPPED
    except (HydraException, OmegaConfBaseException, ValueError, OSError, RuntimeError, ImportError) as error:
        if debug:
            traceback.print_exc()
        of_hydra = isinstance(error, (HydraException, OmegaConfBaseException))
        sys.stderr.write(f"detpipe {name}: {configuration_error(error) if of_hydra else error}\n")
        return 1
    return 0


def execute(name: str, config: DictConfig) -> None:
    """Make the command's dataclass and run it, log lines above the progress bars."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from tqdm.contrib.logging import logging_redirect_tqdm

    from detpipe.classify.allocator import keep_freed_memory
    from detpipe.commands import check, crop, detect, evaluate, propose, run, train_cls
    from detpipe.config import to_command

    functions: dict[str, Callable[[Any], None]] = {
        "run": run.run,
        "propose": propose.run,
        "crop": crop.run,
        "train-cls": train_cls.run,
        "detect": detect.run,
        "eval": evaluate.run,
        "check": check.run,
    }
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # each job of a sweep has a run folder of its own
        config.run_dir = f"{config.run_dir}/{HydraConfig.get().job.num}"
    logging.captureWarnings(True)
    keep_freed_memory()
    with logging_redirect_tqdm():
        functions[name](to_command(config))


def configuration_error(error: Exception) -> str:
    """Hydra's message on one line."""
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key}: wanted a value, got none; give {error.full_key}=..."
    parts = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    lines = [line.strip() for part in parts for line in part.splitlines()]
    text = ". ".join(line for line in lines if line and not line.startswith(("full_key", "object_type", "To append")))
    return f"{text}. See the settings with --cfg job"
