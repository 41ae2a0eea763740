"""`detpipe labels audit`: find labels that may be wrong, by heads that did not see their image -> audit.json, .html.

The steps: regions of every image (labels, copies of them, proposals, made-up faults); their features, stored in
audit/features; heads for each fold, whose scores are stored in audit/scores; probabilities of faults.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from detpipe import boxes as geometry
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.store import FeatureStore, ImageRegions, fill_store, open_store
from detpipe.commands.features import earlier_stores, estimate, extraction_key, make_extractor
from detpipe.commands.labels.audit_settings import LabelsAudit
from detpipe.commands.stage_settings import Features
from detpipe.console import RESULT, amount
from detpipe.datasets.source import DatasetSource, Split
from detpipe.heads.stored.feature_head import StoredHeadConfig
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.heads.table import head_word
from detpipe.labels.cues import ScoredImage
from detpipe.labels.find_suspects import judge, suspects
from detpipe.labels.folds import split_folds
from detpipe.labels.out_of_fold import (
    RegionScores,
    RegionTable,
    Targets,
    moved_boxes,
    reduced,
    score_rows,
    targets_of,
    train_without,
)
from detpipe.labels.regions import AuditRegions, LabelSizes, audit_regions, usable_labels
from detpipe.labels.suspects import Suspect, SuspectKind, read_audit, write_audit
from detpipe.network.device import resolve_bf16
from detpipe.progress import counted
from detpipe.randomness import generator_for
from detpipe.report.labels_page import ImageKey, LabelledObject, LabelsPage, PageImage, write_labels_page
from detpipe.runs.dataset_record import explainer, remember
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.region_plans import unlabelled
from detpipe.runs.run_folder import dataset_digest, load_splits
from detpipe.runs.stored_split import open_split
from detpipe.storage.atomic import replaced
from detpipe.storage.backup import backup_path, keep_backup
from detpipe.storage.input_file import check_input
from detpipe.storage.interrupt import Interrupted, stop_on_signal
from detpipe.storage.manifest import Artefact, ArtefactError, find_manifest, plain
from detpipe.storage.npy_file import NPY_ERRORS
from detpipe.structures import Dataset, Float32Array, GroundTruth, ImageId, ImageRecord, Int64Array

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
BACKGROUND = 80
"""Number of background regions of an image that heads learn from."""
SHOWN = 10
"""Number of suspects that are printed."""


@dataclass(frozen=True, eq=False)
class PlannedImage:
    """An image of the audit. truth: the labels in the order of their file. digest: of the image's file."""

    split: Split
    record: ImageRecord
    truth: GroundTruth
    digest: bytes
    regions: AuditRegions


def run(config: LabelsAudit) -> None:
    """Judge every label of the data set, and list the suspects, the most probable first."""
    head_of(config)  # a wrong head is refused before anything is read
    splits = annotated_splits(config)
    manifest = find_manifest(config.folder.proposals)
    if manifest is None or not manifest.complete:
        raise ArtefactError(
            f"{config.folder.proposals}: expected the proposals of a run, got none; run `detpipe propose` with this "
            "run_dir and data set first"
        )
    planned = plan_images(config, splits)
    extractor = make_extractor(features_settings(config))
    classes = next(iter(splits.values())).classes
    path = config.folder.path / "audit.json"
    artefact = Artefact(
        path,
        stage="labels audit",
        settings={
            "extraction": extraction_key(features_settings(config), extractor),
            "regions": config.regions,
            "folds": config.folds,
            "head": [head_word(head_of(config)), plain(head_of(config)), head_bf16(config)],
            "width": config.width,
            "listed": [config.min_score, config.max_suspects],
            "seed": config.seed,
        },
        inputs={"proposals": manifest.digest, **{split.value: dataset_digest(one) for split, one in splits.items()}},
        explain=explainer(config.folder, {split.value: one for split, one in splits.items()}),
    )
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            remember(config.folder, splits.values())
            keep_dataset(config.folder, config.data_source)
            store = make_store(config, extractor, splits, planned)
            found = audit(config, store, planned, classes, artefact.manifest.digest[:16])
            write_audit(path, labels_digest(splits), found)
            making.summary = summary_of(found, planned)
            shutil.rmtree(config.folder.path / "audit" / "scores", ignore_errors=True)
            write_page(config, splits, planned, found)
    report(artefact, config.folder.path / "audit.html")


