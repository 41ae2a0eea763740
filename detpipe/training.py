"""Training from Python: `detpipe run` as a function, with the same settings, files and results."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detpipe.auto_dataset import with_format
from detpipe.auto_experiment import with_recipe
from detpipe.cli import configuration_error
from detpipe.commands.groups import GROUPS, option_of
from detpipe.commands.run_settings import Run
from detpipe.commands.table import COMMANDS, refuse_torchrun
from detpipe.config import LOG_FILE, NewRunFolder, register, to_command
from detpipe.console import shown_log
from detpipe.datasets.loaded_dataset import LoadedDataset
from detpipe.datasets.source import DatasetSource, Split
from detpipe.network.allocator import keep_freed_memory
from detpipe.overrides import hydra_words, in_quotes, kinds_of
from detpipe.remote_run import with_local_copies
from detpipe.storage.atomic import write_text
from detpipe.storage.links import refuse_links

if TYPE_CHECKING:
    from detpipe.metrics.evaluate import Metrics
    from detpipe.runs.detector import Detector

logger = logging.getLogger(__name__)

COMMAND = COMMANDS["run"]


@dataclass(frozen=True, eq=False, repr=False)
class TrainingResult:
    """A finished run: its folder, detector, metrics and report. `print` shows the metrics, and so does a notebook.

    settings: all settings of the run.
    """

    settings: Run

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.settings.folder.path

    @property
    def report(self) -> Path:
        """The report page, report.html."""
        return self.settings.folder.report

    @cached_property
    def detector(self) -> Detector:
        """The trained detector, on the device of the training. It is loaded on first use."""
        from detpipe.runs.detector import Detector

        return Detector.from_run(self.run_dir, device=self.settings.device.value)

    @cached_property
    def metrics(self) -> Metrics:
        """The metrics on the test images, as in metrics.json. They are computed from detections.json on first use."""
        from detpipe.commands.evaluate import measurable
        from detpipe.datasets.coco_results import read_detections
        from detpipe.metrics.evaluate import evaluate
        from detpipe.runs.run_detections import own_detections

        dataset = measurable(self.settings.data_source.load(Split.test))
        detections = read_detections(own_detections(self.settings.folder, dataset), dataset)
        most = max(map(len, detections.values()), default=0)
        # The run has warned of images with the most detections.
        return evaluate(dataset, detections, max_dets=most + 1, metrics=self.settings.metrics)

    def __repr__(self) -> str:
        return f"TrainingResult({self.run_dir})"

    def __str__(self) -> str:
        return f"{self.metrics}\nreport: {self.report}"

    def _repr_html_(self) -> str:
        import html

        return f"{self.metrics._repr_html_()}<p>report: {html.escape(str(self.report))}</p>"


def train(
    dataset: str | PathLike[str] | LoadedDataset | DatasetSource,
    *,
    experiment: str | None = None,
    run_dir: str | PathLike[str] = "runs/latest",
    verbose: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Train and evaluate a detector: `detpipe run` with the same settings, files and bytes.

    dataset: a folder or file, whose format is found; what `load_dataset` returned (all its splits are used); or the
    settings of a format, as `VocSource(root="my_voc")`. experiment: a preset, as fast_rcnn; None: it is chosen for the
    data, as by the command. run_dir: the run folder; a run that was stopped continues, and a finished one is only read.
    It may be in object storage (s3://...); the result then has the path of its copy on this machine.
    verbose: the whole log; else progress, warnings and results.
    settings: of `detpipe run`, by name. A group takes a word (`head="svm"`), a class (`head=MyHead`), an object
    (`head=SvmConfig(ridge=10)`) or a dict of its settings (`solver={"max_iter": 900}`). Full names with dots also work:
    `**{"solver.max_iter": 900}`.

    The log is also written to detpipe.log, and the settings to .hydra/run, as by the command. Where worker processes
    can't be used, because the script has no `if __name__ == "__main__":`, threads are used, with a warning.
    Raises ValueError with the name of a wrong setting; the errors of the command, whose messages are the same; and
    `detpipe.storage.interrupt.Interrupted` after Ctrl-C, when the work is saved.
    """
    refuse_torchrun("detpipe.train")
    words = [*_dataset_words(dataset), *([] if experiment is None else [f"experiment={experiment}"])]
    words += [f"run_dir={fspath(run_dir)}", *_words("", settings)]
    remote = with_local_copies(COMMAND, words)
    remote.pull()
    words, note = with_format(remote.words)
    config, composed, overrides, recipe_note = _composed(words)
    folder = config.folder.path
    refuse_links(folder)
    NewRunFolder.note(folder)
    try:
        _write_settings(folder, composed, overrides)
        keep_freed_memory()
        with shown_log(verbose=verbose, log_file=folder / LOG_FILE):
            for one in filter(None, (note, recipe_note)):
                logger.info("%s", one)
            COMMAND.load_run()(config)
    except BaseException:
        NewRunFolder.remove_if_empty()
        raise
    finally:
        remote.push()
    return TrainingResult(config)


