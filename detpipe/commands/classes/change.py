"""Change the classes of a run folder: shared by `detpipe classes add` and `remove`.

The proposals do not change, since they have no classes. The features of stored regions are reused; their labels are
recomputed. A backup of each output is kept until the new one is complete, so that an interrupted change resumes with
the same command. The states of a store or classifier X and its backup X.before:

    X of the old classes                  not started
    X unfinished or missing, X.before     interrupted: X.before is valid, X is resumed or started again
    X of the new classes, X.before        interrupted before X.before was deleted: X is valid
    X of the new classes                  done
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detpipe.classify.classifier_folder import ClassifierError, save_classifier
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.network import (
    FeatureClassifier,
    FeatureClassifierSpec,
    examples_of,
)
from detpipe.classify.features.store import FeatureStore, ImageRegions, fill_store, open_store
from detpipe.classify.kinds import kind_in, load_classifier
from detpipe.classify.labeling import IGNORED, SamplingConfig, label_regions, sample_regions
from detpipe.commands.detector_settings import ClassChange
from detpipe.commands.proposals.verify import fault_of_image, left_out_records
from detpipe.commands.train_cls.stored_head import trained_summary
from detpipe.console import RESULT
from detpipe.datasets.source import Split
from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.table import head_class
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.randomness import generator_for
from detpipe.runs.detect_settings import carry_settings
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.recall import measure_recall, update_recall
from detpipe.runs.region_plans import class_ious, nearest_indices, unlabelled
from detpipe.runs.run_folder import RunFolder, load_splits, splits_digests
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.stored_split import StoredSplit
from detpipe.storage.backup import backup_path, keep_backup, successor
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import Artefact, ArtefactError, Manifest, find_manifest, read_manifest, rekey, same_key
from detpipe.structures import Dataset, Float32Array, GroundTruth, ImageId, ImageRecord

logger = logging.getLogger(__name__)

HeadChange = Callable[[StoredHeadConfig, FeatureHead, Examples, int, bool], FeatureHead]
"""(settings, old head, examples labelled with the new classes, seed, bf16) -> new head."""


@dataclass(frozen=True)
class Trained:
    """The current classifier and its manifest."""

    network: FeatureClassifier
    spec: FeatureClassifierSpec
    manifest: Manifest


@dataclass(frozen=True, eq=False)
class StoreChange:
    """The planned change of the store of one split.

    before: the current store. plan: its regions labelled with the new classes; None if an interrupted call has already
    made the new store.
    """

    before: FeatureStore
    plan: list[ImageRegions] | None


def trained(folder: RunFolder) -> Trained:
    """Load the run folder's classifier, or its backup after an interrupted change.

    Raises ClassifierError if the folder has no classifier, or if the classifier does not use stored features.
    """
    path = folder.classifier
    manifest = find_manifest(path)
    if (manifest is None or not manifest.complete) and backup_path(path).is_dir():
        path = backup_path(path)
    network, spec = load_classifier(path)
    if not isinstance(spec, FeatureClassifierSpec) or not isinstance(network, FeatureClassifier):
        raise ClassifierError(
            f"{path}: expected a head on stored features, got {kind_in(path).description}; train one with "
            "`detpipe features` and `detpipe train-cls head=svm`"
        )
    return Trained(network, spec, read_manifest(path))


def change_classes(config: ClassChange, now: Trained, classes: Sequence[str], label: str, change: HeadChange) -> None:
    """Change proposals, stores and classifier to `classes`. label: "+name" or "-name", for the manifests.

    Everything is checked before the first file is changed.
    """
    begun = time.perf_counter()
    new = classes[-1] if label.startswith("+") else None
    splits = load_splits(replace(config.data_source, classes=list(classes)))
    settings_of_head, extractor = head_settings(now.manifest), own_extractor(now)
    check_proposals(config.folder, splits)
    changes = planned_changes(config, now, splits, new)
    check_learnable(settings_of_head, changes[Split.train], classes, new)
    if new is not None:
        settings_of_head.check_class(now.network.head, new)
    adopt_proposals(config.folder, splits)
    for split, store_change in changes.items():
        stored = StoredSplit(config.folder.proposals, split, splits[split])
        if store_change.plan is not None:
            change_store(config, stored, extractor, store_change.before, store_change.plan, label)
        shutil.rmtree(backup_path(config.folder.features(split)), ignore_errors=True)
    store = open_store(config.folder.features(Split.train))
    bf16 = bool(now.manifest.settings.get("bf16", False))  # the precision of the head's training
    head = change(settings_of_head, now.network.head, examples_of(store), config.seed, bf16)
    spec = replace(now.spec, classes=store.classes, category_ids=store.category_ids)
    settings = {**now.manifest.settings, "classifier": spec, "changed": _with_change(now.manifest, label)}
    artefact = Artefact(
        config.folder.classifier, stage="train-cls", settings=settings, inputs={"features": store.manifest.digest}
    )
    with successor(artefact):
        save_classifier(
            artefact.path, FeatureClassifier(now.network.backbone, head), spec, loaded_from=backup_path(artefact.path)
        )
        keep_proposer(config.folder, artefact.path)
        carry_settings(backup_path(artefact.path), artefact.path)
        artefact.finish(seconds=time.perf_counter() - begun, summary=trained_summary(store))
    keep_dataset(config.folder, replace(config.data_source, classes=list(classes)))
    logger.log(
        RESULT,
        "classes: %s in %.1f s: now %s -> %s; this run folder's data set has them from now on. If you give "
        "dataset=..., add dataset.classes=[%s]",
        label,
        artefact.manifest.seconds,
        ", ".join(spec.classes),
        artefact.path,
        ",".join(spec.classes),
    )


def check_proposals(folder: RunFolder, splits: Mapping[Split, Dataset]) -> None:
    """Raise ArtefactError unless the proposals belong to the splits' images, whatever their classes.

    Also raised if the proposals are the objects (proposals=ground_truth), since these change with the classes.
    """
    manifest = read_manifest(folder.proposals)
    if adopted(manifest, splits) == manifest.inputs:
        return
    if method_name(manifest.settings["proposals"]) == "ground_truth":
        raise ArtefactError(
            f"{folder.proposals}: expected proposals from images, got the objects (proposals=ground_truth); "
            "run `detpipe propose overwrite=true`"
        )
    expected = left_out_records(manifest)
    with ProposalsReader(folder.proposals) as reader:
        for split, dataset in splits.items():
            for record in dataset.records:
                if (split.value, record.image_id) in reader:
                    for fault in fault_of_image(reader, split, record):
                        raise ArtefactError(fault)
                elif f"{split.value}/{record.image_id}" not in expected:
                    raise ArtefactError(
                        f"{folder.proposals}: expected a record of {split.value} image {record.image_id}, got none; "
                        "for new images, run propose, features and train-cls with overwrite=true"
                    )


def adopt_proposals(folder: RunFolder, splits: Mapping[Split, Dataset]) -> None:
    """Update the key of the proposals to these splits, which have the same images, and recompute their recall."""
    manifest = read_manifest(folder.proposals)
    inputs = adopted(manifest, splits)
    if inputs != manifest.inputs:
        rekey(folder.proposals, inputs, measure_recall(folder, splits))
    else:
        update_recall(folder, splits)


def adopted(manifest: Manifest, splits: Mapping[Split, Dataset]) -> dict[str, str]:
    """Return the inputs of the proposals' manifest for these splits."""
    proposer = proposer_of(manifest.settings["proposals"])
    objects = proposer is not None and proposer.uses_objects
    return {**manifest.inputs, **splits_digests(splits, objects=objects, found=manifest)}


