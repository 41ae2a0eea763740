"""The command line: picks the command, leaves the rest of the line to Hydra, and turns errors into one sentence.

Hydra has no sub-commands, so each command is a Hydra application of its own: `detpipe COMMAND --help`.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from detpipe.commands.table import COMMANDS, FAMILIES, CommandRow, family_of, refuse_torchrun

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger(__name__)

STOPPED = 130
"""The exit status of what a signal stopped, as shells have it for Ctrl-C."""
READER_GONE = 141
"""The exit status where the program that reads the output has ended: as shells have it for SIGPIPE."""

USAGE = """\
usage: detpipe {command} [group=option] [key=value] ... [-m for sweeps] [--cfg job] [--help]

{commands}

Results go to stdout, the log to stderr. -q: warnings and errors only. -v: details, with time and module of each line.
`detpipe {command} --help` lists the settings of a command, `detpipe help SETTING` explains one, and `detpipe {command}
--cfg job` shows their values.
"""
A_START = "To start: detpipe run dataset.root=DIR run_dir=runs/mine\n"


def main() -> None:
    """The entry point of `detpipe`. Exits with 0 only where all was done."""
    try:
        try:
            dispatch(sys.argv[1:])
        finally:
            sys.stdout.flush()  # here, and not when Python ends, where the error could not be caught
    except BrokenPipeError:
        if not has_lost_reader():
            raise
        # Python flushes both once more at its end, and would complain.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(READER_GONE)


def has_lost_reader() -> bool:
    """Whether the program that read stdout or stderr has ended, as `head` does: no other pipe is meant."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            return True
        try:
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
        except (OSError, AttributeError):  # a stream in memory, or a system without poll
            continue
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            return True
    return False


def dispatch(arguments: list[str]) -> NoReturn:
    """Do what the words after `detpipe` say, and exit."""
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        show_usage("COMMAND", summary_of_all(), A_START, asked=bool(arguments))
    if arguments[0] == "--version":
        from detpipe.storage.manifest import package_version

        sys.stdout.write(f"detpipe {package_version()}\n")
        sys.exit(0)
    if arguments[0] == "help":
        sys.exit(show_help(arguments[1:]))
    if arguments[0] in ("-q", "--quiet", "-v", "--verbose") and arguments[1:]:
        dispatch([*arguments[1:], arguments[0]])
    name, rest = chosen("", summary_of_all(), arguments), arguments[1:]
    if name in FAMILIES:
        family = family_of(name)
        if not rest or rest[0] in ("-h", "--help"):
            show_usage(f"{name} COMMAND", {word: row.help for word, row in family.items()}, "", asked=bool(rest))
        name, rest = f"{name} {chosen(f'{name} ', family, rest)}", rest[1:]
    sys.argv = [sys.argv[0], *rest]
    from detpipe.progress import timed_command

    with timed_command():
        status = run_command(COMMANDS[name])
    sys.exit(status)


def show_help(words: list[str]) -> int:
    """Show what `detpipe help WORDS` asks for: a command, a family of them, or a setting. Returns the exit status."""
    name = " ".join(words)
    if not words or name in COMMANDS or name in FAMILIES:
        dispatch([*words, "--help"])

    def show() -> None:
        from detpipe.help import setting_help

        sys.stdout.write(setting_help(name))

    return guarded("help", show, debug=False)


def summary_of_all() -> dict[str, str]:
    """The first words of all commands, with a line each."""
    single = {name: row.help for name, row in COMMANDS.items() if " " not in name}
    return single | {name: f"{text}: see detpipe {name} --help" for name, text in FAMILIES.items()}


def show_usage(command: str, summary: Mapping[str, str], more: str, *, asked: bool) -> NoReturn:
    """Print the commands and exit: with status 0 where a person asked for it."""
    width = max(10, *map(len, summary))
    lines = "\n".join(f"  {name:<{width}} {text}" for name, text in summary.items())
    sys.stdout.write(USAGE.format(command=command, commands=lines) + more)
    sys.exit(0 if asked else 2)


