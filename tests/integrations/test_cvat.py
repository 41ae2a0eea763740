"""CVAT's auto-annotation function: with cvat-sdk if it is installed, else with its published interface."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import PIL.Image
import pytest

from detpipe import Detector
from detpipe.integrations import cvat
from detpipe.runs.operating_point import shown_from
from tests import drawn


@dataclass(kw_only=True)
class Spec:
    labels: list[Any] = field(default_factory=list)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two modules, with the functions of cvat-sdk 2.80 that are used, unless the package is there."""
    try:
        import cvat_sdk.auto_annotation  # noqa: F401
    except ModuleNotFoundError:
        package, interface = ModuleType("cvat_sdk"), ModuleType("cvat_sdk.auto_annotation")
        interface.DetectionFunctionSpec = Spec  # type: ignore[attr-defined]
        interface.label_spec = lambda name, id, **more: SimpleNamespace(name=name, id=id, **more)  # type: ignore[attr-defined]
        interface.rectangle = lambda label_id, points, **more: SimpleNamespace(  # type: ignore[attr-defined]
            label_id=label_id, points=points, frame=0, type="rectangle", **more
        )
        package.auto_annotation = interface  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "cvat_sdk", package)
        monkeypatch.setitem(sys.modules, "cvat_sdk.auto_annotation", interface)


@pytest.fixture(scope="module")
def picture(voc_root: Path) -> PIL.Image.Image:
    return PIL.Image.open(voc_root / "JPEGImages" / "test_0.jpg")


def context(threshold: float | None) -> SimpleNamespace:
    return SimpleNamespace(frame_name="a.jpg", conf_threshold=threshold, conv_mask_to_poly=False)


@pytest.mark.usefixtures("sdk")
def test_rectangles_are_the_detections(finished_run: Path, picture: PIL.Image.Image) -> None:
    function = cvat.create(str(finished_run), device="cpu")
    assert [(one.name, one.id) for one in function.spec.labels] == [(drawn.CLASSES[0], 1), (drawn.CLASSES[1], 2)]
    found = Detector.from_run(finished_run, device="cpu").predict(picture)
    assert len(found)
    shapes = function.detect(context(0.0), picture)
    assert [(str(one.type), one.label_id, one.points, one.score, one.frame) for one in shapes] == [
        ("rectangle", label, box, score, 0)
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ]


@pytest.mark.usefixtures("sdk")
def test_the_threshold_is_cvats_else_the_one_of_the_evaluation(finished_run: Path, picture: PIL.Image.Image) -> None:
    function = cvat.create(finished_run, device="cpu")
    scores = [one.score for one in function.detect(context(0.0), picture)]
    middle = scores[len(scores) // 2]
    assert [one.score for one in function.detect(context(middle), picture)] == [x for x in scores if x >= middle]
    own = shown_from(finished_run / "classifier", None)[0]
    assert [one.score for one in function.detect(context(None), picture)] == [x for x in scores if x >= own]
    assert cvat.create(finished_run, device="cpu", min_score=1.0).detect(context(None), picture) == []


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'detpipe\[cvat\]'"):
        cvat.create("runs/none")
