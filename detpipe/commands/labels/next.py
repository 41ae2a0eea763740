"""`detpipe labels next`: choose images to label next, with boxes drawn in advance -> next.json, next.html."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detpipe import boxes as geometry
from detpipe.backbone.backbone import Backbone
from detpipe.classify.classifier_folder import check_classes
from detpipe.classify.detect import select_detections
from detpipe.classify.image_features import image_features
from detpipe.commands.labels.next_settings import LabelsNext
from detpipe.console import RESULT, amount
from detpipe.datasets.image_file import BrokenImageError, file_digest, read_image
from detpipe.datasets.image_list import DetectedImages
from detpipe.datasets.source import Split
from detpipe.labels.next_images import DrawnBox, NextFile, NextImage, NextScores, write_next
from detpipe.labels.selection import Chosen, Criterion, comparable, select, shares_below
from detpipe.labels.uncertainty import (
    Disagreement,
    disagreement,
    image_uncertainty,
    objectness_of,
    rank_objectness,
    uncertainties,
)
from detpipe.network.device import resolve_device
from detpipe.progress import progress
from detpipe.randomness import generator_for
from detpipe.report.labels_page import ImageToLabel, LabelsPage, PageImage, PredictedBox, write_labels_page
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.detector import Detector
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.operating_point import kept_operating_point, shown_from
from detpipe.runs.run_folder import RunFolder, load_splits
from detpipe.runs.source_folder import source_root
from detpipe.runs.stored_split import open_split
from detpipe.storage.input_file import InputFileError
from detpipe.storage.manifest import find_manifest
from detpipe.structures import (
    BoolArray,
    Dataset,
    Detections,
    Float32Array,
    Float64Array,
    GroundTruth,
    Image,
    ImageRecord,
    LeftOut,
)

logger = logging.getLogger(__name__)

SAME_BOX = 0.7
"""Of boxes of several classes with this IoU only the one with the highest score is drawn."""
WEAK_F1 = 0.3
"""Below this best F1, selection by scores did not help in the benchmark."""
MANY_BOXES = 500
"""Limit on the boxes that are drawn in an image."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that may be chosen. file: relative to the source. regions: number of regions that were classified."""

    record: ImageRecord
    file: str
    found: Detections
    uncertain: Float64Array
    disagreement: Disagreement
    regions: int


def run(config: LabelsNext) -> None:
    """Detect in the images that the data set does not have, score them, choose, and write the file and the page."""
    source = config.source_folder
    splits = load_splits(config.data_source)
    detector = Detector.from_run(
        config.run_dir, device=config.device.value, precision=config.precision.value, max_pixels=config.max_pixels
    )
    for dataset in splits.values():
        check_classes(detector.spec, dataset.classes, dataset.name)
    threshold, why = shown_from(config.folder.classifier, None)
    threshold = min(max(threshold, 1e-3), 1 - 1e-3)  # a threshold of 0 or 1 has no two sides
    logger.info("labels next: threshold %.3f, %s", threshold, why)
    warn_if_weak(config.folder.classifier)
    images, root = source_images(config, source)
    new, known, unread = unknown_images(images, root, splits)
    candidates, bad = detect_candidates(detector, new, root, threshold, objectness_by_rank(config.folder, splits))
    if not candidates:
        raise ValueError(
            f"source={source}: expected images that are readable and not in the data set, got none of "
            f"{len(images.records)}; {len(known)} are in the data set or twice in the folder"
        )
    chosen, scores, unexpected = choose(config, detector, splits, candidates)
    draw_score = config.draw_score if config.draw_score is not None else threshold / 2
    classes = list(detector.spec.classes)
    content = NextFile(
        dataset=labels_digest(splits),
        source=str(Path(source).absolute()),
        classes=classes,
        threshold=threshold,
        draw_score=draw_score,
        candidates=len(candidates),
        known=known,
        unreadable=[*map(str, images.bad), *map(str, unread), *map(str, bad)],
        images=[
            NextImage(
                file=candidates[one.index].file,
                criterion=one.criterion,
                random=one.criterion is Criterion.random,
                why=reason(one, candidates[one.index], classes, threshold, unexpected=bool(unexpected[one.index])),
                scores=NextScores(
                    uncertain=round(float(scores[Criterion.uncertain][one.index]), 6),
                    disagreement=round(float(scores[Criterion.disagreement][one.index]), 6),
                    distance=round(one.distance, 6) if np.isfinite(one.distance) else None,
                ),
                boxes=drawn_boxes(candidates[one.index].found, draw_score, classes),
            )
            for one in chosen
        ],
    )
    write_all(config, content, [candidates[one.index] for one in chosen])


