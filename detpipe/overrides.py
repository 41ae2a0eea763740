"""The words of a command line: settings as they were typed, and what was meant by a word that is none.

Hydra reads `name=value` by the look of the value: 1.10 is a number. Here the type of the setting decides. A value of a
setting that is text goes to Hydra in quotes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detpipe.commands.groups import GROUPS, TABLES, option_class, options_for_settings
from detpipe.commands.table import CommandRow
from detpipe.config import EXPERIMENT, default_choices
from detpipe.help import experiments_of, field_options, group_of, names_like, presets_of, source_of
from detpipe.plugins import PluginError
from detpipe.preset_files import check_preset

OPTIONS: Mapping[str, bool] = {
    **dict.fromkeys(
        ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"), False
    ),
    **dict.fromkeys(("--quiet", "-q", "--verbose", "-v"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"), True),
    **dict.fromkeys(("--config-dir", "-cd", "--experimental-rerun", "--info", "-i", "--shell-completion", "-sc"), True),
}
"""The options of every command, and whether a word of their own follows."""
CHOICES = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
}
"""The values of options that have few."""
LONGEST_WORD = 100_000
"""Limit on the characters of a word. Hydra's parser takes a minute for a million."""
LONGEST_NUMBER = 400
"""Limit on the digits of a number. Python refuses to read 4,300, and the largest float has 309."""


def hydra_words(row: CommandRow, words: Sequence[str]) -> list[str]:
    """The words of a command as Hydra reads them right.

    Raises ValueError, with what may be meant, for an option or a setting that the command does not have.
    """
    for word in words:
        refuse_oversized(word)
    words = with_argument(row, words)
    sweep = is_sweep(words)
    folder = preset_folder(words)
    for group, option in choices(words):
        if folder is not None and (folder / group / f"{option}.yaml").exists():
            check_preset(folder / group / f"{option}.yaml")
        elif not has_other_files(words):
            refuse_unknown_choice(row, group, option, sweep=sweep)
    check_plugins(words)
    refuse_parts_of_nothing(row, words)
    # Options first: argparse reads no setting after an option that stands behind settings.
    options: list[str] = []
    settings: list[str] = []
    for word, is_value in split_words(words):
        (options if is_value or word.startswith("-") else settings).append(word)
    return [*options, *(as_typed(row, word, sweep=sweep) for word in settings)]


def is_sweep(words: Sequence[str]) -> bool:
    """Whether a comma separates the jobs of a sweep."""
    return bool({"-m", "--multirun"} & set(words))


def has_other_files(words: Sequence[str]) -> bool:
    """Whether presets may come from folders that only Hydra knows."""
    starts = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")
    return any(word.startswith(starts) for word in words)


def preset_folder(words: Sequence[str]) -> Path | None:
    """The folder of presets that `--config-dir` names; None without this option."""
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            return Path(value) if equals else Path(*words[index + 1 : index + 2])
    return None


