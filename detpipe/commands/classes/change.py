"""What `detpipe classes add` and `remove` share: from a run folder of some classes to one of others.

The proposals stay: they know no classes. Of the stored regions the features stay, and the labels are made anew. What is
replaced waits beside its place until its successor stands, so a killed change goes on by the same command. Of a store
or the classifier, X and X.before, there is one of these:

    X of the old classes                  nothing has been done
    X unfinished or gone, X.before        killed on the way: X.before is what counts, X goes on or begins anew
    X of the new classes, X.before        killed before X.before was removed: X counts
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
from detpipe.datasets.source import Split
from detpipe.heads.stored.feature_head import Examples, FeatureHead, StoredHeadConfig
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.stored.zero_shot import ZeroShotConfig
from detpipe.heads.table import head_class
from detpipe.network.device import resolve_device
from detpipe.network.settings import Device
from detpipe.proposals.methods import method_name
from detpipe.proposals.proposals_db import ProposalsReader
from detpipe.randomness import generator_for
from detpipe.runs.detect_settings import carry_settings
from detpipe.runs.recall import measure_recall
from detpipe.runs.region_plans import class_ious, nearest_places, unlabelled
from detpipe.runs.run_folder import RunFolder, load_splits, splits_digests
from detpipe.runs.run_proposer import keep_proposer
from detpipe.runs.stored_split import StoredSplit
from detpipe.storage.backup import backup_path, keep_backup, successor
from detpipe.storage.dataclass_json import from_json
from detpipe.storage.manifest import Artefact, ArtefactError, Manifest, find_manifest, read_manifest, rekey, same_key
from detpipe.structures import Dataset, Float32Array, GroundTruth, ImageId, ImageRecord

logger = logging.getLogger(__name__)

HeadChange = Callable[[StoredHeadConfig, FeatureHead, Examples, int, bool], FeatureHead]
"""From settings, the old head, the examples under the new classes, the seed and bf16 to the new head."""


@dataclass(frozen=True)
class Trained:
    """The classifier that there is. manifest: what made it."""

    network: FeatureClassifier
    spec: FeatureClassifierSpec
    manifest: Manifest


@dataclass(frozen=True, eq=False)
class StoreChange:
    """What a split's store is to become. before: the one that there is. plan: its regions under the new classes; None
    where an earlier run of the command was killed after it had made them.
    """

    before: FeatureStore
    plan: list[ImageRegions] | None


def trained(folder: RunFolder) -> Trained:
    """The run folder's classifier, or the one that a killed change left aside.

    Raises ClassifierError where there is none that stands on stored features.
    """
    path = folder.classifier
    found = find_manifest(path)
    if (found is None or not found.complete) and backup_path(path).is_dir():
        path = backup_path(path)
    network, spec = load_classifier(path)
    if not isinstance(spec, FeatureClassifierSpec) or not isinstance(network, FeatureClassifier):
        raise ClassifierError(
            f"{path}: classes can be added to a head on stored features, got {kind_in(path).description}; train one: "
            "detpipe train-cls head=svm"
        )
    return Trained(network, spec, read_manifest(path))


def change_classes(config: ClassChange, now: Trained, classes: Sequence[str], said: str, change: HeadChange) -> None:
    """Bring proposals, stores and classifier to `classes`. said: "+name" or "-name", for the manifests.

    All that can be checked is checked before the first of them is changed.
    """
    begun = time.perf_counter()
    new = classes[-1] if said.startswith("+") else None
    splits = load_splits(replace(config.data_source, classes=list(classes)))
    settings_of_head, extractor = head_settings(now.manifest), own_extractor(now)
    check_proposals(config.folder, splits)
    changes = planned_changes(config, now, splits, new)
    check_learnable(settings_of_head, changes[Split.train], classes, new)
    if new is not None:
        settings_of_head.check_class(now.network.head, new)
    adopt_proposals(config.folder, splits)
    for split, one in changes.items():
        stored = StoredSplit(config.folder.proposals, split, splits[split])
        if one.plan is not None:
            change_store(config, stored, extractor, one.before, one.plan, said)
        shutil.rmtree(backup_path(config.folder.features(split)), ignore_errors=True)
    store = open_store(config.folder.features(Split.train))
    bf16 = bool(now.manifest.settings.get("bf16", False))  # in the precision that the head was trained in
    head = change(settings_of_head, now.network.head, examples_of(store), config.seed, bf16)
    spec = replace(now.spec, classes=store.classes, category_ids=store.category_ids)
    settings = {**now.manifest.settings, "classifier": spec, "changed": _said(now.manifest, said)}
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
    logger.info(
        "classes: %s in %.1f s: now %s -> %s; detect and eval take dataset.classes=[%s]",
        said,
        artefact.manifest.seconds,
        ", ".join(spec.classes),
        artefact.path,
        ",".join(spec.classes),
    )


def check_proposals(folder: RunFolder, splits: Mapping[Split, Dataset]) -> None:
    """Raise ArtefactError unless the proposals are there and of these splits' images, whatever their classes.

    Where an image is another or has none, that is, or where the objects themselves are the proposals.
    """
    manifest = read_manifest(folder.proposals)
    if adopted(manifest, splits) == manifest.inputs:
        return
    if method_name(manifest.settings["proposals"]) == "ground_truth":
        raise ArtefactError(f"{folder.proposals}: made of the objects themselves; run `detpipe propose` overwrite=true")
    expected = left_out_records(manifest)
    with ProposalsReader(folder.proposals) as reader:
        for split, dataset in splits.items():
            for record in dataset.records:
                if (split.value, record.image_id) in reader:
                    for fault in fault_of_image(reader, split, record):
                        raise ArtefactError(fault)
                elif f"{split.value}/{record.image_id}" not in expected:
                    raise ArtefactError(
                        f"{folder.proposals}: no record of {split.value} image {record.image_id}; of new images run "
                        "propose, features and train-cls with overwrite=true: features that are there are taken over"
                    )


def adopt_proposals(folder: RunFolder, splits: Mapping[Split, Dataset]) -> None:
    """Say that the proposals are those of these splits, whose images are the same; their recall is measured anew."""
    manifest = read_manifest(folder.proposals)
    inputs = adopted(manifest, splits)
    if inputs != manifest.inputs:
        rekey(folder.proposals, inputs, measure_recall(folder, splits))


def adopted(manifest: Manifest, splits: Mapping[Split, Dataset]) -> dict[str, str]:
    """The inputs of proposals that are those of these splits."""
    return {**manifest.inputs, **splits_digests(dict(splits))}


def planned_changes(
    config: ClassChange, now: Trained, splits: Mapping[Split, Dataset], new: str | None
) -> dict[Split, StoreChange]:
    """What the stores are to become, the train split's and, where there is one, the test split's.

    Raises ValueError without training images, ArtefactError for a store that is missing or was not made as the
    classifier sees regions, FeatureStoreError for a damaged one, CorruptRecordError for damaged proposals.
    """
    if Split.train not in splits or splits[Split.train].ground_truth is None:
        raise ValueError("expected a train split with annotations, got none: name it in the dataset settings")
    changes = {}
    for split in (Split.train, Split.test):
        path = config.folder.features(split)
        stands = path.is_dir() or backup_path(path).is_dir()
        if split is Split.test and (split not in splits or not stands):
            continue
        found = find_manifest(path)
        done = found is not None and found.complete
        before = open_store(path if done or not backup_path(path).is_dir() else backup_path(path))
        if before.manifest.settings["extraction"] != now.spec.extraction:
            raise ArtefactError(
                f"{before.path}: features of another network or of other settings than the classifier's; run "
                "`detpipe train-cls` on them first, or `detpipe features` as it was when the classifier was trained"
            )
        stored = StoredSplit(config.folder.proposals, split, splits[split])
        known = done and before.classes == stored.dataset.classes
        changes[split] = StoreChange(before, None if known else planned_regions(config, before, stored, new))
    return changes


def planned_regions(
    config: ClassChange, before: FeatureStore, stored: StoredSplit, new: str | None
) -> list[ImageRegions]:
    """The regions of a split's store under the new classes, with those drawn for a new one."""
    if stored.split is Split.test:
        return list(changed_regions(before, stored, {}, None))
    sampling = SamplingConfig(**before.manifest.settings["regions"])
    drawn = drawn_regions(before, stored, new, sampling, config.enough, config.seed) if new is not None else {}
    return list(changed_regions(before, stored, drawn, sampling))


