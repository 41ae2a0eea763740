"""The command line: picks the command, leaves the rest of the line to Hydra, and turns errors into one sentence.

Hydra has no sub-commands, so each command is a Hydra application of its own: `detpipe COMMAND --help`.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from omegaconf import DictConfig

SUMMARY = {
    "run": "the whole flow: proposals, crops, classifier, detections, metrics and the page",
    "check": "list the faults of a data set",
    "propose": "where might things be: proposals of every image, and their recall",
    "train-multibox": "a network learns where things might be: the proposer of proposals=multibox",
    "crop": "what a classifier learns from: labelled regions in a database",
    "features": "what a frozen network sees in each region, computed once: any head trains on it in seconds",
    "train-cls": "what are they: fine-tune a classifier on the crops, or on a database of images (db.train=DB)",
    "detect": "classify the proposals of the test images, or of any image or folder",
    "eval": "average precisions of detections, or a classifier on a database of images (db=DB), and the page",
    "compress": "a Fast R-CNN with thinner layers, by truncated SVD, in a run folder of its own (run_dir=DIR out=DIR)",
    "export": "the network of a run as ONNX or torch.export's file, and how to use it (run_dir=DIR out=DIR)",
    "curve": "mAP, recall and seconds against the number of proposals, and the fewest that do",
    "make-db": "a list of images, or a folder a class, as a database that Caffe reads, too",
    "compute-mean": "the mean image of a database",
    "classes": "add a class to a detector on stored features, or remove one: see detpipe classes --help",
    "proposals": "look into, check, join and hand on proposals: see detpipe proposals --help",
    "inspect": "look inside a training, a database, a network: see detpipe inspect --help",
}

FAMILIES = {
    "classes": {
        "add": "a class that the detector doesn't know, trained from the stored features in seconds",
        "remove": "a class less, the others as they are",
    },
    "proposals": {
        "info": "what a proposals.lmdb holds and what made it",
        "verify": "is it whole, and are its images those that are there now",
        "recall": "how many objects do they find: curves and tables, method beside method",
        "show": "the boxes on the images",
        "export": "as a file of COCO, Detectron2, MMDetection or R-CNN",
        "import": "boxes that another program made, as a proposals.lmdb",
        "fuse": "several joined into one that knows its sources",
        "merge": "shards, made on parts of a data set, as one",
    },
    "inspect": {
        "run": "how a training went, or goes: curves, speed, snapshots",
        "db": "what a database of images holds, every record read: labels, pictures, mean, faults",
        "weights": "the tensors of any file of weights: sizes, filters, change against another file",
        "activations": "how large weights, activations and gradients are, layer by layer; feature maps",
        "time": "time and memory of each layer, forward and backward",
    },
}
"""Commands of commands: `detpipe proposals info`. Each is an application named proposals-info."""

STOPPED = 130
"""The exit status of what a signal stopped, as shells have it for Ctrl-C."""

USAGE = """\
usage: detpipe {command} [group=option] [key=value] ... [-m for sweeps] [--cfg job] [--help]

{commands}

Each command shows its settings with `detpipe {command} --cfg job` and explains itself with --help.
"""
A_START = "A start: detpipe run dataset=voc dataset.root=DIR run_dir=runs/mine\n"


def main() -> None:
    """The entry point of `detpipe`. Exits with 0 only where all was done."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        show_usage("COMMAND", SUMMARY, A_START, asked=bool(arguments))
    if arguments[0] == "--version":
        from detpipe.storage.manifest import package_version

        sys.stdout.write(f"detpipe {package_version()}\n")
        sys.exit(0)
    name, rest = chosen("", SUMMARY, arguments), arguments[1:]
    if name in FAMILIES:
        if not rest or rest[0] in ("-h", "--help"):
            show_usage(f"{name} COMMAND", FAMILIES[name], "", asked=bool(rest))
        name, rest = f"{name}-{chosen(f'{name} ', FAMILIES[name], rest)}", rest[1:]
    sys.argv = [f"{sys.argv[0]}", *rest]
    sys.exit(run_command(name))


