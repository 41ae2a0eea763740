"""A detector as an auto-annotation function of CVAT, which draws its boxes into a task.

    cvat-cli ... task auto-annotate 137 --function-module detpipe.integrations.cvat -p run_dir=str:runs/mine

The interface follows `cvat_sdk.auto_annotation`: an object with `spec` (the labels) and `detect(context, image)`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from detpipe.runs.detector import Detector
from detpipe.runs.operating_point import shown_from
from detpipe.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import PIL.Image


class CvatFunction:
    """An auto-annotation function. CVAT matches its labels with the task's labels by their names."""

    def __init__(self, detector: Detector, min_score: float) -> None:
        """min_score: detections below it are left out where CVAT gives no threshold of its own."""
        self._cvat = _cvat_sdk()
        self._detector, self._min_score = detector, min_score
        labels = [self._cvat.label_spec(name, number) for number, name in enumerate(detector.spec.classes, start=1)]
        self._spec = self._cvat.DetectionFunctionSpec(labels=labels)

    @property
    def spec(self) -> Any:
        """The labels, with the numbers of the detector's classes: a `DetectionFunctionSpec`."""
        return self._spec

    def detect(self, context: Any, image: PIL.Image.Image) -> list[Any]:
        """Return a rectangle (x1, y1, x2, y2 in pixels) with its score for each detection, by descending score.

        context: `conf_threshold` is the smallest score; None: `min_score`. No detections give [].
        """
        threshold = self._min_score if context.conf_threshold is None else context.conf_threshold
        found = self._detector.predict(image)
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        return [self._cvat.rectangle(label, box, score=score) for box, score, label in rows if score >= threshold]


def create(run_dir: str | Path, *, device: str = "auto", min_score: float | None = None) -> CvatFunction:
    """Return the function for the detector of a run folder. `cvat-cli` calls this with the values of `-p`.

    device: auto, cpu or cuda. min_score: the smallest score where CVAT gives no threshold; None: the one with the best
    F1 in the run's evaluation. Raises ModuleNotFoundError without cvat-sdk, and as `Detector.from_run`.
    """
    _cvat_sdk()
    detector = Detector.from_run(run_dir, device=device)
    score, _ = shown_from(RunFolder(Path(run_dir)).classifier, min_score)
    return CvatFunction(detector, score)


def _cvat_sdk() -> ModuleType:
    """The interface of CVAT's package, which is optional."""
    try:
        import cvat_sdk.auto_annotation
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"expected the package cvat-sdk for functions of CVAT, got none ({error}); pip install 'detpipe[cvat]'"
        ) from error
    interface: ModuleType = cvat_sdk.auto_annotation
    return interface
