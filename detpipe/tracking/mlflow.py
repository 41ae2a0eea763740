"""MLflow: a run in an experiment, on a server or in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.tracking.tracker import Tracker, flat

LONGEST = 500
"""Letters of a parameter's value that MLflow accepts."""


@dataclass(kw_only=True)
class MLflow(Tracker):
    """A run of an MLflow experiment, with settings, numbers, metrics.json, recall.json and report.html."""

    PACKAGE: ClassVar[str] = "mlflow"

    uri: str | None = None
    """Where MLflow stores its runs: the address of a server, or file:FOLDER. null: MLFLOW_TRACKING_URI, or MLflow's own
    default."""
    experiment: str = "detpipe"
    """The experiment that the run belongs to. It is made if it does not exist."""

    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """A new run with the settings as its parameters, or the earlier one."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        if self.uri is not None and self.uri.startswith("file:"):  # newer versions refuse a folder without this
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=self.uri)
        if run is not None:
            self._run = run
            self._client.set_terminated(run, "RUNNING")
            return run
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found is not None else self._client.create_experiment(self.experiment)
        self._run = str(self._client.create_run(number, run_name=folder.resolve().name).info.run_id)
        parameters = [Param(name, str(value)[:LONGEST]) for name, value in flat(config).items()]
        for start in range(0, len(parameters), 100):  # the most that a server takes in one request
            self._client.log_batch(self._run, params=parameters[start : start + 100])
        return self._run

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One metric for each number."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in numbers.items()])

    def keep(self, file: Path) -> None:
        """An artefact of the run."""
        self._client.log_artifact(self._run, str(file))

    def close(self) -> None:
        """Set the run's status to finished."""
        self._client.set_terminated(self._run)