def warn_if_weak(classifier: Path) -> None:
    """Log that selection does not help a detector that finds little; see docs/labels_next.md."""
    point = kept_operating_point(classifier)
    if point is None or point.f1 >= WEAK_F1:
        return
    logger.warning(
        "labels next: the best F1 of this detector is %.2f, so its scores say little about an image; in a benchmark, "
        "random images helped such a detector as much: give shares.random=1 shares.uncertain=0 shares.disagreement=0 "
        "shares.different=0",
        point.f1,
    )


def source_images(config: LabelsNext, source: str) -> tuple[Dataset, Path]:
    """Return the images of the source, and the folder that their names are relative to."""
    listed = DetectedImages(
        root=source,
        max_bad=1.0,
        outside=config.outside,
        max_pixels=config.max_pixels,
        stretch=kept_settings(config.folder.classifier).stretch,
    )
    return listed.load(Split.test), source_root(source)


def unknown_images(
    images: Dataset, root: Path, splits: Mapping[Split, Dataset]
) -> tuple[list[ImageRecord], list[str], list[LeftOut]]:
    """Return the images whose files are new, the names of the others, and the files that can't be read.

    A file is known if one with the same bytes is in the data set, or earlier in the folder.
    """
    seen = {file_digest(record.path) for dataset in splits.values() for record in dataset.records}
    new, known, unread = [], [], []
    for record in images.records:
        try:
            digest = file_digest(record.path)
        except (InputFileError, OSError) as error:
            unread.append(LeftOut.because(record.path, error))
            continue
        if digest in seen:
            known.append(name_in(record, root))
        else:
            seen.add(digest)
            new.append(record)
    if known:
        logger.info("labels next: %d images are in the data set already, or twice in the folder", len(known))
    return new, known, unread


def name_in(record: ImageRecord, root: Path) -> str:
    """Return the name of an image relative to the source, with forward slashes."""
    return record.path.relative_to(root).as_posix()


def objectness_by_rank(folder: RunFolder, splits: Mapping[Split, Dataset]) -> Float64Array | None:
    """Return how often proposals of each rank cover an object of the run's test images, or else training images.

    None if the run has no proposals, or no annotations.
    """
    split = Split.test if Split.test in splits else Split.train
    dataset = splits.get(split)
    truths = dataset.ground_truth if dataset is not None else None
    if dataset is None or truths is None or find_manifest(folder.proposals) is None:
        return None
    stored = open_split(folder.proposals, split, dataset)

    def pairs() -> Iterator[tuple[Float32Array, GroundTruth]]:
        for image, proposals in stored.proposals():
            yield proposals.boxes, truths[image]

    return rank_objectness(pairs())


