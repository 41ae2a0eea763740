"""The folder of a trained classifier, of any kind: weights.safetensors, and classifier.json with its description."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from detpipe.backbone.settings import BackboneConfig
from detpipe.network.network_folder import NetworkFolderError, save_network, stored_backbone
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, from_json, read_object
from detpipe.storage.manifest import plain

if TYPE_CHECKING:
    from torch import nn

DESCRIPTION = "classifier.json"


class ClassifierError(NetworkFolderError):
    """A classifier folder that is missing or damaged, of the wrong kind, or trained on other classes."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """The description of any classifier: classes in label order, and the backbone.

    KIND: the name of its row in the table of kinds, which is also "kind" in classifier.json.
    """

    KIND: ClassVar[str]

    classes: tuple[str, ...]
    backbone: BackboneConfig


@dataclass(frozen=True, kw_only=True)
class RegionSpec(ClassifierSpec):
    """The description of a classifier of regions. category_ids: the COCO id of each class.

    PROPOSES: whether the network proposes regions itself.
    """

    PROPOSES: ClassVar[bool] = False

    category_ids: tuple[int, ...]

    @property
    def computed_in_bf16(self) -> bool | None:
        """Whether inference must be in bf16 (True) or float32 (False); None: both are possible."""
        return None


Spec = TypeVar("Spec", bound=ClassifierSpec)


def save_classifier(folder: Path, network: nn.Module, spec: ClassifierSpec, *, loaded_from: Path | None = None) -> None:
    """Write weights.safetensors and classifier.json into `folder`, each atomically.

    The prototxt of a Caffe backbone is written beside them. loaded_from: the folder that the network was loaded from,
    if any; the prototxt is copied from there.
    """
    save_network(folder, network, spec.backbone if loaded_from is None else stored_backbone(loaded_from, spec.backbone))
    write_json(folder / DESCRIPTION, {"kind": spec.KIND, **plain(spec)})


def read_kind(folder: Path) -> str:
    """The kind of the classifier in `folder`, from its classifier.json. Raises as `read_description`."""
    return str(read_description(folder).get("kind"))


def read_spec(folder: Path, cls: type[Spec]) -> Spec:
    """The description in `folder`. Raises ClassifierError for another kind, and for wrong values, with their names."""
    values = read_description(folder)
    kind = values.pop("kind", None)
    if kind != cls.KIND:
        raise ClassifierError(
            f"{folder / DESCRIPTION}: expected a classifier of the kind {cls.KIND}, got kind {kind}; give another "
            "run_dir, or train one with `detpipe train-cls`"
        )
    try:
        return from_json(values, cls, str(folder / DESCRIPTION))
    except DataclassJsonError as error:
        raise ClassifierError(f"{error}; train it again with `detpipe train-cls overwrite=true`") from error


def read_description(folder: Path) -> dict[str, Any]:
    """The values of classifier.json. Raises ClassifierError where it is missing or not a JSON object."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ClassifierError(
            f"{folder}: expected a trained classifier, found no {DESCRIPTION}; run `detpipe train-cls` first"
        )
    try:
        return read_object(path)
    except DataclassJsonError as error:
        raise ClassifierError(f"{error}; train it again with `detpipe train-cls overwrite=true`") from error


def own_backbone(folder: Path, spec: Spec) -> Spec:
    """The description with the prototxt that was saved in `folder`: the file it was trained from may have changed."""
    return dataclasses.replace(spec, backbone=stored_backbone(folder, spec.backbone))


def check_classes(spec: ClassifierSpec, classes: Sequence[str], where: str) -> None:
    """Raise ClassifierError unless the classes are the classifier's, in the same order."""
    if tuple(classes) != spec.classes:
        unknown = sorted(set(classes) - set(spec.classes))
        detail = f"the classifier does not know {unknown}" if unknown else "their number or order differs"
        raise ClassifierError(
            f"{where} has the classes {list(classes)}, the classifier {list(spec.classes)}: {detail}; "
            "give dataset.classes=[...] as it was trained, or train it on this data set"
        )