def split_words(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each word, and whether it is the value of the option before it."""
    is_value = False
    for word in words:
        yield word, is_value
        is_value = not is_value and OPTIONS.get(word, False)


def choices(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Group and option of each word such as `dataset=voc`."""
    for word, is_value in split_words(words):
        name, equals, value = word.lstrip("+").partition("=")
        if equals and not is_value and (name in GROUPS or name == EXPERIMENT):
            yield name, value


# --- Words that are not settings --------------------------------------------------------------------------------------


def with_argument(row: CommandRow, words: Sequence[str]) -> list[str]:
    """The words; the first without "=" becomes the setting that the row names as the command's argument.

    `detpipe detect photos` is `detpipe detect source=photos`. Raises ValueError for other words without "=", and for
    unknown options.
    """
    given = {word.partition("=")[0] for word in words}
    taken = not row.argument or row.argument in given
    result = []
    for word, is_value in split_words(words):
        if not is_value and word.startswith("-"):
            refuse_unknown_option(row, word, words)
        elif not is_value and word.startswith("="):
            raise ValueError(f"{word}: expected SETTING=VALUE, got no name before '='")
        elif not is_value and "=" not in word and not word.startswith("~"):
            if taken or (not Path(word).expanduser().exists() and is_option(row, word)):
                raise ValueError(bare_word(row, word))
            taken = True
            word = f"{row.argument}={word}"
        result.append(word)
    return result


def refuse_unknown_option(row: CommandRow, word: str, words: Sequence[str]) -> None:
    """Raise ValueError for an option that no command has. `--source photos` and `--source=photos` are settings."""
    option, equals, value = word.partition("=")
    if option in OPTIONS:
        following = value if equals else next(iter(words[words.index(word) + 1 : words.index(word) + 2]), "")
        allowed = CHOICES.get(option, ())
        if OPTIONS[option] and (not following or (allowed and following not in allowed)):
            raise ValueError(
                f"{option}: expected {' or '.join(allowed) or 'a value'} after it, got {following or 'nothing'}"
            )
        return
    name = option.lstrip("-").replace("-", "_")
    after = words[words.index(word) + 1 : words.index(word) + 2]
    value = value if equals else next((one for one in after if "=" not in one and one[:1] != "-"), "...")
    near = difflib.get_close_matches(option, [one for one in OPTIONS if one.startswith("--")], n=1, cutoff=0.75)
    settings = names_like(row, name)
    if settings and (not near or name in settings):
        hint = f"a setting has no dashes: did you mean {' or '.join(f'{one}={value}' for one in settings)}?"
    else:
        hint = f"did you mean {near[0]}?" if near else "the options are --help, --quiet, --verbose, --cfg job and -m"
    raise ValueError(f"{option}: expected an option of `detpipe {row.name}`, got an unknown one; {hint}")


def bare_word(row: CommandRow, word: str) -> str:
    """The error for a word without "=" that the command cannot use."""
    meant = meant_by(row, word)
    path = Path(word).expanduser()
    names = {field.name for field in dataclasses.fields(row.load_settings())}
    if not meant and path.exists() and not row.argument:
        is_run = any((path / inside).exists() for inside in (".hydra", "classifier", "proposals.lmdb"))
        of_data = [f"dataset.root={word}"] if "dataset" in names else []
        meant = [f"run_dir={word}"] if is_run else of_data
    hint = f"did you mean {' or '.join(meant)}?" if meant else f"`detpipe {row.name} --help` lists all settings"
    already = f", and {row.argument} is given already" if row.argument and not meant else ""
    return f"{word}: expected SETTING=VALUE, got a word without '='{already}; {hint}"


def meant_by(row: CommandRow, word: str) -> list[str]:
    """What may be meant by a word without "=": an option of a group, a setting or an option."""
    options = list(options_of(row))
    exact = [f"{group}={option}" for group, option in options if option == word]
    if exact:
        return exact[-1:] if exact[-1].startswith(EXPERIMENT) else exact[:2]
    if word.replace("-", "_") in names_like(row, word):
        return [f"{word.replace('-', '_')}=..."]
    near = difflib.get_close_matches(word, [option for _, option in options], n=1, cutoff=0.75)
    if near:
        return [f"{group}={option}" for group, option in options if option == near[0]][:2]
    flags = difflib.get_close_matches(f"--{word}", [one for one in OPTIONS if one.startswith("--")], n=1, cutoff=0.8)
    return flags or [f"{one}=..." for one in names_like(row, word, cutoff=0.8)][:2]


def is_option(row: CommandRow, word: str) -> bool:
    """Whether a word is the name of an option of a group, as voc, fast_rcnn and svm."""
    return any(word == option for _, option in options_of(row))


def options_of(row: CommandRow) -> Iterator[tuple[str, str]]:
    """Group and option of everything that a command can choose."""
    for field, options in field_options(row).items():
        yield from ((field, option) for option in options)
    yield from ((EXPERIMENT, name) for name in experiments_of(row))


def refuse_unknown_choice(row: CommandRow, group: str, chosen: str, *, sweep: bool) -> None:
    """Raise ValueError for an option that a group does not have."""
    known = list(presets_of(EXPERIMENT)) if group == EXPERIMENT else field_options(row).get(group)
    if known is None:
        return
    for option in chosen.split(",") if sweep else [chosen]:
        plain = option.strip().strip("\"'")
        if plain in (*known, "null") or plain in GROUPS.get(group, ()) or plain.startswith("$") or "(" in plain:
            continue
        near = difflib.get_close_matches(plain, known, n=1)
        hint = f"; did you mean {group}={near[0]}?" if near else ""
        raise ValueError(f"{group}: expected one of {', '.join(known)}, got {plain or 'nothing'}{hint}")


def check_plugins(words: Sequence[str]) -> None:
    """Allow the classes that words name. Raises PluginError for a word that two packages declare."""
    for table in TABLES.values():
        table.typed.clear()
    for word, is_value in split_words(words):
        name, equals, value = word.lstrip("+").partition("=")
        if equals and not is_value and name in TABLES:
            for one in value.strip("[]").split(","):
                TABLES[name].check_word(one.strip(" \"'"))


def refuse_parts_of_nothing(row: CommandRow, words: Sequence[str]) -> None:
    """Raise ValueError for `dataset.root=DIR` without `dataset=voc`: nothing has this setting."""
    chosen = {group for group, _ in choices(words)}
    if EXPERIMENT in chosen:  # it may choose the option
        return
    empty = {group for group, option in default_choices(row).items() if option is None} - chosen
    for word in words:
        group, dot, _ = word.lstrip("+").partition("=")[0].partition(".")
        if dot and group in empty:
            options = "|".join(field_options(row)[group])
            raise ValueError(
                f"{word.partition('=')[0]}: expected {group}=... beside it, got none; give {group}={options} first"
            )


def refuse_oversized(word: str) -> None:
    """Raise ValueError for a word that takes a minute to parse, and for a number with hundreds of digits."""
    name = word.partition("=")[0][:60]
    if len(word) > LONGEST_WORD:
        raise ValueError(f"{name}: expected at most {LONGEST_WORD} characters, got {len(word)}")
    digits = max(map(len, re.findall(r"[\d_]+", word)), default=0)
    if digits > LONGEST_NUMBER:
        raise ValueError(f"{name}: expected a number with at most {LONGEST_NUMBER} digits, got {digits}")


# --- Values as they were typed ----------------------------------------------------------------------------------------


def as_typed(row: CommandRow, word: str, *, sweep: bool) -> str:
    """The word, its value in quotes if the setting is text, and if Hydra cannot read it without."""
    name, equals, value = word.partition("=")
    if not equals or word.startswith("-") or not name:
        return word
    kinds = kinds_of(row, name.lstrip("+~")) if not value.startswith(('"', "'", "$")) else ()
    texts = [kind for kind in kinds if is_text(kind) or is_text_list(kind)]
    if not texts or len(texts) < len(kinds):
        # With commas, a sweep's word is a list of values: as one text it would be another sweep than was meant.
        return word if sweep and "," in word else quoted(word)
    if value.lstrip().startswith("[") and any(map(is_text_list, texts)):
        return f"{name}={quoted_list(value)}"
    if value and value != "null" and not sweep and all(is_text_list(kind) and kind is not Any for kind in texts):
        return f"{name}={quoted_list(f'[{value}]')}"  # one text, or some with commas between
    if value == "???" or (value == "null" and any(map(is_optional, texts))):
        return word
    if sweep and re.fullmatch(r"\w+\(.*\)", value):  # Hydra's functions: choice(a,b), range(1,3), glob(*)
        return word
    return f"{name}={','.join(map(in_quotes, split_at_commas(value) if sweep else [value]))}" if value else word


def quoted(word: str) -> str:
    """`key=value` with the value in double quotes, if Hydra can read it so and not as it is; any other word as it came.

    A value that begins as a list, a mapping, a quoted text or an interpolation stays, too: it is a mistake in one.
    """
    key, _, value = word.partition("=")
    is_setting = "=" in word[1:] and not word.startswith("-")
    if not is_setting or value.lstrip().startswith(("[", "{", '"', "'", "$")) or is_readable(word):
        return word
    with_quotes = f"{key}={in_quotes(value)}"
    return with_quotes if is_readable(with_quotes) else word


def in_quotes(value: str) -> str:
    """A text in Hydra's double quotes; one that has quotes already stays."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value
    # In Hydra's quotes a backslash is itself, but before a quote it is doubled.
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value) + '"'


def quoted_list(value: str) -> str:
    """A list of texts, each in quotes. Text that is not a list stays as it is."""
    inside = value.strip()
    if not inside.endswith("]"):
        return value
    items = [item.strip() for item in split_at_commas(inside[1:-1])]
    if items == [""]:
        return value
    return f"[{','.join(item if item.startswith(('$', '[', '{')) else in_quotes(item) for item in items)}]"


def split_at_commas(text: str) -> list[str]:
    """The parts of a text between commas that are not in quotes or brackets."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def is_readable(word: str) -> bool:
    """Whether a word is an override in Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


# --- The types of settings --------------------------------------------------------------------------------------------


def kinds_of(row: CommandRow, name: str) -> list[Any]:
    """The types of a setting by its full name: one for each option of its group that has it; none for an unknown name.

    Options whose files import torch are looked at only if they have a setting of this name.
    """
    first, *rest = name.split(".")
    settings = row.load_settings()
    fields = {field.name: field for field in dataclasses.fields(settings)}
    if first not in fields:
        return []
    group = group_of(fields[first])
    if not rest:
        return [] if group in GROUPS else [typing.get_type_hints(settings)[first]]
    kinds = [typing.get_type_hints(settings)[first]]
    if group in GROUPS:
        kinds = []
        for option, path in options_for_settings(group):
            with contextlib.suppress(PluginError):  # a broken plug-in is named when it is chosen
                kinds += [option_class(group, option)] if may_have(path, rest[0]) else []
    for part in rest:
        classes = [kind for one in kinds for kind in (one, *typing.get_args(one)) if dataclasses.is_dataclass(kind)]
        hints = [typing.get_type_hints(kind) for kind in classes]
        kinds = [hint[part] for hint in hints if part in hint]
    return kinds


def may_have(path: str, field: str) -> bool:
    """Whether the class "module:Class" may have a field: always, if it takes no import of torch to find out."""
    module = path.partition(":")[0]
    source = source_of(module)
    is_slow = module not in sys.modules and re.search(r"^(import|from) torch", source, re.M) is not None
    return not is_slow or re.search(rf"^    {re.escape(field)}\b", source, re.M) is not None


def is_optional(kind: Any) -> bool:
    """Whether a type allows None."""
    return kind is Any or type(None) in typing.get_args(kind)


def without_none(kind: Any) -> list[Any]:
    """The members of a union but None; the type itself if it is not a union."""
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return [one for one in typing.get_args(kind) if one is not type(None)] if is_union else [kind]


def is_text(kind: Any) -> bool:
    """Whether a setting of this type is text. Any: a text or a list of texts."""
    return without_none(kind) in ([str], [Any])


def is_text_list(kind: Any) -> bool:
    """Whether a setting of this type is a list of texts."""
    return without_none(kind) in ([list[str]], [Any])