def _composed(words: Sequence[str]) -> tuple[Run, DictConfig, list[str], str]:
    """The settings of `detpipe run` with these words, as Hydra composes them, and the words as Hydra reads them.

    The last is a line for the log about the choice of the recipe, or "".
    Raises ValueError, with the sentence of the command line, for what that refuses.
    """
    register()
    with _own_hydra():
        try:
            overrides = hydra_words(COMMAND, words)
            with initialize_config_module("detpipe.conf", version_base="1.3"):
                overrides, note = with_recipe(COMMAND, overrides)
                composed = compose(COMMAND.application, overrides)
                return to_command(composed, overrides), composed, overrides, note
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(configuration_error(error, COMMAND.name)) from error


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Let Hydra be initialised here, also in a program that is a Hydra application itself."""
    of_program = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = of_program  # another instance: Hydra replaces it


def _dataset_words(dataset: object) -> list[str]:
    """The words of the command line for a data set. Raises TypeError for anything else, and ValueError for a part."""
    if isinstance(dataset, (str, PathLike)):
        return [f"dataset.root={fspath(dataset)}"]
    if isinstance(dataset, LoadedDataset):
        if dataset.source is None:
            raise ValueError(
                f"dataset: expected a whole data set, got a part of {dataset.name}; give the folder, or the data set "
                "that load_dataset returned"
            )
        dataset = dataset.source
    if not isinstance(dataset, DatasetSource):
        raise TypeError(
            f"dataset: expected a path, a data set of load_dataset, or the settings of a format as "
            f"VocSource(root=...), got {type(dataset).__name__}"
        )
    return list(_component_words("dataset", dataset))


def _component_words(group: str, component: object) -> Iterator[str]:
    """The words for a class of a group, or for an object of it with its settings. Raises TypeError for others."""
    kind = component if isinstance(component, type) else type(component)
    word = option_of(group, kind)
    if word is None:
        raise TypeError(
            f"{group}: expected a class of this setting, at the top level of a module, got {kind.__qualname__}"
        )
    yield f"{group}={word}"
    if component is not kind:
        yield from _words(f"{group}.", _given(component))


def _given(component: Any) -> dict[str, Any]:
    """The settings of an object that are not at their defaults."""
    given = {}
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        factory = field.default_factory
        if field.init and value != (field.default if factory is dataclasses.MISSING else factory()):
            given[field.name] = value
    return given


def _words(prefix: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """The words of the command line for settings by name. A dict holds the settings of a group, or is a value."""
    for name, value in settings.items():
        full = f"{prefix}{name}"
        if full in GROUPS and (isinstance(value, type) or dataclasses.is_dataclass(value)):
            yield from _component_words(full, value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _words(f"{full}.", _given(value))
        elif isinstance(value, Mapping) and not _is_mapping(full):
            yield from _words(f"{full}.", value)
        else:
            yield f"{full}={_text(value, inside=False)}"


def _is_mapping(name: str) -> bool:
    """Whether the setting with this full name is a mapping, as solver.lr_mult: not a group of settings."""
    kinds = kinds_of(COMMAND, name)
    return any(typing.get_origin(kind) is dict for kind in kinds)


def _text(value: object, *, inside: bool) -> str:
    """A value as it is typed. inside: of a list or mapping, where text needs quotes. Raises TypeError for others."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Enum():
            return value.name
        case str() | PathLike():
            return in_quotes(fspath(value)) if inside else fspath(value)
        case int() | float() | np.integer() | np.floating():
            return repr(value.item() if isinstance(value, np.generic) else value)
        case Mapping():
            return "{" + ",".join(f"{key}:{_text(one, inside=True)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(_text(one, inside=True) for one in value) + "]"
    raise TypeError(f"settings: expected numbers, texts, lists and dicts of them, got {type(value).__name__}")


def _write_settings(folder: Path, composed: DictConfig, overrides: Sequence[str]) -> None:
    """Write the composed settings, and what was given, as Hydra does for the command."""
    place = folder / ".hydra" / COMMAND.application
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "config.yaml", OmegaConf.to_yaml(composed))
    write_text(place / "overrides.yaml", OmegaConf.to_yaml(list(overrides)))
