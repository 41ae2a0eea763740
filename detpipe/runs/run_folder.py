"""The run folder: the place of each artefact, and what an artefact says about the data set that it was made from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.source import DatasetSource, Split
from detpipe.storage.manifest import ArtefactError, Manifest, digest_of, find_manifest
from detpipe.structures import Dataset


@dataclass(frozen=True)
class RunFolder:
    """Where each artefact of a run stands."""

    path: Path

    @property
    def check(self) -> Path:
        """The findings of the data gate."""
        return self.path / "check.json"

    @property
    def proposals(self) -> Path:
        """Proposals of all splits."""
        return self.path / "proposals.lmdb"

    @property
    def recall(self) -> Path:
        """Recall of the proposals on the test images (of the training images where there are none)."""
        return self.path / "recall.json"

    @property
    def multibox(self) -> Path:
        """The trained network that proposes, its snapshots and logs."""
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
        """The store of the features of a split's regions."""
        return self.path / "features" / split.value

    @property
    def classifier(self) -> Path:
        """The trained network, its snapshots and logs."""
        return self.path / "classifier"

    @property
    def fine_tuned(self) -> Path:
        """The run folder of a training that comes before a head on stored features."""
        return self.path / "fine_tuned"

    @property
    def detections(self) -> Path:
        """COCO's result list."""
        return self.path / "detections.json"

    @property
    def metrics(self) -> Path:
        """The numbers of the evaluation."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"


def load_splits(source: DatasetSource) -> dict[Split, Dataset]:
    """Every split that the data set has, train before val before test. Raises ValueError where it has none."""
    splits = {split: source.load(split) for split in Split if source.has(split)}
    if not splits:
        raise ValueError(f"expected a data set with at least one list of images, got {source}")
    return splits


def dataset_digest(dataset: Dataset) -> str:
    """Digest of the classes, the images (ids and sizes in bytes) and the objects of a split.

    The contents of the images are not read here: proposals carry each image's own digest.
    """
    truth = dataset.ground_truth or {}
    return digest_of(
        [
            dataset.classes,
            dataset.category_ids,
            [[str(record.image_id), record.image_size, record.path.stat().st_size] for record in dataset.records],
            [
                [one.boxes.tolist(), one.labels.tolist(), one.difficult.tolist(), one.crowd.tolist()]
                for one in (truth[record.image_id] for record in dataset.records if truth)
            ],
        ]
    )


def verify_input(manifest: Manifest, artefact: Path, split: Split, dataset: Dataset) -> None:
    """Raise ArtefactError unless the artefact was made from this very split."""
    wanted = dataset_digest(dataset)
    if manifest.inputs.get(split.value) != wanted:
        raise ArtefactError(
            f"{artefact}: made from another data set than {dataset.name}: its images, objects or classes differ. "
            f"Give the dataset settings that it was made with, or run `detpipe {manifest.stage}` with overwrite=true"
        )


def splits_digests(splits: dict[Split, Dataset]) -> dict[str, str]:
    """Name -> digest of each split, as a manifest's inputs."""
    return {split.value: dataset_digest(dataset) for split, dataset in splits.items()}


def copy_proposals(old: RunFolder, new: RunFolder) -> None:
    """The proposals beside another detector of theirs, so that `detect` finds them; kept where just these are there."""
    made, there = find_manifest(old.proposals), find_manifest(new.proposals)
    if made is None or made == there:
        return
    scratch = new.path / ".proposals.part"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(old.proposals, scratch)
    shutil.rmtree(new.proposals, ignore_errors=True)
    scratch.rename(new.proposals)