def planned_changes(
    config: ClassChange, now: Trained, splits: Mapping[Split, Dataset], new: str | None
) -> dict[Split, StoreChange]:
    """Plan the change of the train split's store and, if it exists, of the test split's store.

    Raises ValueError without training images, ArtefactError for a store that is missing or has other features than the
    classifier, FeatureStoreError for a damaged store, CorruptRecordError for damaged proposals.
    """
    if Split.train not in splits or splits[Split.train].ground_truth is None:
        raise ValueError("dataset: expected a train split with annotations, got none; name it in the dataset settings")
    changes = {}
    for split in (Split.train, Split.test):
        path = config.folder.features(split)
        exists = path.is_dir() or backup_path(path).is_dir()
        if split is Split.test and (split not in splits or not exists):
            continue
        manifest = find_manifest(path)
        done = manifest is not None and manifest.complete
        before = open_store(path if done or not backup_path(path).is_dir() else backup_path(path))
        if before.manifest.settings["extraction"] != now.spec.extraction:
            raise ArtefactError(
                f"{before.path}: expected features of the classifier's network and settings, got others; run "
                "`detpipe train-cls` on them first, or `detpipe features` with the classifier's settings"
            )
        stored = StoredSplit(config.folder.proposals, split, splits[split])
        known = done and before.classes == stored.dataset.classes
        changes[split] = StoreChange(before, None if known else planned_regions(config, before, stored, new))
    return changes


