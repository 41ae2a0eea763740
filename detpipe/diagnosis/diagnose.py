"""The diagnosis of a detector: from objects, detections, traces and proposals to a `BlameResult`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from detpipe.classify.object_trace import ObjectTrace
from detpipe.diagnosis.advice import DetectorSettings, Evidence, find_advice
from detpipe.diagnosis.breakdown import breakdown
from detpipe.diagnosis.causes import REDUCED, STAGES, Miss, find_misses
from detpipe.diagnosis.comparison import compare
from detpipe.diagnosis.false_detections import FalseDetection, FalseType, find_false
from detpipe.diagnosis.oracles import Measured, Scene, perfect_boxes, perfect_classes, perfect_proposals, worth
from detpipe.diagnosis.result import Advice, BlameResult, Comparison, Estimate
from detpipe.metrics.matching import check_covered
from detpipe.metrics.operating_point import best_f1
from detpipe.structures import Detections, Float32Array, GroundTruth, ImageId

RESAMPLES = 1000
"""Bootstrap resamples of the images."""
DEFAULT_THRESHOLD = 0.5
"""The threshold where no detection is right, so that no score is the best one."""
NO_REGIONS = ObjectTrace(proposal_scores={}, scores={})
"""The trace of an object in an image that could not be read."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The missed objects and false detections of all images, in the order of the images."""

    misses: Sequence[Miss]
    wrong: Sequence[FalseDetection]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What a diagnosis needs.

    dataset: its name. classes: label k is classes[k - 1]. scene: objects and detections of all images. threshold: the
    smallest score that counts. threshold_why: where it comes from, in words. traces: of each object by image, None for
    the reduced form; an image without an entry could not be read. run_dir: the run folder, for messages.
    of_objects: detections from the objects' boxes alone, by image; None if the detector is not available.
    detector: settings that the advice names. second_opinion: a sentence about the second classifier.
    """

    dataset: str
    classes: Sequence[str]
    scene: Scene
    threshold: float
    threshold_why: str
    run_dir: str
    second_opinion: str
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None = None
    of_objects: Mapping[ImageId, Detections] | None = None
    detector: DetectorSettings = field(default_factory=DetectorSettings)


@dataclass(frozen=True, kw_only=True, eq=False)
class OtherRun:
    """The run that is compared with. It has the images and objects of the diagnosis.

    run_dir: its folder. reduced: whether its causes are in the reduced form; then this run's are, too.
    """

    run_dir: str
    detections: Mapping[ImageId, Detections]
    threshold: float
    misses: Sequence[Miss]
    reduced: bool


def operating_point(chosen: float | None, scene: Scene) -> tuple[float, str]:
    """The threshold, and where it comes from: as chosen, else the score with the best F1."""
    if chosen is not None:
        return chosen, "as set by threshold"
    point = best_f1(scene.truth, scene.detections)
    if point is None:
        return DEFAULT_THRESHOLD, "the default, because no detection is right"
    return point.score, "the best F1 on these images"


def find_errors(
    scene: Scene,
    classes: Sequence[str],
    *,
    threshold: float,
    traces: Mapping[ImageId, Sequence[ObjectTrace]] | None,
    proposals: Iterable[tuple[ImageId, Float32Array]] | None,
) -> Errors:
    """The errors of all images. `unlabelled` is not among the types yet; see `second_opinion.py`.

    traces: None for the reduced form. An image without an entry could not be read: its objects have no region.
    proposals: of each image, all that are stored (P, 4), best first; None without stored proposals.
    Raises ValueError for detections of unknown images, and for labels outside 1..K.
    """
    check_covered(scene.truth, scene.detections, classes)
    stored = dict(proposals) if proposals is not None else {}
    misses: list[Miss] = []
    wrong: list[FalseDetection] = []
    for image_id, truth in scene.truth.items():
        found = scene.detections[image_id]
        own = None if traces is None else traces.get(image_id, [NO_REGIONS] * len(truth))
        misses += find_misses(
            image_id, truth, found, classes, threshold=threshold, traces=own, proposals=stored.get(image_id)
        )
        wrong += find_false(image_id, truth, found, classes, threshold=threshold)
    return Errors(misses, wrong)


def diagnose(
    inputs: Inputs, errors: Errors, *, other: OtherRun | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> BlameResult:
    """All numbers of the diagnosis. The same images, resamples and seed give the same intervals.

    Without images or objects the mAP is NaN, and there is no advice.
    """
    scene, classes = inputs.scene, inputs.classes
    measured = Measured.of(scene, len(classes), resamples=resamples, seed=seed)
    causes = STAGES if inputs.traces is not None else REDUCED
    missed, false = Counter(one.cause for one in errors.misses), Counter(one.type for one in errors.wrong)
    names = list(dict.fromkeys([one.value for one in (*causes, *FalseType)]))
    return BlameResult(
        dataset=inputs.dataset,
        classes=classes,
        images=len(scene.truth),
        objects=count_objects(scene.truth),
        threshold=inputs.threshold,
        threshold_why=inputs.threshold_why,
        reduced=inputs.traces is None,
        missed={cause: missed[cause] for cause in causes},
        false={kind: false[kind] for kind in FalseType},
        map=Estimate.of(measured.map),
        worth=worth(scene, measured, errors.misses, errors.wrong, names),
        oracle=_oracle(inputs, measured),
        second_opinion=inputs.second_opinion,
        advice=find_advice(_evidence(inputs, errors, measured)),
        misses=errors.misses,
        wrong=errors.wrong,
        breakdown=breakdown(scene.truth, errors.misses, errors.wrong, classes),
        comparison=None if other is None else _comparison(inputs, errors, measured, other, resamples, seed),
    )


def quick_advice(inputs: Inputs, errors: Errors, *, resamples: int = 200, seed: int = 0) -> list[Advice]:
    """The advice of `diagnose` alone, from fewer resamples, so that a report can have it within seconds."""
    measured = Measured.of(inputs.scene, len(inputs.classes), resamples=resamples, seed=seed)
    return find_advice(_evidence(inputs, errors, measured))


def _evidence(inputs: Inputs, errors: Errors, measured: Measured) -> Evidence:
    return Evidence(
        scene=inputs.scene,
        classes=inputs.classes,
        measured=measured,
        misses=errors.misses,
        wrong=errors.wrong,
        threshold=inputs.threshold,
        detector=inputs.detector,
        run_dir=inputs.run_dir,
    )


def count_objects(truth: Mapping[ImageId, GroundTruth]) -> int:
    """The number of objects that are neither difficult nor crowd."""
    return sum(int((~gt.difficult & ~gt.crowd).sum()) for gt in truth.values())


def _oracle(inputs: Inputs, measured: Measured) -> dict[str, Estimate | None]:
    """The mAP with perfect stages."""
    scene, detector = inputs.scene, inputs.detector
    proposals = None
    nms_iou, most = detector.suppressed_above, detector.max_detections
    if inputs.of_objects is not None and nms_iou is not None and most is not None:
        joined = perfect_proposals(scene, inputs.of_objects, nms_iou=nms_iou, max_detections=most)
        proposals = Estimate.of(measured.fixed(joined))
    return {
        "proposals": proposals,
        "classes": Estimate.of(measured.fixed(perfect_classes(scene, inputs.traces))),
        "boxes": Estimate.of(measured.fixed(perfect_boxes(scene))),
    }


def _comparison(
    inputs: Inputs, errors: Errors, measured: Measured, other: OtherRun, resamples: int, seed: int
) -> Comparison:
    theirs = Measured.of(
        Scene(inputs.scene.truth, other.detections), len(inputs.classes), resamples=resamples, seed=seed
    )
    misses = errors.misses
    if other.reduced and inputs.traces is not None:
        reduced = find_errors(inputs.scene, inputs.classes, threshold=inputs.threshold, traces=None, proposals=None)
        misses = reduced.misses
    return compare(
        inputs.scene.truth,
        inputs.classes,
        misses=misses,
        map_samples=measured.map,
        other=other.run_dir,
        other_threshold=other.threshold,
        other_misses=other.misses,
        other_map=theirs.map,
    )
