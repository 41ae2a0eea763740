"""The folder of a trained classifier, of regions or of images: what it tells of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detpipe.backbone.settings import BackboneConfig
from detpipe.network.network_folder import NetworkFolderError

DESCRIPTION = "classifier.json"


class ClassifierError(NetworkFolderError):
    """A classifier folder that is not there, not whole, or made for other classes."""


@dataclass(frozen=True)
class RegionSpec:
    """What every classifier of regions tells: classes in label order, COCO's numbers of them, the backbone."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    backbone: BackboneConfig

    @property
    def proposes(self) -> bool:
        """Whether the network itself says where things might be, from the same pass over the image."""
        return False


def read_description(folder: Path) -> dict[str, Any]:
    """The classifier.json of a folder; its "kind" says which classifier it is, and crops' (R-CNN's) has none.

    Raises ClassifierError where it is missing or no JSON object.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ClassifierError(f"{folder}: wanted a trained classifier, found no {DESCRIPTION}; run `detpipe train-cls`")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ClassifierError(f"{path}: wanted a classifier's description, got: {error}; train it again") from error
    if not isinstance(values, dict):
        raise ClassifierError(f"{path}: wanted a classifier's description, got {str(values)[:100]}; train it again")
    return values


def check_classes(spec: RegionSpec, classes: Sequence[str], where: str) -> None:
    """Raise ClassifierError unless the classes are those of the classifier, in the same order."""
    if tuple(classes) != spec.classes:
        unknown = sorted(set(classes) - set(spec.classes))
        detail = f"it doesn't know {unknown}" if unknown else "the order or number is another"
        raise ClassifierError(
            f"{where} has the classes {list(classes)}, the classifier {list(spec.classes)}: {detail}; "
            "give dataset.classes=[...] as it was trained, or train it on this data set"
        )
