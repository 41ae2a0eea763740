"""The run folder: the path of each output, and the check that an output belongs to a data set."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from detpipe.datasets.source import DatasetSource, Split
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import ArtefactError, Manifest, digest_of, find_manifest
from detpipe.storage.stored_file import stored_size
from detpipe.structures import Dataset, GroundTruth, ImageRecord, Stretch


@dataclass(frozen=True)
class RunFolder:
    """The paths of all outputs of a run."""

    path: Path

    @property
    def check(self) -> Path:
        """Findings of the data check."""
        return self.path / "check.json"

    @property
    def dataset(self) -> Path:
        """The data set settings, which later commands use if none are given."""
        return self.path / "dataset.json"

    @property
    def split(self) -> Path:
        """The images of each split, if a hash of their names divides the data set."""
        return self.path / "split.json"

    @property
    def recipe(self) -> Path:
        """The recipe that experiment=auto chose, and why."""
        return self.path / "recipe.json"

    @property
    def budget(self) -> Path:
        """The number of iterations that a `budget` gives, and the times of its trial."""
        return self.path / "budget.json"

    @property
    def trial(self) -> Path:
        """The trial of a run with a `budget`; removed at its end."""
        return self.path / "trial"

    @property
    def first_result(self) -> Path:
        """The run folder of the first result of a long run with experiment=auto."""
        return self.path / "first_result"

    @property
    def proposals(self) -> Path:
        """Proposals of all splits."""
        return self.path / "proposals.lmdb"

    @property
    def recall(self) -> Path:
        """Recall of the proposals on the test images, or on the training images if there are no test images."""
        return self.path / "recall.json"

    @property
    def multibox(self) -> Path:
        """The trained MultiBox network, its snapshots and logs."""
        return self.path / "multibox"

    @property
    def crops(self) -> Path:
        """Training crops."""
        return self.path / "crops.lmdb"

    @property
    def val_crops(self) -> Path:
        """Validation crops."""
        return self.path / "crops_val.lmdb"

    def features(self, split: Split) -> Path:
        """Stored features of the regions of a split."""
        return self.path / "features" / split.value

    @property
    def classifier(self) -> Path:
        """The trained classifier, its snapshots and logs."""
        return self.path / "classifier"

    @property
    def fine_tuned(self) -> Path:
        """The run folder of the fine-tuning before a head on stored features."""
        return self.path / "fine_tuned"

    @property
    def detections(self) -> Path:
        """Detections as a COCO result list."""
        return self.path / "detections.json"

    @property
    def photo_classes(self) -> Path:
        """The classes of the photos of a `source`, in the source's own folder."""
        return self.path / "classes.json"

    @property
    def object_traces(self) -> Path:
        """What the detector did with each object of the test images."""
        return self.path / "object_traces.json"

    @property
    def source_page(self) -> Path:
        """The page of the detections of a `source`, in the source's own folder."""
        return self.path / "detections.html"

    @property
    def metrics(self) -> Path:
        """Metrics of the evaluation."""
        return self.path / "metrics.json"

    @property
    def blame(self) -> Path:
        """The cause of each missed object and the type of each false detection."""
        return self.path / "blame.json"

    @property
    def explain(self) -> Path:
        """The pictures of explained images."""
        return self.path / "explain"

    @property
    def blame_page(self) -> Path:
        """The page of the diagnosis."""
        return self.path / "blame.html"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.path / "report.html"


def load_splits(source: DatasetSource) -> dict[Split, Dataset]:
    """Load all splits of the data set, in the order train, val, test. Raises ValueError if it has none."""
    splits = {split: source.load(split) for split in Split if source.has(split)}
    if not splits:
        raise ValueError(
            f"dataset: expected at least one list of images, got {source}; name one in the dataset settings"
        )
    return splits


def write_split(folder: RunFolder, source: DatasetSource) -> None:
    """Write split.json if a hash of the names divides the data set, for people and for `dataset.split_file`."""
    stored = source.automatic_split()
    if stored is not None:
        write_json(folder.split, {"rule": stored.rule, "train": stored.train, "test": stored.test})


_digests: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()
"""From data sets, which don't change, to their digests: several stages ask for each."""


def dataset_digest(dataset: Dataset) -> str:
    """Return the digest of a split: classes, image ids, image sizes, file sizes in bytes, and objects.

    The pixels are not part of it: each record of proposals has the digest of its image file. dataset.stretch, which
    changes them, is. It is computed once for a `Dataset`.
    """
    found = _digests.get(dataset)
    if found is None:
        truth = dataset.ground_truth or {}
        found = _digests[dataset] = digest_of(
            [
                dataset.classes,
                dataset.category_ids,
                _image_values(dataset),
                [object_values(truth[record.image_id].measured) for record in dataset.records if truth],
            ]
        )
    return found


def images_digest(dataset: Dataset) -> str:
    """Return the digest of the images of a split, without objects and classes: as `dataset_digest`."""
    return digest_of(_image_values(dataset))


def _image_values(dataset: Dataset) -> list[list[Any]]:
    return [
        [str(record.image_id), record.image_size, stored_size(record.path), *_stretch(record)]
        for record in dataset.records
    ]


def _stretch(record: ImageRecord) -> list[str]:
    """The stretch of an image's values, if there is one, so that the digests of other data sets stay as they were."""
    return [] if record.options.stretch is Stretch.none else [record.options.stretch.value]


def object_values(truth: GroundTruth) -> list[Any]:
    """Return the objects of an image as plain values, for digests."""
    return [truth.boxes.tolist(), truth.labels.tolist(), truth.difficult.tolist(), truth.crowd.tolist()]


def verify_input(manifest: Manifest, artefact: Path, split: Split, dataset: Dataset) -> None:
    """Raise ArtefactError unless the proposals were made from the images of this split.

    Proposals that depend on the objects, and proposals of an earlier version, must be of the same objects.
    """
    if manifest.inputs.get(split.value) not in (images_digest(dataset), dataset_digest(dataset)):
        raise ArtefactError(
            f"{artefact}: expected results of the data set {dataset.name}, got other images, objects or classes; "
            f"give the dataset settings that it was made with, or run `detpipe {manifest.stage}` with overwrite=true"
        )


def images_input(dataset: Dataset, earlier: str | None) -> str:
    """Return the digest of the images as an input of an artefact, whose manifest on disk has the digest `earlier`.

    An earlier version used the digest of images and objects. It stays if they are the same.
    """
    of_both = dataset_digest(dataset)
    return of_both if earlier == of_both else images_digest(dataset)


def splits_digests(
    splits: Mapping[Split, Dataset], *, objects: bool = False, found: Manifest | None = None
) -> dict[str, str]:
    """Return the digest of each split by name, as inputs of proposals: of the images, and if `objects` also of those.

    found: the manifest on disk; see `images_input`.
    """
    earlier = found.inputs if found is not None else {}
    return {
        split.value: dataset_digest(dataset) if objects else images_input(dataset, earlier.get(split.value))
        for split, dataset in splits.items()
    }


def copy_proposals(old: RunFolder, new: RunFolder) -> None:
    """Copy the proposals of run folder `old` to `new` for `detpipe detect`. Does nothing if `new` has them."""
    manifest = find_manifest(old.proposals)
    if manifest is None or manifest == find_manifest(new.proposals):
        return
    scratch = new.path / ".proposals.part"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(old.proposals, scratch)
    if new.proposals.is_symlink():
        new.proposals.unlink()  # its target stays
    shutil.rmtree(new.proposals, ignore_errors=True)
    scratch.rename(new.proposals)