def detect_candidates(
    detector: Detector, records: Sequence[ImageRecord], root: Path, threshold: float, by_rank: Float64Array | None
) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the scored images, and those that are unreadable."""
    bad: list[LeftOut] = []
    readable: list[tuple[ImageRecord, int]] = []

    def regions() -> Iterator[tuple[Image, Float32Array]]:
        for record in progress(records, "detect", total=len(records), unit="images"):
            try:
                image, boxes = detector.with_regions(record.path)
            except (BrokenImageError, OSError) as error:
                logger.warning("left out: %s", error)
                bad.append(LeftOut.because(record.path, error))
                continue
            readable.append((record, len(boxes)))
            yield image, boxes

    candidates: list[Candidate] = []
    for boxes, scored, image_size in detector.score_many(regions()):
        record, given = readable[len(candidates)]
        found = select_detections(boxes, scored, image_size, detector.config)
        count = given or len(boxes)  # regions that were moved and scored again come last; they have no rank
        objectness = objectness_of(by_rank, count) if by_rank is not None else 1 - np.arange(count) / max(count, 1)
        ranked, background = boxes[:count], scored.probabilities[:count, 0]
        candidates.append(
            Candidate(
                record,
                name_in(record, root),
                found,
                uncertainties(found, threshold),
                disagreement(ranked, background, objectness[: len(ranked)], found, threshold),
                len(ranked),
            )
        )
    return candidates, bad


def choose(
    config: LabelsNext, detector: Detector, splits: Mapping[Split, Dataset], candidates: Sequence[Candidate]
) -> tuple[list[Chosen], Mapping[Criterion, Float64Array], BoolArray]:
    """Return the chosen candidates in the order in which to label them, and the scores of all candidates.

    The last result tells for each candidate whether its disagreement is rather on an unexpected detection than on a
    missed object.
    """
    # Both directions on the same scale, whatever the proposer: the share of candidates with less of it.
    missed = shares_below(np.array([one.disagreement.missed for one in candidates]))
    unexpected = shares_below(np.array([one.disagreement.unexpected for one in candidates]))
    scores = {
        Criterion.uncertain: np.array([image_uncertainty(one.uncertain) for one in candidates]),
        Criterion.disagreement: np.maximum(missed, unexpected),
    }
    known = [record for split, dataset in splits.items() if split is not Split.test for record in dataset.records]
    labelled = features_of(detector, known, config, "features of labelled images")
    new = features_of(detector, [one.record for one in candidates], config, "features of new images")
    before, own = comparable(labelled, new) if len(labelled) else comparable(new[:0], new)
    generator = generator_for(config.seed, "labels next")
    chosen = select(scores, own, before, count=config.count, shares=config.shares, generator=generator)
    return chosen, scores, unexpected > missed


def features_of(detector: Detector, records: Sequence[ImageRecord], config: LabelsNext, what: str) -> Float32Array:
    """Return the features of whole images by the detector's backbone, (N, C). Unreadable images are left out.

    what: for the progress. No images give (0, 0).
    """
    backbone = detector.scorer.network.backbone
    assert isinstance(backbone, Backbone)

    def images() -> Iterator[Image]:
        for record in progress(records, what, total=len(records), unit="images"):
            try:
                yield read_image(record.path, record.options)
            except (BrokenImageError, OSError) as error:
                logger.warning("left out: %s", error)

    found = list(image_features(backbone, images(), resolve_device(config.device)))
    return np.stack(found) if found else np.zeros((0, 0), dtype=np.float32)


def drawn_boxes(found: Detections, draw_score: float, classes: Sequence[str]) -> list[DrawnBox]:
    """Return the detections from a score on, one for each place, the best first."""
    rows = np.flatnonzero((found.scores >= np.float32(draw_score)) & (geometry.area(found.boxes) > 0))
    kept = rows[geometry.nms(found.boxes[rows], found.scores[rows], SAME_BOX)][:MANY_BOXES]
    return [
        DrawnBox(
            box=tuple(round(value, 2) for value in found.boxes[row].tolist()),
            label=classes[found.labels[row] - 1],
            score=round(float(found.scores[row]), 4),
        )
        for row in kept
    ]


def reason(chosen: Chosen, candidate: Candidate, classes: Sequence[str], threshold: float, *, unexpected: bool) -> str:
    """Return one sentence: why the image was chosen."""
    found, facts = candidate.found, candidate.disagreement
    if chosen.criterion is Criterion.random:
        return "Chosen at random, as a control: compare the others with it."
    if chosen.criterion is Criterion.different:
        if not np.isfinite(chosen.distance):
            return "The first image: there is none to compare it with."
        return f"Differs from all labelled and earlier chosen images (distance {chosen.distance:.2f} of at most 2)."
    if chosen.criterion is Criterion.uncertain:
        rows = np.argsort(-candidate.uncertain, kind="stable")[:3]
        named = ", ".join(f"{classes[found.labels[row] - 1]} {found.scores[row]:.2f}" for row in rows)
        return f"Uncertain: scores near the threshold {threshold:.2f}, or of two classes at one place: {named}."
    if facts.detection >= 0 and unexpected:
        name, score = classes[found.labels[facts.detection] - 1], found.scores[facts.detection]
        return f"Disagreement: the classifier finds {name} ({score:.2f}) where the proposer expects no object."
    place = f"{facts.region + 1} of {candidate.regions}"
    return f"Disagreement: the proposer ranks a region {place}, but the classifier takes it for background."


def write_all(config: LabelsNext, content: NextFile, chosen: Sequence[Candidate]) -> None:
    """Write next.json and next.html, and say what was chosen."""
    json_file, html_file = config.folder.path / "next.json", config.folder.path / "next.html"
    write_next(json_file, content)
    page = LabelsPage(
        title="Images to label next",
        subtitle=content.source,
        dataset=content.dataset,
        classes=content.classes,
        items=[
            ImageToLabel(
                image=one.file,
                boxes=[PredictedBox(box=box.box, label=box.label, score=box.score) for box in one.boxes],
                why=one.why,
            )
            for one in content.images
        ],
        images={(None, one.file): PageImage(record=one.record) for one in chosen},
    )
    write_labels_page(html_file, page, config.page)
    for name in content.unreadable:
        logger.warning("unreadable: %s", name)
    numbers = Counter(one.criterion for one in content.images)
    parts = ", ".join(f"{numbers[one]} {one.value}" for one in Criterion if numbers[one])
    logger.log(
        RESULT,
        "labels next: %d of %s (%s), with %s -> %s, %s",
        len(content.images),
        amount(content.candidates, "images"),
        parts,
        amount(sum(len(one.boxes) for one in content.images), "boxes"),
        json_file,
        html_file,
    )