def show_usage(command: str, summary: Mapping[str, str], more: str, *, asked: bool) -> NoReturn:
    """Print the commands and exit: with status 0 where a person asked for it."""
    width = max(10, *map(len, summary))
    lines = "\n".join(f"  {name:<{width}} {text}" for name, text in summary.items())
    sys.stdout.write(USAGE.format(command=command, commands=lines) + more)
    sys.exit(0 if asked else 2)


def chosen(family: str, summary: Mapping[str, str], arguments: Sequence[str]) -> str:
    """The command that the first word names. Exits with status 1, and what may be meant, where it names none."""
    name = arguments[0]
    if name not in summary:
        near = difflib.get_close_matches(name, summary, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sys.exit(f"detpipe {family}".strip() + f": no command {name!r}{hint} There are: {', '.join(summary)}")
    return name


def complete(arguments: list[str]) -> None:
    """Answer a shell's question for completions: of the command itself, or by Hydra's completion of that command."""
    words = os.environ.get("COMP_LINE", "").split()[1:]
    summary, path = SUMMARY, words[:1]
    if path and path[0] in FAMILIES:
        summary, path = FAMILIES[path[0]], words[:2]
        words = words[1:]
    if words and words[0] in summary:
        # Hydra knows the application only, not the words that chose it.
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(f" {' '.join(path)}", "", 1)
        sys.argv = [sys.argv[0], *arguments]
        sys.exit(run_command("-".join(path)))
    if arguments[1:2] == ["query=bash"]:
        typed = words[0] if words else ""
        sys.stdout.write("\n".join(name for name in summary if name.startswith(typed)) + "\n")
        sys.exit(0)
    sys.argv = [sys.argv[0], *arguments]
    sys.exit(run_command("run"))


def spoken(name: str) -> str:
    """An application's name as a person types it: proposals-info is `proposals info`, train-cls stays."""
    family, _, command = name.partition("-")
    return f"{family} {command}" if family in FAMILIES else name


def run_command(name: str) -> int:
    """Run one command's Hydra application; returns the exit status: 0 done, 1 failed, 130 stopped by a signal."""
    # hydra and torch take seconds: `detpipe --help` doesn't wait for them.
    import hydra

    from detpipe.config import register

    register()
    sys.argv[1:] = as_hydra_reads(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to here
    if int(os.environ.get("RANK", "0")):  # of torchrun's processes the first alone writes into the run folder
        sys.argv += ["hydra.output_subdir=null", "hydra/job_logging=terminal"]
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


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """The words of a command, the values in quotes that Hydra could not read without, as that of `dataset.root=Bücher`.

    A path has any letters, while Hydra's grammar knows a few signs. What it can read stays as it is.
    """
    # With commas, a sweep's word is a list of values: as one text it would be another sweep than was meant.
    sweeps = "-m" in words or "--multirun" in words
    return [word if sweeps and "," in word else quoted(word) for word in words]


def quoted(word: str) -> str:
    """`key=value` with the value in double quotes, if Hydra can read it so and not as it is; any other word as it came.

    A value that begins as a list, a mapping, a quoted text or an interpolation stays, too: it is a mistake in one.
    """
    key, _, value = word.partition("=")
    is_setting = "=" in word[1:] and not word.startswith("-")
    if not is_setting or value.lstrip().startswith(("[", "{", '"', "'", "$")) or is_readable(word):
        return word
    # In Hydra's quotes a backslash is itself, but before a quote it is doubled.
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    with_quotes = f'{key}="{escaped}"'
    return with_quotes if is_readable(with_quotes) else word


def is_readable(word: str) -> bool:
    """Whether a word is an override in Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def guarded(name: str, work: Callable[[], None], *, debug: bool) -> int:
    """Do the work; turn an error into one sentence on the terminal. Returns the exit status."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from detpipe.solver.interrupt import Interrupted

    command = spoken(name)
    try:
        work()
    except Interrupted as stopped:
        sys.stderr.write(f"detpipe {command}: stopped: {stopped}\n")
        return STOPPED
    except KeyboardInterrupt:
        sys.stderr.write(f"detpipe {command}: stopped at once; the same command goes on from what is on disk\n")
        return STOPPED
    except (HydraException, OmegaConfBaseException, ValueError, OSError, RuntimeError, ImportError) as error:
        if debug:
            traceback.print_exc()
        of_hydra = isinstance(error, (HydraException, OmegaConfBaseException))
        sys.stderr.write(f"detpipe {command}: {configuration_error(error, command) if of_hydra else error}\n")
        return 1
    return 0


def execute(name: str, config: DictConfig) -> None:
    """Make the command's dataclass and run it, log lines above the progress bars."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from tqdm.contrib.logging import logging_redirect_tqdm

    from detpipe.commands import (
        check,
        classes_add,
        classes_remove,
        compress,
        compute_mean,
        crop,
        curve,
        detect,
        evaluate_images,
        export,
        features,
        inspect_activations,
        inspect_db,
        inspect_run,
        inspect_time,
        inspect_weights,
        make_db,
        proposals_export,
        proposals_fuse,
        proposals_import,
        proposals_info,
        proposals_merge,
        proposals_recall,
        proposals_show,
        proposals_verify,
        propose,
        run,
        train_images,
        train_multibox,
    )
    from detpipe.config import to_command
    from detpipe.network.allocator import keep_freed_memory

    functions: dict[str, Callable[[Any], None]] = {
        "run": run.run,
        "propose": propose.run,
        "train-multibox": train_multibox.run,
        "crop": crop.run,
        "features": features.run,
        "train-cls": train_images.run,
        "detect": detect.run,
        "eval": evaluate_images.run,
        "curve": curve.run,
        "check": check.run,
        "compress": compress.run,
        "export": export.run,
        "make-db": make_db.run,
        "compute-mean": compute_mean.run,
        "classes-add": classes_add.run,
        "classes-remove": classes_remove.run,
        "proposals-info": proposals_info.run,
        "proposals-verify": proposals_verify.run,
        "proposals-recall": proposals_recall.run,
        "proposals-show": proposals_show.run,
        "proposals-export": proposals_export.run,
        "proposals-import": proposals_import.run,
        "proposals-fuse": proposals_fuse.run,
        "proposals-merge": proposals_merge.run,
        "inspect-run": inspect_run.run,
        "inspect-db": inspect_db.run,
        "inspect-weights": inspect_weights.run,
        "inspect-activations": inspect_activations.run,
        "inspect-time": inspect_time.run,
    }
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # each job of a sweep has a run folder of its own
        config.run_dir = f"{config.run_dir}/{HydraConfig.get().job.num}"
    logging.captureWarnings(True)
    keep_freed_memory()
    with logging_redirect_tqdm():
        functions[name](to_command(config, HydraConfig.get().overrides.task))


def configuration_error(error: Exception, command: str) -> str:
    """Hydra's message on one line; of a value that it can't read, how to quote it; of an experiment, whose it is."""
    from hydra.errors import OverrideParseException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key}: wanted a value, got none; give {error.full_key}=..."
    parts = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    lines = [line.strip().rstrip(".") for part in parts for line in part.splitlines()]
    text = ". ".join(line for line in lines if line and not line.startswith(("full_key", "object_type", "To append")))
    if isinstance(error, OverrideParseException) and "=" in error.override:
        key = error.override.partition("=")[0]
        text = (
            f"{error.override}: wanted key=value in Hydra's grammar, got another: {text}. Put a text with odd signs in "
            f"double quotes, and all in single quotes for the shell: '{key}=\"...\"', or '{key}=[\"...\"]' in a list"
        )
    experiment = re.match(r"In 'experiment/(.+?)'", text)
    if experiment and command != "run":
        text = (
            f"experiment={experiment[1]}: says all of one command, as a rule `detpipe run`, and sets what "
            f"`detpipe {command}` hasn't: give it the settings themselves ({text})"
        )
    return f"{text}. See the settings with --cfg job"
