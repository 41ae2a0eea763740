"""`detpipe export`: the network of a run as a file that runs without detpipe, and detector.json to use it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from detpipe.boxes import MAX_LOG_SCALE
from detpipe.classify.classifier_folder import ClassifierError, RegionSpec
from detpipe.classify.export.graph_file import check_onnx_packages, write_onnx, write_torch
from detpipe.classify.export.network_graph import NetworkGraph
from detpipe.classify.kinds import ExportForm, kind_in, load_scorer
from detpipe.commands.detector_settings import Export, Format
from detpipe.console import RESULT
from detpipe.network.settings import Precision
from detpipe.runs.detect_settings import kept_settings
from detpipe.runs.run_proposer import proposer_of_run
from detpipe.storage.atomic import write_json
from detpipe.storage.links import refuse_links
from detpipe.storage.manifest import Artefact, ArtefactError, manifest_path, plain, read_manifest

logger = logging.getLogger(__name__)

STAGE = "export"
DESCRIPTION = "detector.json"
FILES = {Format.onnx: "detector.onnx", Format.torch: "detector.pt2"}


def run(config: Export) -> None:
    """Write the network and its description into a folder. A second call does nothing."""
    if config.out is None:
        refuse_links(config.folder.path)
    if config.format is Format.onnx:
        check_onnx_packages()
    eager = replace(config.detect, compile=False)
    scorer, spec = load_scorer(config.folder.classifier, eager, torch.device("cpu"), bf16=False)
    form = export_form(config)
    content, graph = description(config, spec, form), form.graph(scorer.network, spec)
    artefact = Artefact(
        config.out_folder,
        stage=STAGE,
        settings=content,
        inputs={"classifier": read_manifest(config.folder.classifier).digest},
    )
    refuse_other_stages(artefact, overwrite=config.overwrite)
    if kept_settings(config.folder.classifier).precision is Precision.bf16:
        logger.warning(
            "export: the run's own detections were computed in bf16, the exported network computes in float32: its "
            "scores differ a little; `detpipe detect precision=float32 overwrite=true` measures it"
        )
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            making.summary = {"largest_difference": write(config, graph, content)}
    report(config, artefact)


def description(config: Export, spec: RegionSpec, form: ExportForm) -> dict[str, Any]:
    """Return the content of detector.json: classes, preprocessing, proposals and the settings of detection."""
    detect = config.detect
    content = {
        "file": FILES[config.format],
        "classes": spec.classes,
        "category_ids": spec.category_ids,
        "proposals": proposer_of_run(config.folder).describe(),
        "detect": {
            "max_proposals": detect.max_proposals,
            "score_floor": detect.score_floor,
            "nms_iou": detect.nms_iou,
            **({} if detect.vote_iou is None else {"vote_iou": detect.vote_iou}),
            "max_detections": detect.max_detections,
            "max_log_scale": MAX_LOG_SCALE,
        },
        "precision": Precision.float32,
        "kind": spec.KIND,
        **form.preprocessing(spec, detect),
    }
    return {name: plain(value) for name, value in content.items()}


def export_form(config: Export) -> ExportForm:
    """Return how the run's kind of classifier is exported. Raises ClassifierError if it cannot be exported."""
    kind = kind_in(config.folder.classifier)
    if kind.export is None:
        raise ClassifierError(
            f"export: expected an R-CNN (head=softmax) or a Fast R-CNN (head=fast_rcnn), got {kind.description}; "
            "give the run_dir of one of these"
        )
    return kind.export


def write(config: Export, graph: NetworkGraph, content: dict[str, Any]) -> float:
    """Write both files. Returns the largest difference between the outputs of the file and of the network."""
    results = [{"name": name, "dtype": "float32"} for name in graph.outputs]
    path = config.out_folder / FILES[config.format]
    difference = write_onnx(graph, path) if config.format is Format.onnx else write_torch(graph, path)
    write_json(config.out_folder / DESCRIPTION, {**content, "inputs": graph.inputs, "outputs": results})
    return difference


def refuse_other_stages(artefact: Artefact, *, overwrite: bool) -> None:
    """Raise ArtefactError if the folder has the output of another command, which overwrite=true would delete.

    Also raised for an unreadable manifest if the folder has other files than those of an export.
    """
    try:
        found = artefact.found()
    except ArtefactError as error:
        own = {manifest_path(artefact.path).name, DESCRIPTION, *FILES.values()}
        others = sorted(path.name for path in artefact.path.iterdir() if path.name not in own)
        if others:
            raise ArtefactError(
                f"{artefact.path}: expected the folder of an export, got one with a broken manifest and other files "
                f"({', '.join(others[:3])}); move it away, or give another folder as out="
            ) from error
        if not overwrite:
            raise
        return
    if found is not None and found.stage != STAGE:
        raise ArtefactError(
            f"{artefact.path}: expected the folder of an export, got one of `detpipe {found.stage}`; "
            "give another folder as out="
        )


def report(config: Export, artefact: Artefact) -> None:
    """Log the result."""
    path = config.out_folder / FILES[config.format]
    logger.log(
        RESULT,
        "export: %s, %.1f MB; largest difference from the network: %.1g; description: %s",
        path,
        path.stat().st_size / 1e6,
        artefact.manifest.summary["largest_difference"],
        config.out_folder / DESCRIPTION,
    )