def annotated_splits(config: LabelsAudit) -> dict[Split, Dataset]:
    """Return the splits whose labels are judged. Raises ValueError if no split has annotations."""
    splits = {
        split: dataset
        for split, dataset in load_splits(config.data_source).items()
        if split in config.splits and dataset.ground_truth is not None
    }
    if not splits:
        names = ", ".join(split.value for split in config.splits)
        raise ValueError(f"splits: expected annotations in one of the splits {names}, got none; give others")
    return splits


def features_settings(config: LabelsAudit) -> Features:
    """Return the settings of `detpipe features` that compute the features of the audit."""
    return Features(
        run_dir=config.run_dir,
        dataset=config.dataset,
        seed=config.seed,
        device=config.device,
        backbone=config.backbone,
        features=config.features,
        precision=config.precision,
    )


def head_of(config: LabelsAudit) -> StoredHeadConfig:
    """Return the head's settings. The default has few networks and short training: some of the labels are wrong.

    Raises ValueError for a head that is not trained on stored features, and for one with attention: the regions of an
    image have copies of boxes with errors among them, which no region may attend to.
    """
    if config.head is None:
        return TwoLayersConfig(networks=2)
    if not isinstance(config.head, StoredHeadConfig):
        raise ValueError(
            f"head: expected a head on stored features, as linear or two_layers, got {type(config.head).__name__}"
        )
    if config.head.attention_layers:
        raise ValueError(
            "head.attention: expected 0, since the audit judges each region by itself, got "
            f"{config.head.attention_layers}"
        )
    return config.head


def head_bf16(config: LabelsAudit) -> bool:
    """Return whether the head trains in bf16. Heads on stored features train on the CPU."""
    return head_of(config).USES_BF16 and resolve_bf16(config.precision, CPU)


def plan_images(config: LabelsAudit, splits: Mapping[Split, Dataset]) -> list[PlannedImage]:
    """Return the readable images of all splits with their regions, in order.

    The same image in two splits is judged once. The regions are a pure function of labels, proposals, settings and
    seed. Raises ValueError for less than two images.
    """
    read = []
    seen = set()
    for split, dataset in splits.items():
        assert dataset.ground_truth is not None
        for record, proposed in open_split(config.folder.proposals, split, dataset).read():
            name = (record.image_id, record.path)
            if proposed is not None and name not in seen:
                seen.add(name)
                read.append((split, record, dataset.ground_truth[record.image_id].measured, proposed))
    if len(read) < 2:
        raise ValueError(
            f"labels audit: expected at least 2 images with proposals, got {len(read)}; a label is judged by heads "
            "that were trained on other images"
        )
    sizes = label_sizes([(truth, record.image_size) for _, record, truth, _ in read])
    return [
        PlannedImage(
            split,
            record,
            truth,
            proposed.image_digest,
            audit_regions(
                proposed.proposals.boxes,
                truth,
                record.image_size,
                sizes,
                config.regions,
                generator_for(config.seed, f"{split.value}/{record.image_id}"),
            ),
        )
        for split, record, truth, proposed in read
    ]


