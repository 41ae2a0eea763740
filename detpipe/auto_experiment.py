"""`detpipe run` without an experiment: the words that name a recipe, in place of `experiment=auto`.

It is done before Hydra composes the settings, as for `dataset=auto`: the recipe's settings are below those that were
typed, and what is recorded is the same as if the recipe had been named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detpipe.commands.table import CommandRow
from detpipe.config import EXPERIMENT, register, to_command
from detpipe.overrides import choices, is_sweep, preset_folder, split_words
from detpipe.runs.kept_recipe import is_begun, kept_recipe
from detpipe.runs.recipe import choose
from detpipe.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from detpipe.commands.run_settings import Run

AUTO = "auto"
PARTS = (
    *("head", "proposals", "sampling", "crops", "features", "fine_tune", "tuning", "multibox", "multibox_solver"),
    *("backbone.name", "backbone.prototxt", "solver.prototxt"),
)
"""Settings that belong to one recipe. If one of them is set, nothing is chosen, and the defaults are R-CNN's."""
PART_GROUPS = ("backbone", "solver")
"""Groups whose other settings any recipe has: only another option of them is a part of a recipe."""
OF_FACTS = ("dataset", "run_dir", "device", "precision", "overwrite", "seed")
"""The settings that decide which recipe is chosen."""


def with_recipe(row: CommandRow, words: Sequence[str], *, lenient: bool = False) -> tuple[list[str], str]:
    """The words with the chosen experiment, and a line for the log; unchanged words if there is nothing to choose.

    words: as `hydra_words` gives them. lenient: for --cfg: missing data is allowed. Raises ValueError for
    `experiment=auto` of another command or beside other experiments of a sweep, and the errors of the data set.
    """
    named = [option.strip("\"'") for group, option in choices(words) if group == EXPERIMENT]
    if row.name != "run":
        if AUTO in named:
            raise ValueError(
                f"{EXPERIMENT}={AUTO}: expected an experiment for `detpipe {row.name}`, got one for `detpipe run`; "
                "leave it out"
            )
        return [*words], ""
    if any(AUTO in option.split(",") for option in named) and named != [AUTO]:
        raise ValueError(
            f"{EXPERIMENT}={','.join(named)}: expected {AUTO} alone, got other experiments beside it; name them all"
        )
    if named and named != [AUTO]:
        return [*words], ""
    rest = [word for word in words if word.lstrip("+").partition("=")[0] != EXPERIMENT]
    parts = [] if named else list(dict.fromkeys(parts_among(words)))
    if parts:
        return rest, f"R-CNN, because {', '.join(parts)} is given; without it, {EXPERIMENT}={AUTO} chooses a recipe"
    try:
        recipe, note = chosen(rest, all_words=not named)
    except (OSError, ValueError):
        if lenient:
            return rest, ""
        raise
    return ([*rest, f"{EXPERIMENT}={recipe}", f"chosen_recipe={recipe}"], note) if recipe else (rest, note)


def parts_among(words: Sequence[str]) -> Iterator[str]:
    """The settings among the words that belong to one recipe."""
    for word, is_value in split_words(words):
        name = word.lstrip("+~").partition("=")[0]
        if is_value or word.startswith("-"):
            continue
        if name in PART_GROUPS or any(f"{name}.".startswith(f"{part}.") for part in PARTS):
            is_usual = name == "backbone.name" and "efficientnet_lite" in word
            yield from () if is_usual else (name,)


def chosen(words: Sequence[str], *, all_words: bool) -> tuple[str | None, str]:
    """The recipe for the data set, machine and run folder of these words, and a line for the log.

    None where none is to be chosen: the run folder has a run that was begun without it, or the data cannot be trained
    on, which the run itself reports. all_words: whether all words are valid without an experiment, so that a wrong one
    is an error before the data is read. A run folder keeps what was chosen for it before.
    """
    from detpipe.runs.run_facts import facts_of  # imports torch

    config = composed(words, all_words=all_words)
    folder = config.folder
    if is_sweep(words):  # each job has a folder of its own
        folder = RunFolder(folder.path / "0")
    if not config.overwrite:
        kept = kept_recipe(folder)
        if kept is not None:
            return kept.experiment, ""
        if is_begun(folder):
            return None, f"{folder.path} has a run that began without {EXPERIMENT}={AUTO}; it continues as R-CNN"
    facts = facts_of(config.data_source, config.device, config.precision)
    return (None if facts is None else choose(facts).experiment), ""


def composed(words: Sequence[str], *, all_words: bool) -> Run:
    """The settings of `detpipe run` by these words, of a sweep only those that decide the recipe."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    sweep = is_sweep(words)
    settings = [word for word, is_value in split_words(words) if not is_value and not word.startswith("-")]
    if sweep or not all_words:
        settings = [word for word in settings if word.lstrip("+").partition("=")[0].partition(".")[0] in OF_FACTS]
    if sweep and any("," in word for word in settings):
        raise ValueError(
            f"{EXPERIMENT}={AUTO}: expected one data set, run folder and precision, got a sweep over them; give "
            f"{EXPERIMENT}=NAME"
        )
    folder = preset_folder(words)
    if folder is not None:
        settings.append(f"hydra.searchpath=[file://{folder.absolute()}]")
    register()
    if GlobalHydra.instance().is_initialized():  # by detpipe.train
        config = compose("run", settings)
    else:
        with initialize_config_module("detpipe.conf", version_base="1.3"):
            config = compose("run", settings)
    run: Run = to_command(config, settings)
    return run
