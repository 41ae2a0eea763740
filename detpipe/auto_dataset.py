"""`dataset.root=DIR` on a command line: the words that name the format, in place of `dataset=auto`.

It is done before Hydra sees the words. So settings of the format that is found can be given, and all that is recorded
(the composed settings, manifests, dataset.json) is the same as if the format had been named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from detpipe.datasets.formats import AUTO
from detpipe.overrides import choices, in_quotes, is_sweep, preset_folder, split_words
from detpipe.storage.input_file import read_input
from detpipe.storage.object_storage import StorageError

FIELD = "dataset"
ROOT = f"{FIELD}.root"
_CHOOSES = re.compile(r"^\s*(-\s*)?(override\s+)?/?dataset\s*:", re.MULTILINE)


def with_format(words: Sequence[str], *, lenient: bool = False) -> tuple[list[str], str]:
    """The words with the format that is found and its settings, and a line for the log; "" if no format was to find.

    lenient: for help: a folder that is not found is allowed. Raises ValueError and FileNotFoundError where the
    words do not lead to one format.
    """
    chosen = [option for group, option in choices(words) if group == FIELD]
    given = _given(words)
    if (chosen and chosen != [AUTO]) or not (chosen or given) or _in_preset(words):
        return [*words], ""
    rest = [word for word in words if word.lstrip("+") != f"{FIELD}={AUTO}"]
    if lenient:
        try:
            return _found(given, rest, sweep=is_sweep(words))
        except (OSError, ValueError, StorageError, ImportError):
            return [f"{FIELD}={AUTO}", *rest] if ROOT in given and len(given) == 1 else [*rest], ""
    return _found(given, rest, sweep=is_sweep(words))


def _found(given: dict[str, str], words: list[str], *, sweep: bool) -> tuple[list[str], str]:
    # Imported here: these take a moment, and most command lines do not need them.
    from detpipe.datasets.auto import find_reading, formats_with

    names = {name.removeprefix(f"{FIELD}.").partition(".")[0] for name in given}
    if ROOT not in given:
        formats = formats_with(names)
        if not names or len(formats) != 1:
            which = min(given) if given else f"{FIELD}={AUTO}"
            fitting = f", {FIELD}={'|'.join(formats)}" if names and formats else ""
            raise ValueError(
                f"{which}: expected {ROOT}=DIR beside it, got none; give {ROOT}=DIR, whose format is found{fitting}"
            )
        return [f"{FIELD}={formats[0]}", *words], ""
    root = _unquoted(given[ROOT])
    if root.startswith(("[", "$")) or (sweep and "," in root):
        raise ValueError(
            f"{ROOT}={root}: expected one folder to find its format, got something else; name the format, as in "
            f"{FIELD}=voc"
        )
    path = Path(root).expanduser()
    reading = find_reading(path, names - {"root"})
    kept = [word for word in words if _name(word) != ROOT]
    found = [
        f"{FIELD}.{name}={_value(value)}" for name, value in reading.settings.items() if f"{FIELD}.{name}" not in given
    ]
    root_again = [] if "root" not in reading.settings else [f"{ROOT}={_value(reading.settings['root'])}"]
    found = [*root_again, *found]
    return [f"{FIELD}={reading.word}", *found, *kept], reading.text(path)


def _given(words: Sequence[str]) -> dict[str, str]:
    """The settings of the data set among the words: name and value, as typed."""
    pairs = (word.lstrip("+").partition("=") for word, is_value in split_words(words) if not is_value)
    return {name: value for name, equals, value in pairs if equals and name.startswith(f"{FIELD}.")}


def _name(word: str) -> str:
    return word.lstrip("+").partition("=")[0]


def _in_preset(words: Sequence[str]) -> bool:
    """Whether an experiment of the user's own among the words chooses the data set. Those of detpipe never do."""
    folder = preset_folder(words)
    if folder is None:
        return False
    names = [option for group, option in choices(words) if group == "experiment"]
    files = [folder / "experiment" / f"{name}.yaml" for name in names]
    texts = [read_input(file, "a preset in YAML").decode(errors="replace") for file in files if file.is_file()]
    return any(map(_CHOOSES.search, texts))


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


def _value(value: object) -> str:
    """A setting in Hydra's grammar."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return in_quotes(value) if isinstance(value, str) else str(value)