def check_learnable(head: StoredHeadConfig, change: StoreChange, classes: Sequence[str], new: str | None) -> None:
    """Raise ValueError where the regions to come don't teach the head what it needs.

    That is the new class, and of a head that is trained anew every class that it had learnt.
    """
    before = change.before
    labels, ious = before.labels, before.ious
    if change.plan is not None:
        regions = [one.regions for one in change.plan]
        labels = np.concatenate([labels[:0], *(one.labels for one in regions)])
        ious = np.concatenate([ious[:0], *(one.ious for one in regions)])
    at_least = head.positive_iou if isinstance(head, SvmConfig) else 0.0
    taught = {classes[label - 1] for label in np.unique(labels[ious >= at_least]) if label > 0}
    wanted = {before.classes[label - 1] for label in np.unique(before.labels) if label > 0} if head.TOGETHER else set()
    if new is not None and not isinstance(head, ZeroShotConfig):
        wanted.add(new)
    lacking = [name for name in classes if name in wanted and name not in taught]
    if lacking or (head.TOGETHER and not taught):
        near = f" that overlap its objects by head.positive_iou={at_least} or more" if at_least else ""
        raise ValueError(
            f"expected regions of {', '.join(lacking or classes)}{near} to learn from, got none; give a data set with "
            "boxes of it on images that have proposals, or make features of more regions (sampling.*)"
        )


