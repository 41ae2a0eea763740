"""How a detector looks: the settings that its test images were looked at with, kept beside its classifier.

What was measured is what is used: new images, a curve and an export take them where nothing else is said. They are
those of `detpipe run`, or of the first `detpipe detect` where the stages were run by themselves; later trials change
nothing.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from detpipe.classify.classifier_folder import ClassifierError, read_description
from detpipe.classify.detect_settings import DetectConfig
from detpipe.storage.atomic import write_bytes
from detpipe.storage.manifest import plain

logger = logging.getLogger(__name__)

FILE = "detect.json"
"""In a classifier's folder. It may be edited."""

OF_THE_MACHINE = ("batch_size", "precision", "compile")
"""Settings of how detections are computed, not of what is found: another machine may want others."""


def keep_detect_settings(classifier: Path, config: DetectConfig, *, replace: bool = False) -> None:
    """Write the settings into a classifier's folder; where it has some, only to replace them."""
    path = classifier / FILE
    settings = {name: value for name, value in plain(config).items() if name not in OF_THE_MACHINE}
    text = (json.dumps(settings, indent=2) + "\n").encode()
    if not path.exists() or (replace and path.read_bytes() != text):
        write_bytes(path, text)


def carry_detect_settings(old: Path, new: Path) -> None:
    """Give the classifier in the folder `new` those of the one whose place it takes, where there are any.

    One of another kind would refuse them. What can't be read of the old one ends no work on the new one.
    """
    if not (old / FILE).is_file():
        return
    try:
        if read_description(old).get("kind") == read_description(new).get("kind"):
            keep_detect_settings(new, kept_detect_config(old))
    except ClassifierError as error:
        logger.warning("%s: detects by the defaults: %s", new, error)


def kept_detect_config(classifier: Path) -> DetectConfig:
    """The settings in a classifier's folder; the defaults where it has none. Raises as `kept_detect_settings`."""
    return DetectConfig(**kept_detect_settings(classifier))


def kept_detect_settings(classifier: Path) -> dict[str, Any]:
    """The settings in a classifier's folder by name; none of a detector that was not measured yet.

    Raises ClassifierError for a file that holds none, or one that is unknown or refused.
    """
    path = classifier / FILE
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        DetectConfig(**settings)
    except (TypeError, ValueError) as error:
        raise ClassifierError(
            f"{path}: wanted the settings of `detect` in JSON, got: {error}; delete it for the defaults, or mend it"
        ) from error
    return dict(settings)