def planned_regions(
    config: ClassChange, before: FeatureStore, stored: StoredSplit, new: str | None
) -> list[ImageRegions]:
    """Return the regions of a split's store labelled with the new classes, and regions sampled for a new class."""
    if stored.split is Split.test:
        return list(changed_regions(before, stored, {}, None))
    sampling = from_json(before.manifest.settings["regions"], SamplingConfig, f"{before.path}: regions")
    sampled = sampled_regions(before, stored, new, sampling, config.enough, config.seed) if new is not None else {}
    return list(changed_regions(before, stored, sampled, sampling))


def check_learnable(head: StoredHeadConfig, change: StoreChange, classes: Sequence[str], new: str | None) -> None:
    """Raise ValueError if the planned regions lack a class that the head trains on.

    These are the new class and, for a head that is retrained as a whole, all classes that it was trained on.
    """
    before = change.before
    labels, ious = before.labels, before.ious
    if change.plan is not None:
        regions = [image.regions for image in change.plan]
        labels = np.concatenate([labels[:0], *(region.labels for region in regions)])
        ious = np.concatenate([ious[:0], *(region.ious for region in regions)])
    at_least = head.positive_iou if isinstance(head, SvmConfig) else 0.0
    present = {classes[label - 1] for label in np.unique(labels[ious >= at_least]) if label > 0}
    wanted = {before.classes[label - 1] for label in np.unique(before.labels) if label > 0} if head.TOGETHER else set()
    if new is not None and not head.USES_CLASS_VECTORS:
        wanted.add(new)
    lacking = [name for name in classes if name in wanted and name not in present]
    if lacking or (head.TOGETHER and not present):
        near = f" that overlap its objects by head.positive_iou={at_least} or more" if at_least else ""
        raise ValueError(
            f"dataset: expected regions of {', '.join(lacking or classes)}{near}, got none; give a data set with such "
            "objects on images that have proposals, or compute features of more regions (sampling.*)"
        )


def own_extractor(now: Trained) -> RegionFeatures:
    """Return the classifier's backbone with the settings and device of the stored features."""
    extraction = now.spec.extraction
    return RegionFeatures(
        now.network.backbone,
        now.spec.crops,
        now.spec.features,
        device=resolve_device(Device(extraction["device"])),
        bf16=bool(extraction["bf16"]),
    )


def change_store(
    config: ClassChange,
    stored: StoredSplit,
    extractor: RegionFeatures,
    before: FeatureStore,
    plan: list[ImageRegions],
    label: str,
) -> None:
    """Make a split's store of the planned regions. Features that `before` lacks are computed."""
    path = config.folder.features(stored.split)
    samples = label.startswith("+") and stored.split is Split.train
    artefact = Artefact(
        path,
        stage="features",
        settings={
            **before.manifest.settings,
            "classes": stored.dataset.classes,
            "category_ids": stored.dataset.category_ids,
            "changed": _with_change(before.manifest, label),
            **({"drawn": [config.enough, config.seed]} if samples else {}),
        },
        inputs={
            "proposals": stored.manifest.digest,
            stored.split.value: stored.manifest.inputs[stored.split.value],
        },
    )
    if before.path == path:
        keep_backup(artefact)
        before = open_store(backup_path(artefact.path))
    manifest = find_manifest(path)
    # An unfinished store of an interrupted change with other settings is deleted; the backup has the old features.
    with artefact.making(overwrite=manifest is not None and not same_key(manifest, artefact.manifest)) as making:
        making.summary = fill_store(path, plan, extractor, before=[before], classes=len(stored.dataset.classes))
    summary = artefact.manifest.summary
    logger.info(
        "classes: %s: %d regions, %d of them new", path, summary["regions"], summary["regions"] - summary["taken_over"]
    )


