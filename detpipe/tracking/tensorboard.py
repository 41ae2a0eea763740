"""TensorBoard: event files in a folder, which `tensorboard --logdir` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.tracking.tracker import Tracker, flat


@dataclass(kw_only=True)
class TensorBoard(Tracker):
    """Event files for `tensorboard --logdir`. Settings and the paths of the results are texts of the run."""

    PACKAGE: ClassVar[str] = "tensorboard"

    folder: str | None = None
    """Folder of all runs; each run has a folder of its own in it. null: tensorboard/ in the run folder."""

    def open(self, config: Mapping[str, Any], folder: Path, run: str | None) -> str:
        """A new event file. Several files in the run's folder are one run."""
        from torch.utils.tensorboard import SummaryWriter  # ours would be a second writer of the same protobuf

        place = Path(self.folder) / folder.resolve().name if self.folder is not None else folder / "tensorboard"
        run = run or _unused(place)
        self._writer = SummaryWriter(run)
        text = json.dumps(flat(config), indent=1, default=str)
        self._writer.add_text("settings", "    " + text.replace("\n", "\n    "))
        return run

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """One scalar for each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def keep(self, file: Path) -> None:
        """The file's path: event files hold no other files."""
        self._writer.add_text(file.name, str(file.resolve()))

    def close(self) -> None:
        """Write and close the event file."""
        self._writer.close()


def _unused(folder: Path) -> str:
    """The folder, or with a number behind its name if another run has used it."""
    names = [folder, *(folder.with_name(f"{folder.name}_{number}") for number in range(2, 1000))]
    return str(next(one for one in names if not one.exists()))
