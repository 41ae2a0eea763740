"""`detpipe blame`: why objects were missed, what false detections show, what to do next -> blame.json, blame.html."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.object_trace import ObjectTrace
from detpipe.commands.blame_settings import Blame
from detpipe.console import RESULT
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.diagnosis.advice import DetectorSettings
from detpipe.diagnosis.diagnose import Errors, Inputs, OtherRun, diagnose, find_errors, operating_point
from detpipe.diagnosis.oracles import Scene
from detpipe.diagnosis.second_opinion import confident_score, questioned, with_second_opinion
from detpipe.report.blame_page import BlamePage, write_blame_page
from detpipe.report.blame_table import blame_text
from detpipe.runs.diagnosed_run import classified_objects, detector_settings, stored_proposals
from detpipe.runs.run_detections import run_detections
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.second_classifier import ask_second
from detpipe.runs.trace_file import read_traces
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import ArtefactError
from detpipe.structures import Dataset, ImageId

logger = logging.getLogger(__name__)


def run(config: Blame) -> None:
    """Find the causes of the missed objects of the test split and the types of the false detections."""
    page = blame(config)
    result = page.result
    write_json(config.folder.blame, result.to_json())
    write_blame_page(config.folder.blame_page, page)
    logger.log(RESULT, "\n%s", blame_text(result))
    logger.log(
        RESULT,
        "blame: %d of %d objects missed; false detections: %d -> %s, %s",
        result.n_missed,
        result.objects,
        result.n_false,
        config.folder.blame,
        config.folder.blame_page,
    )


def blame(config: Blame) -> BlamePage:
    """Return all numbers of the diagnosis, with the images and detections that they are of.

    Raises ValueError if the test split has no annotations, ArtefactError and ClassifierError if there are no
    detections, or if they are of other images or classes.
    """
    dataset = config.data_source.load(Split.test, needs_images=config.detections is None)
    truth = dataset.measured_truth
    if truth is None:
        raise ValueError(
            f"{dataset.name}: expected annotations of the test images, got none; give a data set with them"
        )
    own = config.detections is None
    detections = (
        run_detections(config.folder, dataset) if own else read_detections(Path(str(config.detections)), dataset)
    )
    scene = Scene(truth, detections)
    threshold, why = operating_point(config.threshold, scene)
    stored_traces = read_traces(config.folder.object_traces, dataset) if own else None
    if own and stored_traces is None:
        logger.warning(
            "%s: expected what became of each object, got no such file of these images; the causes are those that the "
            "detections alone show. Run `detpipe detect` with overwrite=true for the stages",
            config.folder.object_traces,
        )
    traces = None if stored_traces is None else stored_traces.images
    other = None if config.against is None else RunFolder(Path(config.against))
    stored_others = None if other is None else read_traces(other.object_traces, dataset)
    other_traces = None if stored_others is None else stored_others.images
    compared = None if other is None else other_run(other, dataset, other_traces if traces is not None else None)
    proposals = stored_proposals(config.folder, dataset) if own else None
    errors = find_errors(scene, dataset.classes, threshold=threshold, traces=traces, proposals=proposals)
    errors, opinion = second_opinion(config, dataset, scene, threshold, errors)
    detector = detector_settings(config.folder, config.data_source, dataset) if own else DetectorSettings()
    inputs = Inputs(
        dataset=dataset.name,
        classes=dataset.classes,
        scene=scene,
        threshold=threshold,
        threshold_why=why,
        run_dir=config.run_dir,
        second_opinion=opinion,
        traces=traces,
        of_objects=classified_objects(config, dataset) if own and config.classify_objects else None,
        detector=detector,
    )
    if other is not None and traces is not None and other_traces is None:
        logger.warning(
            "%s: has no object_traces.json of these objects, so its causes are those that the detections alone show; "
            "run `detpipe detect` with overwrite=true there",
            other.path,
        )
    result = diagnose(inputs, errors, other=compared, resamples=config.resamples, seed=config.seed)
    return BlamePage(result=result, dataset=dataset, detections=detections)


def second_opinion(
    config: Blame, dataset: Dataset, scene: Scene, threshold: float, errors: Errors
) -> tuple[Errors, str]:
    """Return the errors with the type `unlabelled`, and a sentence about the second classifier."""
    asked = questioned(errors.wrong, confident_score(scene.truth, scene.detections, threshold))
    if not asked:
        return errors, "No detection on background is confident enough to show an object without a label."
    scores, sentence = ask_second(config, config.second_opinion, dataset, asked)
    return replace(errors, wrong=with_second_opinion(errors.wrong, scores)), sentence


def other_run(folder: RunFolder, dataset: Dataset, traces: Mapping[ImageId, Sequence[ObjectTrace]] | None) -> OtherRun:
    """Return the other run, on the objects of this one."""
    try:
        detections = run_detections(folder, dataset)
    except (ArtefactError, ClassifierError) as error:
        raise type(error)(f"against={folder.path}: {error}") from error
    truth = dataset.measured_truth
    assert truth is not None
    scene = Scene(truth, detections)
    threshold, _ = operating_point(None, scene)
    errors = find_errors(
        scene,
        dataset.classes,
        threshold=threshold,
        traces=traces,
        proposals=stored_proposals(folder, dataset) if traces is not None else None,
    )
    return OtherRun(
        run_dir=str(folder.path),
        detections=detections,
        threshold=threshold,
        misses=errors.misses,
        reduced=traces is None,
    )