def chosen(family: str, summary: Collection[str], arguments: Sequence[str]) -> str:
    """The command that the first word names. Exits with status 1, and what may be meant, where it names none."""
    name = arguments[0]
    if name not in summary:
        near = difflib.get_close_matches(name, summary, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        sys.exit(
            f"detpipe {family}".strip()
            + f": expected a command, got {name!r}{hint} The commands are {', '.join(summary)}"
        )
    return name


def complete(arguments: list[str]) -> NoReturn:
    """Answer a shell's question for completions, or write the script that makes it ask."""
    line = os.environ.get("COMP_LINE", "")
    *done, typed = [*line.split()[1:], ""] if line.endswith(" ") else line.split()[1:] or [""]
    asks_help = done[:1] == ["help"]
    path = done[asks_help:]
    name = next((one for one in (" ".join(path[:1]), " ".join(path[:2])) if one in COMMANDS), None)
    if arguments[1:2] in (["query=bash"], ["query=fish"]) and (asks_help or name is None):
        names: list[str] = [*summary_of_all(), *([] if asks_help else ["help"])]
        if path:
            names = [*family_of(path[0])] if len(path) == 1 else []
        sys.stdout.write("\n".join(one for one in names if one.startswith(typed)) + "\n")
        sys.exit(0)
    if name is not None and arguments[1:2] in (["query=bash"], ["query=fish"]):
        from detpipe.completion import completions

        words = done[len(name.split()) :]
        sys.stdout.write("\n".join(completions(COMMANDS[name], words, typed)) + "\n")
        sys.exit(0)
    sys.argv = [sys.argv[0], *arguments]  # Hydra writes the script that a shell reads
    sys.exit(run_command(COMMANDS["run"]))


def run_command(command: CommandRow) -> int:
    """Run one command's Hydra application; returns the exit status: 0 done, 1 failed, 130 stopped by a signal."""
    # hydra takes tenths of a second: `detpipe --help` doesn't wait for it.
    import hydra

    from detpipe.config import NewRunFolder, register
    from detpipe.console import set_verbosity
    from detpipe.remote_run import with_local_copies

    register()
    if {"-h", "--help"} & set(sys.argv[1:]):
        return guarded(command.name, lambda: show_command_help(command, sys.argv[1:]), debug=False)
    remote = with_local_copies(command, sys.argv[1:])
    sys.argv[1:] = remote.words
    notes: list[str] = []

    runs = not ONLY_SHOWN & set(remote.words)

    def read() -> None:
        if runs:
            remote.pull()
        notes.extend(read_words(command))

    if failed := guarded(command.name, read, debug=False):
        return failed
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here
    is_first_rank = not int(os.environ.get("RANK", "0"))
    if not is_first_rank:  # of torchrun's processes the first alone writes into the run folder
        sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=terminal"]
    quiet, verbose = taken_out(("-q", "--quiet")), taken_out(("-v", "--verbose"))
    debug = any(argument in ("debug=true", "debug=True", "debug=1") for argument in sys.argv)

    status = 0

    def application(config: DictConfig) -> None:
        nonlocal status
        set_verbosity(quiet=quiet, verbose=verbose)
        for note in notes:
            logger.info("%s", note)
        # Caught here, not around Hydra: it would print a line of its own, and end a sweep at its first failure.
        status = max(status, guarded(command.name, lambda: execute(command, config), debug=debug))
        if status == STOPPED:  # a sweep's other jobs as well
            sys.exit(status)

    def start() -> None:
        hydra.main(version_base="1.3", config_path="pkg://detpipe.conf", config_name=command.application)(application)()

    status = max(guarded(command.name, start, debug=debug), status)
    if status == 1:
        NewRunFolder.remove_if_empty()
    if runs and is_first_rank:
        status = max(guarded(command.name, remote.push, debug=debug), status)
    return status


def taken_out(options: Collection[str]) -> bool:
    """Take options out of the words of the command line; returns whether there was one."""
    before = len(sys.argv)
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in options]
    return len(sys.argv) < before


def show_command_help(command: CommandRow, words: Sequence[str]) -> None:
    """Show the settings of a command, as the words set them."""
    from detpipe.auto_dataset import with_format
    from detpipe.help import command_help
    from detpipe.overrides import hydra_words

    words, _ = with_format(words, lenient=True)
    sys.stdout.write(command_help(command, hydra_words(command, words)))


