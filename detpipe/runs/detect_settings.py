"""Inference settings saved with the classifier, so that later commands reproduce the evaluated detector.

They are the settings of `detpipe run`, or of the first `detpipe detect` where the stages were run one by one. Later
`detect` commands don't change them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from detpipe.classify.classifier_folder import ClassifierError, read_description
from detpipe.classify.kinds import load_region_spec
from detpipe.classify.settings import DetectConfig
from detpipe.network.device import resolve_bf16
from detpipe.network.settings import Precision
from detpipe.storage.atomic import write_bytes
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_object
from detpipe.storage.links import refuse_link
from detpipe.storage.manifest import plain
from detpipe.structures import Stretch

logger = logging.getLogger(__name__)

FILE = "detect.json"
"""The file in the classifier's folder. Users may edit it."""

OF_THE_MACHINE = ("batch_size", "compile")
"""Settings that don't change the detections and depend on the machine. They are not saved."""


@dataclass(frozen=True, kw_only=True)
class KeptSettings:
    """The content of detect.json.

    precision: float32 or bf16; auto if no test images were detected yet. stretch: of the images of the data set, which
    new images need, too.
    """

    detect: DetectConfig = field(default_factory=DetectConfig)
    precision: Precision = Precision.auto
    stretch: Stretch = Stretch.none


def keep_settings(classifier: Path, settings: KeptSettings, *, replace: bool = False) -> None:
    """Write the settings into a classifier's folder. If it has some already, they stay, unless `replace`.

    The precision changes the scores: it should be the one that was computed in, not auto.
    """
    path = classifier / FILE
    values = plain(settings)
    values["detect"] = {name: value for name, value in values["detect"].items() if name not in OF_THE_MACHINE}
    text = (json.dumps(values, indent=2) + "\n").encode()
    if not path.exists() or (replace and path.read_bytes() != text):
        refuse_link(classifier)
        write_bytes(path, text)


def carry_settings(old: Path, new: Path) -> None:
    """Copy the settings of the classifier in `old` to the one in `new`, which replaces it. It is allowed to have none.

    Nothing is copied between classifiers of different kinds. Settings that cannot be read are reported and left out. If
    the new classifier was trained on features of another precision, it detects in that precision.
    """
    if not (old / FILE).is_file():
        return
    try:
        before, now = read_description(old), read_description(new)
        if before.get("kind") == now.get("kind"):
            kept = kept_settings(old)
            if _stored_in_bf16(before) != _stored_in_bf16(now):
                kept = dataclasses.replace(kept, precision=Precision.auto)
            keep_settings(new, kept)
    except ClassifierError as error:
        logger.warning("%s: uses the default detection settings, because: %s", new, error)


def kept_settings(classifier: Path) -> KeptSettings:
    """The settings in a classifier's folder; the defaults if it has none.

    Raises ClassifierError for a file that is not JSON, and for unknown or wrong settings.
    """
    return _read(classifier)[0]


def kept_detect_settings(classifier: Path) -> dict[str, Any]:
    """The settings of `detect` in a classifier's folder by name, nested as in detect.json; {} if it has none.

    Raises as `kept_settings`.
    """
    return _read(classifier)[1]


def _read(classifier: Path) -> tuple[KeptSettings, dict[str, Any]]:
    path = classifier / FILE
    try:
        values = read_object(path)
        logger.debug("%s: settings that the detector was evaluated with", path)
        return from_json(values, KeptSettings, str(path)), dict(values.get("detect", {}))
    except FileNotFoundError:
        return KeptSettings(), {}
    except DataclassJsonError as error:
        raise ClassifierError(f"{error}; correct the file, or delete it to use the defaults") from error


def _stored_in_bf16(description: dict[str, Any]) -> bool | None:
    """Whether a head's stored features were computed in bf16; None for a classifier without stored features."""
    extraction = description.get("extraction")
    return bool(extraction["bf16"]) if isinstance(extraction, dict) and "bf16" in extraction else None


def inference_precision(precision: Precision, classifier: Path, device: torch.device) -> Precision:
    """The precision in which the classifier in a folder computes: float32 or bf16.

    auto is the precision saved with the classifier, so that a detector gives the same scores on every machine. If none
    is saved, it is the one that the training fixed, else what `resolve_bf16` chooses for the device.
    Raises as `load_region_spec` and `kept_settings`.
    """
    if precision is Precision.auto:
        precision = kept_settings(classifier).precision
    if precision is Precision.auto:
        fixed = load_region_spec(classifier).computed_in_bf16
        bf16 = fixed if fixed is not None else resolve_bf16(precision, device)
        precision = Precision.bf16 if bf16 else Precision.float32
    return precision