def own_extractor(now: Trained) -> RegionFeatures:
    """The classifier's own backbone, as it made the features that there are."""
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
    said: str,
) -> None:
    """Make a split's store of the planned regions; what features `before` lacks are computed."""
    path = config.folder.features(stored.split)
    draws = said.startswith("+") and stored.split is Split.train
    artefact = Artefact(
        path,
        stage="features",
        settings={
            **before.manifest.settings,
            "classes": stored.dataset.classes,
            "category_ids": stored.dataset.category_ids,
            "changed": _said(before.manifest, said),
            **({"drawn": [config.enough, config.seed]} if draws else {}),
        },
        inputs={
            "proposals": stored.manifest.digest,
            stored.split.value: stored.manifest.inputs[stored.split.value],
        },
    )
    if before.path == path:
        keep_backup(artefact)
        before = open_store(backup_path(artefact.path))
    found = find_manifest(path)
    # A killed change of other settings left other regions: they go, what they were made of stands aside.
    with artefact.making(overwrite=found is not None and not same_key(found, artefact.manifest)) as making:
        making.summary = fill_store(path, plan, extractor, before=before, classes=len(stored.dataset.classes))
    summary = artefact.manifest.summary
    logger.info(
        "classes: %s: %d regions, %d of them new", path, summary["regions"], summary["regions"] - summary["taken_over"]
    )


def changed_regions(
    before: FeatureStore, stored: StoredSplit, drawn: Mapping[ImageId, Float32Array], sampling: SamplingConfig | None
) -> Iterator[ImageRegions]:
    """The regions that a store has, and those drawn for a new class, under the labels of the data set's classes.

    sampling: as they were drawn; None for a split that nothing is learnt from, whose regions have no labels.
    """
    classes = stored.dataset.classes
    for record, found in stored.read():
        if found is None:  # unreadable, named by propose
            continue
        boxes = before.boxes[before.spans.get(record.image_id, slice(0, 0))]
        if sampling is None:
            regions, places = unlabelled(boxes), np.arange(len(boxes))
            overlaps = np.zeros((len(boxes), len(classes)), dtype=np.float32)
        else:
            truth = _truth(stored, record)
            boxes = np.concatenate([boxes, drawn.get(record.image_id, boxes[:0])])
            boxes = boxes[np.sort(np.unique(boxes, axis=0, return_index=True)[1])]
            regions = label_regions(boxes, truth, sampling)
            regions = regions[np.flatnonzero(regions.labels != IGNORED)]
            overlaps = class_ious(regions.boxes, truth, len(classes))
            places = nearest_places(regions.boxes, found.proposals.boxes)
        yield ImageRegions(record, found.image_digest, regions, overlaps, places)


def drawn_regions(
    before: FeatureStore, stored: StoredSplit, new: str, sampling: SamplingConfig, enough: int, seed: int
) -> dict[ImageId, Float32Array]:
    """Boxes (R, 4) on the objects of a new class, by image, as the sampling draws them.

    The stored regions that are on its objects count first; then image after image, in an order of the seed's, until
    there are `enough`: a part of the images has to be looked at only.
    """
    label = stored.dataset.classes.index(new) + 1
    held = 0
    drawn: dict[ImageId, Float32Array] = {}
    for record, found in stored.read():
        truth = _truth(stored, record)
        objects = truth[truth.labels == label]
        if found is None or not len(objects):
            continue
        boxes = before.boxes[before.spans.get(record.image_id, slice(0, 0))]
        held += int((label_regions(boxes, truth, sampling).labels == label).sum())
        generator = generator_for(seed, f"{new}/{record.image_id}")
        regions = sample_regions(found.proposals.boxes, objects, found.image_size, sampling, generator)
        drawn[record.image_id] = regions.boxes[regions.labels > 0]
    names = list(drawn)
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    counts = np.cumsum([held, *(len(drawn[name]) for name in order)])
    return {name: drawn[name] for name, count in zip(order, counts[:-1], strict=True) if count < enough}


def _truth(stored: StoredSplit, record: ImageRecord) -> GroundTruth:
    assert stored.dataset.ground_truth is not None  # a train split without annotations has no store
    return stored.dataset.ground_truth[record.image_id]


def head_settings(manifest: Manifest) -> StoredHeadConfig:
    """The settings that the head was trained with. Raises ArtefactError where the manifest names none that is known."""
    try:
        word, values = manifest.settings["head"], manifest.settings["settings"]
        head: StoredHeadConfig = from_json(values, head_class(word), f"head={word}")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"the classifier's manifest: expected a head and its settings, got: {error}; train the head again"
        ) from error
    return head


def _said(manifest: Manifest, said: str) -> list[str]:
    return [*manifest.settings.get("changed", []), said]