ONLY_SHOWN = {"--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}
"""Hydra's options with which a command does not run."""


def read_words(command: CommandRow) -> list[str]:
    """Replace the words of the command line by what Hydra reads right.

    Returns lines for the log. Raises ValueError for what nobody can read.
    """
    from detpipe.auto_dataset import with_format
    from detpipe.auto_experiment import with_recipe
    from detpipe.overrides import hydra_words

    if not command.torchrun:  # before the data set is read and Hydra makes the run folder
        refuse_torchrun(f"detpipe {command.name}")
    words, format_note = with_format(sys.argv[1:])
    words = hydra_words(command, words)
    only_shown = bool(ONLY_SHOWN & set(words))
    sys.argv[1:], recipe_note = with_recipe(command, words, lenient=only_shown)
    return [note for note in (format_note, recipe_note) if note]


def guarded(command: str, work: Callable[[], None], *, debug: bool) -> int:
    """Do the work; turn an error into one sentence on the terminal. Returns the exit status."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from detpipe.storage.interrupt import Interrupted

    try:
        work()
    except Interrupted as stopped:
        sys.stderr.write(f"detpipe {command}: stopped: {stopped}\n")
        return STOPPED
    except KeyboardInterrupt:
        sys.stderr.write(f"detpipe {command}: stopped; give the same command again to continue from what is on disk\n")
        return STOPPED
    except (HydraException, OmegaConfBaseException, ValueError, OSError, RuntimeError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and has_lost_reader():
            raise
        if debug:
            traceback.print_exc()
        of_hydra = isinstance(error, (HydraException, OmegaConfBaseException))
        text = configuration_error(error, command) if of_hydra else sentence_of(error)
        if isinstance(error, RecursionError):
            text = "the settings refer to themselves; look for a file or a ${...} that names itself"
        sys.stderr.write(f"detpipe {command}: {text}\n")
        return 1
    return 0


def sentence_of(error: Exception) -> str:
    """The text of an error. Those of the operating system begin with the file, as all others do."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is None:
        return str(error)
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: expected a file or folder, got none; check the path"
    return f"{error.filename}: {error.strerror}"


def execute(command: CommandRow, config: DictConfig) -> None:
    """Make the command's dataclass and run it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from detpipe.config import to_command
    from detpipe.network.allocator import keep_freed_memory

    if HydraConfig.get().mode == RunMode.MULTIRUN:  # each job of a sweep has a run folder of its own
        config.run_dir = f"{config.run_dir}/{HydraConfig.get().job.num}"
    logging.captureWarnings(True)
    keep_freed_memory()
    words = HydraConfig.get().overrides
    settings = to_command(config, [*words.hydra, *words.task])  # what it refuses needs no import of the work
    command.load_run()(settings)


def configuration_error(error: Exception, command: str) -> str:
    """An error of Hydra or OmegaConf in one line, with what to do about it."""
    from hydra.errors import OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key}: expected a value, got none; give {error.full_key}=..."
    unknown = re.match(r"Could not override '(.+?)'", str(error))
    if unknown and isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
        from detpipe.help import unknown_setting

        return unknown_setting(COMMANDS[command], unknown[1])
    parts = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    lines = [line.strip().rstrip(".") for part in parts for line in part.splitlines()]
    text = ". ".join(line for line in lines if line and not line.startswith(("full_key", "object_type", "To append")))
    if isinstance(error, OverrideParseException) and "=" in error.override:
        key = error.override.partition("=")[0]
        text = (
            f"{error.override}: expected SETTING=VALUE, got text that Hydra can't read: {text}. Put text with special "
            "characters in double quotes, and the whole in single quotes for the shell: "
            f"'{key}=\"...\"', or in a list '{key}=[\"...\"]'"
        )
    unknown_key = re.match(r"In '(.+?)/(.+?)': ConfigKeyError .*?Key '(.+?)' not in", text)
    if unknown_key and (command == "run" or unknown_key[1] != "experiment"):
        from detpipe.help import names_like

        group, option, key = unknown_key.groups()
        near = names_like(COMMANDS[command], key)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{group}={option}: expected settings of `detpipe {command}`, got the unknown name {key}{hint}"
    experiment = re.match(r"In 'experiment/(.+?)'", text)
    if experiment and command != "run":
        text = (
            f"experiment={experiment[1]}: expected an experiment for `detpipe {command}`, got one for another command, "
            f"probably `detpipe run`; give the settings one by one ({text})"
        )
    return f"{text}. See the settings with --cfg job"