def label_sizes(truths: Sequence[tuple[GroundTruth, tuple[int, int]]]) -> LabelSizes:
    """Return size and class of all labels with an area, from the labels and the (height, width) of each image."""
    shares, labels = [np.zeros((0, 2), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
    for truth, image_size in truths:
        boxes, usable = usable_labels(truth, image_size)
        kept = usable & ~truth.crowd
        sizes = (boxes[kept, 2:] - boxes[kept, :2]) / np.array(image_size[::-1], dtype=np.float32)
        shares.append(sizes.astype(np.float32))
        labels.append(truth.labels[kept])
    return LabelSizes.sample(np.concatenate(shares), np.concatenate(labels))


def make_store(
    config: LabelsAudit,
    extractor: RegionFeatures,
    splits: Mapping[Split, Dataset],
    planned: Sequence[PlannedImage],
) -> FeatureStore:
    """Compute the features of all regions, unless they are there. Images whose labels are unchanged are not read again.

    Their rows come from the store of an earlier audit. Rows that the run's own features have are not computed either,
    if these were made with the same settings.
    """
    dataset = next(iter(splits.values()))
    artefact = Artefact(
        config.folder.path / "audit" / "features",
        stage="features",
        settings={
            "extraction": extraction_key(features_settings(config), extractor),
            "regions": config.regions,
            "seed": config.seed,
            "classes": dataset.classes,
            "category_ids": dataset.category_ids,
        },
        inputs={
            "proposals": open_split(config.folder.proposals, *next(iter(splits.items()))).manifest.digest,
            **{split.value: dataset_digest(one) for split, one in splits.items()},
        },
    )
    found = find_store_manifest(artefact)
    if found is not None and found != artefact.manifest.digest:
        keep_backup(artefact)
        artefact.refuse_foreign()
    with artefact.making(overwrite=found is not None and found != artefact.manifest.digest) as making:
        if making.needed:
            own = [config.folder.features(split) for split in (Split.train, Split.test)]
            before = earlier_stores(artefact, *own)
            plan = [store_regions(one, len(dataset.classes)) for one in planned]
            estimate(extractor, plan, before)
            making.summary = fill_store(artefact.path, plan, extractor, before=before, classes=len(dataset.classes))
    shutil.rmtree(backup_path(artefact.path), ignore_errors=True)
    return open_store(artefact.path)


def find_store_manifest(artefact: Artefact) -> str | None:
    """Return the digest of the store on disk: None without a store, "" for a damaged manifest."""
    try:
        found = find_manifest(artefact.path)
    except ArtefactError:  # it is made again
        return ""
    return None if found is None else found.digest


def store_regions(image: PlannedImage, classes: int) -> ImageRegions:
    """Return the regions of an image as a store has them: without labels, so that it can be used with other labels."""
    regions = unlabelled(image.regions.boxes)
    overlaps = np.zeros((len(regions), classes), dtype=np.float32)
    return ImageRegions(image.record, image.digest, regions, overlaps, image.regions.ranks)


def audit(
    config: LabelsAudit, store: FeatureStore, planned: Sequence[PlannedImage], classes: Sequence[str], key: str
) -> list[Suspect]:
    """Return the suspects. key: the digest of the audit, under which scores are kept."""
    folds = image_folds(config, planned, len(classes))
    table = region_table(config, store, planned, classes, folds)
    images = scored_images(planned, fold_scores(config, table, all_targets(config, planned), key))
    judgement = judge(images, folds, len(classes), config.seed)
    return suspects(images, judgement, classes, min_score=config.min_score)[: config.max_suspects]


def image_folds(config: LabelsAudit, planned: Sequence[PlannedImage], classes: int) -> Int64Array:
    """Return the fold of each image. Copies of one file are in one fold."""
    counts = [np.bincount(one.truth.labels, minlength=classes + 1)[1:] for one in planned]
    class_counts = np.array(counts, dtype=np.int64).reshape(len(planned), classes)
    return split_folds(class_counts, [one.digest for one in planned], config.folds, config.seed)


def region_table(
    config: LabelsAudit,
    store: FeatureStore,
    planned: Sequence[PlannedImage],
    classes: Sequence[str],
    folds: Int64Array,
) -> RegionTable:
    """Return the regions of all images with their features, reduced and in memory. folds: of each image."""
    return RegionTable(
        features=reduced(store.features, config.width, config.seed),
        geometry=store.geometry,
        boxes=store.boxes,
        folds=np.repeat(folds, [len(one.regions) for one in planned]),
        classes=tuple(classes),
    )


def scored_images(planned: Sequence[PlannedImage], scores: RegionScores) -> list[ScoredImage]:
    """Return the images with the scores of their regions."""
    ends = np.cumsum([len(one.regions) for one in planned])
    return [
        ScoredImage(
            image_id=one.record.image_id,
            split=one.split.value,
            image_size=one.record.image_size,
            truth=one.truth,
            regions=one.regions,
            scores=scores.scores[end - len(one.regions) : end],
            moved=moved_boxes(one.regions.boxes, scores.deltas[end - len(one.regions) : end], one.record.image_size),
        )
        for one, end in zip(planned, ends, strict=True)
    ]


def all_targets(config: LabelsAudit, planned: Sequence[PlannedImage]) -> Targets:
    """Return what heads learn of the regions of all images."""
    parts = []
    for one in planned:
        boxes, usable = usable_labels(one.truth, one.record.image_size)
        truth = GroundTruth(boxes, one.truth.labels, one.truth.difficult, one.truth.crowd, geometry.area(boxes))
        generator = generator_for(config.seed + 1, f"{one.split.value}/{one.record.image_id}")
        parts.append(targets_of(one.regions, truth[usable], BACKGROUND, generator))
    return Targets(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "ious", "deltas")))


