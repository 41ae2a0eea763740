"""How a detector looks: the settings that its test images were looked at with, kept beside its classifier.

What was measured is what is used: new images, a curve and an export take them where nothing else is said. They are
those of `detpipe run`, or of the first `detpipe detect` where the stages were run by themselves; later trials change
nothing.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch

from detpipe.classify.classifier_folder import ClassifierError, read_description
from detpipe.classify.kinds import load_region_spec
from detpipe.classify.settings import DetectConfig
from detpipe.network.device import resolve_bf16
from detpipe.network.settings import Precision
from detpipe.storage.atomic import write_bytes
from detpipe.storage.manifest import plain

logger = logging.getLogger(__name__)

FILE = "detect.json"
"""In a classifier's folder. It may be edited."""

OF_THE_MACHINE = ("batch_size", "compile")
"""Settings of how detections are computed, not of what is found: another machine may want others."""


def keep_detect_settings(classifier: Path, config: DetectConfig, *, replace: bool = False) -> None:
    """Write the settings into a classifier's folder; where it has some, only to replace them.

    The precision is kept, too: it changes the scores. It should be the one that was computed in, not auto.
    """
    path = classifier / FILE
    settings = {name: value for name, value in plain(config).items() if name not in OF_THE_MACHINE}
    text = (json.dumps(settings, indent=2) + "\n").encode()
    if not path.exists() or (replace and path.read_bytes() != text):
        write_bytes(path, text)


def carry_detect_settings(old: Path, new: Path) -> None:
    """Give the classifier in the folder `new` those of the one whose place it takes, where there are any.

    One of another kind would refuse them. What can't be read of the old one ends no work on the new one. Where the new
    one stands on stored features of another precision, it detects in theirs.
    """
    if not (old / FILE).is_file():
        return
    try:
        before, now = read_description(old), read_description(new)
        if before.get("kind") == now.get("kind"):
            kept = kept_detect_config(old)
            if _stored_in_bf16(before) != _stored_in_bf16(now):
                kept = dataclasses.replace(kept, precision=Precision.auto)
            keep_detect_settings(new, kept)
    except ClassifierError as error:
        logger.warning("%s: detects by the defaults: %s", new, error)


def kept_detect_config(classifier: Path) -> DetectConfig:
    """The settings in a classifier's folder; the defaults where it has none. Raises as `kept_detect_settings`."""
    return _config_of(kept_detect_settings(classifier))


def kept_detect_settings(classifier: Path) -> dict[str, Any]:
    """The settings in a classifier's folder by name; none of a detector that was not measured yet.

    Raises ClassifierError for a file that holds none, or one that is unknown or refused.
    """
    path = classifier / FILE
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        _config_of(settings)
    except (TypeError, ValueError) as error:
        raise ClassifierError(
            f"{path}: expected the settings of `detect` in JSON, got: {error}; delete it for the defaults, or mend it"
        ) from error
    return dict(settings)


def _config_of(settings: dict[str, Any]) -> DetectConfig:
    """The settings as JSON has them, as an object."""
    precision = Precision(settings.get("precision", Precision.auto)) if isinstance(settings, dict) else Precision.auto
    return DetectConfig(**{**settings, "precision": precision})


def _stored_in_bf16(description: dict[str, Any]) -> bool | None:
    """Whether a head's stored features were computed in bf16; None for a classifier that stands on none."""
    extraction = description.get("extraction")
    return bool(extraction["bf16"]) if isinstance(extraction, dict) and "bf16" in extraction else None


def with_precision(config: DetectConfig, folder: Path, device: torch.device) -> DetectConfig:
    """The settings with the precision that the classifier in `folder` computes in, float32 or bf16, in place of auto.

    auto is the precision that is kept with the classifier, so that a detector gives the same numbers wherever it is
    used. A classifier that was not used yet computes as its kind says, else as `resolve_bf16`.
    Raises as `load_region_spec` and `kept_detect_settings`.
    """
    if config.precision is not Precision.auto:
        return config
    precision = kept_detect_config(folder).precision
    if precision is Precision.auto:
        own = load_region_spec(folder).computed_in_bf16
        bf16 = own if own is not None else resolve_bf16(precision, device)
        precision = Precision.bf16 if bf16 else Precision.float32
    return dataclasses.replace(config, precision=precision)