def changed_regions(
    before: FeatureStore, stored: StoredSplit, sampled: Mapping[ImageId, Float32Array], sampling: SamplingConfig | None
) -> Iterator[ImageRegions]:
    """Yield the regions of a store and those sampled for a new class, labelled with the data set's classes.

    sampled: boxes (R, 4) by image. sampling: the settings of labelling; None gives regions without labels, for a split
    that is not used in training.
    """
    classes = stored.dataset.classes
    for record, proposed in stored.read():
        if proposed is None:  # unreadable, already logged by propose
            continue
        boxes = before.boxes[before.spans.get(record.image_id, slice(0, 0))]
        if sampling is None:
            regions, ranks = unlabelled(boxes), np.arange(len(boxes))
            overlaps = np.zeros((len(boxes), len(classes)), dtype=np.float32)
        else:
            truth = _truth(stored, record)
            boxes = np.concatenate([boxes, sampled.get(record.image_id, boxes[:0])])
            boxes = boxes[np.sort(np.unique(boxes, axis=0, return_index=True)[1])]
            regions = label_regions(boxes, truth, sampling)
            regions = regions[np.flatnonzero(regions.labels != IGNORED)]
            overlaps = class_ious(regions.boxes, truth, len(classes))
            ranks = nearest_indices(regions.boxes, proposed.proposals.boxes)
        yield ImageRegions(record, proposed.image_digest, regions, overlaps, ranks)


def sampled_regions(
    before: FeatureStore, stored: StoredSplit, new: str, sampling: SamplingConfig, enough: int, seed: int
) -> dict[ImageId, Float32Array]:
    """Sample boxes (R, 4) on the objects of a new class, by image.

    Images are taken in random order until there are `enough` regions of the class, with the stored ones. So features
    are computed for some of the images only.
    """
    label = stored.dataset.classes.index(new) + 1
    stored_count = 0
    sampled: dict[ImageId, Float32Array] = {}
    for record, proposed in stored.read():
        truth = _truth(stored, record)
        objects = truth[truth.labels == label]
        if proposed is None or not len(objects):
            continue
        boxes = before.boxes[before.spans.get(record.image_id, slice(0, 0))]
        stored_count += int((label_regions(boxes, truth, sampling).labels == label).sum())
        generator = generator_for(seed, f"{new}/{record.image_id}")
        regions = sample_regions(proposed.proposals.boxes, objects, proposed.image_size, sampling, generator)
        sampled[record.image_id] = regions.boxes[regions.labels > 0]
    ids = list(sampled)
    order = [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]
    counts = np.cumsum([stored_count, *(len(sampled[image_id]) for image_id in order)])
    return {image_id: sampled[image_id] for image_id, count in zip(order, counts[:-1], strict=True) if count < enough}


def _truth(stored: StoredSplit, record: ImageRecord) -> GroundTruth:
    assert stored.dataset.ground_truth is not None  # a train split without annotations has no store
    return stored.dataset.ground_truth[record.image_id]


def head_settings(manifest: Manifest) -> StoredHeadConfig:
    """Return the settings of the head's training. Raises ArtefactError for a manifest without a known head."""
    try:
        word, values = manifest.settings["head"], manifest.settings["settings"]
        head: StoredHeadConfig = from_json(values, head_class(word), f"head={word}")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"manifest of the classifier: expected a head and its settings, got: {error}; train the head again"
        ) from error
    return head


def _with_change(manifest: Manifest, label: str) -> list[str]:
    return [*manifest.settings.get("changed", []), label]