def fold_scores(config: LabelsAudit, table: RegionTable, targets: Targets, key: str) -> RegionScores:
    """Return the scores of all regions by heads that did not see their image.

    The scores of a fold are kept in audit/scores until the audit is finished. Raises Interrupted after a signal.
    """
    folder = config.folder.path / "audit" / "scores"
    n, k = len(table.boxes), len(table.classes)
    everything = np.zeros((n, k + 4), dtype=np.float32)
    with stop_on_signal() as stop, counted("heads", total=config.folds, unit="folds") as count:
        for fold in range(config.folds):
            rows = np.flatnonzero(table.folds == fold)
            path = folder / f"{key}_{fold}.npy"
            found = kept_scores(path, (len(rows), k + 4))
            if found is None:
                head = train_without(table, targets, fold, head_of(config), seed=config.seed, bf16=head_bf16(config))
                if head is None and len(rows):
                    logger.warning("labels audit: no object outside of fold %d; its labels are not judged", fold)
                scored = score_rows(head, table, rows)
                found = np.concatenate([scored.scores, scored.deltas], axis=1)
                with replaced(path) as scratch, scratch.open("wb") as file:
                    np.save(file, found)
            everything[rows] = found
            count.advance()
            if stop:
                raise Interrupted(f"scores so far are in {folder}; run the same command again, it continues from there")
    return RegionScores(everything[:, :k], everything[:, k:])


def kept_scores(path: Path, shape: tuple[int, int]) -> Float32Array | None:
    """Return the scores of a fold that an interrupted audit left, or None if the file is missing or damaged."""
    try:
        check_input(path, "an array")
        found = np.array(open_memmap(path, mode="r"))
    except NPY_ERRORS:
        return None
    return found if found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all() else None


def summary_of(found: Sequence[Suspect], planned: Sequence[PlannedImage]) -> dict[str, int]:
    """Return the summary of the manifest: images, labels, suspects, and those above 0.5 by kind."""
    probable = Tally(one.kind for one in found if one.score > 0.5)
    return {
        "images": len(planned),
        "labels": sum(len(one.truth) for one in planned),
        "suspects": len(found),
        **{kind.value: probable[kind] for kind in SuspectKind},
    }


def write_page(
    config: LabelsAudit, splits: Mapping[Split, Dataset], planned: Sequence[PlannedImage], found: Sequence[Suspect]
) -> None:
    """Write audit.html, on which a person corrects the suspects."""
    classes = next(iter(splits.values())).classes
    ids = {split: object_ids(config.data_source, split, classes) for split in splits}
    images: dict[ImageKey, PageImage] = {
        (one.split.value, one.record.image_id): page_image(one, classes, ids[one.split].get(one.record.image_id, []))
        for one in planned
    }
    labels = sum(len(one.truth) for one in planned)
    write_labels_page(
        config.folder.path / "audit.html",
        LabelsPage(
            title="Labels that may be wrong",
            subtitle=f"{labels} labels in {len(planned)} images, each judged by heads that did not see its image",
            dataset=labels_digest(splits),
            classes=classes,
            items=found,
            images=images,
        ),
        config.page,
        workers=config.workers,
    )


def object_ids(source: DatasetSource, split: Split, classes: Sequence[str]) -> dict[ImageId, list[str | None]]:
    """Return the annotation ids of the objects of each image, in the order of their file; None without an id."""
    return {entry.image_id: [one.id for one in entry.objects if one.name in classes] for entry in source.entries(split)}


def page_image(one: PlannedImage, classes: Sequence[str], ids: Sequence[str | None]) -> PageImage:
    """Return an image of the page with all its labels, in the order of their file. ids: of its annotations."""
    rows = zip(one.truth.boxes.tolist(), one.truth.labels.tolist(), ids, strict=True)
    return PageImage(
        record=one.record,
        objects=[
            LabelledObject(box=(x1, y1, x2, y2), label=classes[label - 1], id=own_id)
            for (x1, y1, x2, y2), label, own_id in rows
        ],
    )


def report(artefact: Artefact, page: Path) -> None:
    """Log the number of suspects by kind, and the first ones."""
    summary, path = artefact.manifest.summary, artefact.path
    found = read_audit(path).suspects
    lines = [
        f"{one.score:.2f}  {one.kind.value.replace('_', ' '):<12} {one.split}/{one.image}  {one.label}: {one.why}"
        for one in found[:SHOWN]
    ]
    numbers = ", ".join(f"{summary[kind.value]} {kind.value.replace('_', ' ')}" for kind in SuspectKind)
    logger.log(
        RESULT,
        "labels audit: %s in %s in %.1f s; with a probability above 0.5: %s%s\n-> %s",
        amount(summary["labels"], "labels"),
        amount(summary["images"], "images"),
        artefact.manifest.seconds,
        numbers,
        "".join(f"\n{line}" for line in lines),
        f"{path}, {page}",
    )
