"""The trackers, each with its own program where that is installed, and their table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from detpipe.tracking.table import TRACKERS, tracker_class, tracker_word
from detpipe.tracking.tracker import NoTracker, flat

CONFIG = {"solver": {"base_lr": 0.01, "type": "adamw"}, "seed": 0}


def test_every_word_names_a_class_that_knows_its_word() -> None:
    for word in TRACKERS:
        assert tracker_word(tracker_class(word)()) == word
    with pytest.raises(KeyError):
        tracker_class("paper")


def test_settings_are_flattened_by_their_full_names() -> None:
    assert flat(CONFIG) == {"solver.base_lr": 0.01, "solver.type": "adamw", "seed": 0}
    assert flat({}) == {}


def test_without_a_tracker_nothing_is_on() -> None:
    assert not NoTracker().is_on
    NoTracker().check()


@pytest.mark.parametrize("word", [word for word in TRACKERS if word != "none"])
def test_a_missing_package_is_named_with_its_remedy(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = tracker_class(word)()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"track: .*pip install 'detpipe\\[{word}\\]'"):
        tracker.check()


def test_a_setting_of_the_wrong_type_is_named() -> None:
    with pytest.raises(TypeError, match="project"):
        tracker_class("wandb")(project=1)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of all event files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for file in folder.iterdir():  # TensorBoard orders files by second, which is too coarse for a test
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, []).extend((one.step, round(one.value, 4)) for one in events.Scalars(name))
    return {name: sorted(values) for name, values in found.items()}


def test_tensorboard_continues_a_run_in_the_same_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for run, step in ((None, 1), (str(tmp_path / "tensorboard"), 2)):
        tracker = tracker_class("tensorboard")()
        assert tracker.open(CONFIG, tmp_path, run) == str(tmp_path / "tensorboard")
        tracker.log({"classifier/loss": step / 2}, step)
        tracker.close()
    assert scalars(tmp_path / "tensorboard") == {"classifier/loss": [(1, 0.5), (2, 1.0)]}


def test_tensorboard_gives_another_run_another_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    places = []
    for _ in range(2):
        tracker = tracker_class("tensorboard")(folder=str(tmp_path / "all"))
        places.append(tracker.open({}, tmp_path / "run", None))
        tracker.close()
    assert places == [str(tmp_path / "all/run"), str(tmp_path / "all/run_2")]


def test_mlflow_has_settings_numbers_and_files(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    (tmp_path / "metrics.json").write_text("{}")
    uri = f"file:{tmp_path}/store"
    tracker = tracker_class("mlflow")(uri=uri)
    run = tracker.open(CONFIG, tmp_path, None)
    tracker.log({"classifier/loss": 0.5}, 20)
    tracker.close()
    tracker = tracker_class("mlflow")(uri=uri)
    assert tracker.open(CONFIG, tmp_path, run) == run
    tracker.log({"classifier/loss": 0.25}, 40)
    tracker.keep(tmp_path / "metrics.json")
    tracker.close()

    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_run(run)
    assert found.info.run_name == tmp_path.name
    assert found.info.status == "FINISHED"
    assert found.data.params == {"solver.base_lr": "0.01", "solver.type": "adamw", "seed": "0"}
    history = client.get_metric_history(run, "classifier/loss")
    assert [(one.step, one.value) for one in history] == [(20, 0.5), (40, 0.25)]
    assert [one.path for one in client.list_artifacts(run)] == ["metrics.json"]


def test_wandb_and_trackio_get_what_their_functions_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against stand-ins: both were run by hand. The real ones need an account, or write to the home folder."""
    calls: list[tuple[str, Any]] = []

    class Run:
        id = "abc"

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: calls.append((name, args))

    class Module:
        def init(self, **kwargs: Any) -> Run:
            calls.append(("init", kwargs))
            return Run()

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: calls.append((name, args))

    for word in ("wandb", "trackio"):
        monkeypatch.setitem(__import__("sys").modules, word, Module())
        calls.clear()
        tracker = tracker_class(word)()
        run = tracker.open(CONFIG, tmp_path, None)
        tracker.log({"classifier/loss": 0.5}, 20)
        tracker.close()
        assert tracker_class(word)().open(CONFIG, tmp_path, run) == run
        names = [name for name, _ in calls]
        assert names.count("init") == 2
        assert "log" in names
        assert "finish" in names
        assert calls[0][1]["config"] == flat(CONFIG)
