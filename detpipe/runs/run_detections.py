"""The detections of a run folder on its data set, and what they were made with."""

from __future__ import annotations

from pathlib import Path

from detpipe.classify.classifier_folder import DESCRIPTION, check_classes
from detpipe.classify.kinds import load_region_spec
from detpipe.datasets.coco_results import read_detections
from detpipe.runs.run_folder import RunFolder, dataset_digest, images_digest
from detpipe.storage.manifest import ArtefactError, read_manifest
from detpipe.structures import Dataset, Detections, ImageId


def own_detections(folder: RunFolder, dataset: Dataset) -> Path:
    """Return the path of the run folder's detections of its data set.

    Raises ArtefactError if they are missing or of a `source`, ClassifierError if the classifier has other classes than
    the data set, or another order of classes: the file has the classifier's labels.
    """
    manifest = read_manifest(folder.detections)
    if manifest.settings.get("source") is not None:
        raise ArtefactError(
            f"{folder.detections}: expected detections of the data set, got some of {manifest.settings['source']}; "
            "run `detpipe detect dataset=...` again, or give detections=FILE"
        )
    if (folder.classifier / DESCRIPTION).is_file():
        check_classes(load_region_spec(folder.classifier), dataset.classes, dataset.name)
    return folder.detections


def verify_images(folder: RunFolder, dataset: Dataset) -> None:
    """Raise ArtefactError unless the run folder's detections are of the images of this split."""
    made_from = read_manifest(folder.detections).inputs.get("images")
    if made_from not in (images_digest(dataset), dataset_digest(dataset)):
        raise ArtefactError(
            f"{folder.detections}: expected detections of the images of {dataset.name}, got some of other images; "
            "give the dataset settings that they were made with, or run `detpipe detect` with overwrite=true"
        )


def run_detections(folder: RunFolder, dataset: Dataset) -> dict[ImageId, Detections]:
    """Return the run folder's detections of each image of the data set.

    Raises ArtefactError if they are missing or of other images, ClassifierError if the classes differ.
    """
    path = own_detections(folder, dataset)
    verify_images(folder, dataset)
    return dict(read_detections(path, dataset))
