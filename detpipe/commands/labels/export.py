"""`detpipe labels export`: write the labels, suspects and detections of a run in the format of another tool."""

from __future__ import annotations

import logging
from pathlib import Path

from detpipe.commands.labels.exchange_settings import LabelsExport, Tool
from detpipe.console import RESULT
from detpipe.datasets.coco_results import read_detections
from detpipe.datasets.source import Split
from detpipe.labels.suspects import AuditFile, read_audit
from detpipe.labels.tools.coco_file import write_coco_labels
from detpipe.labels.tools.cvat_xml import label_constructor, write_cvat
from detpipe.labels.tools.exchange import exported
from detpipe.labels.tools.fiftyone import write_fiftyone
from detpipe.labels.tools.label_studio import labelling_interface, write_label_studio
from detpipe.runs.labels_digest import labels_digest
from detpipe.runs.run_folder import load_splits
from detpipe.storage.atomic import write_text

logger = logging.getLogger(__name__)

WRITERS = {
    Tool.coco: write_coco_labels,
    Tool.cvat: write_cvat,
    Tool.label_studio: write_label_studio,
    Tool.fiftyone: write_fiftyone,
}


def run(config: LabelsExport) -> None:
    """Write the file. Suspects come from audit.json, and detections from detections.json, if the run has them."""
    out = config.out_file
    splits = load_splits(config.data_source)
    digest = labels_digest(splits)
    audit = audit_of(config.folder.path / "audit.json", digest)
    if config.only_suspects and audit is None:
        raise ValueError(
            f"only_suspects: expected {config.folder.path / 'audit.json'}, got no such file; run `detpipe labels "
            "audit` first"
        )
    test = splits.get(Split.test)
    has_detections = test is not None and config.folder.detections.is_file()
    detections = read_detections(config.folder.detections, test) if has_detections and test is not None else {}
    export = exported(
        splits,
        digest,
        audit.suspects if audit is not None else [],
        detections,
        min_score=config.min_score,
        only_suspects=config.only_suspects,
    )
    WRITERS[config.tool](out, export)
    beside = ""
    if config.tool is Tool.cvat:
        path = out.with_name(f"{out.stem}_labels.json")
        write_text(path, label_constructor(export.classes) + "\n")
        beside = f", and the labels of the task: {path}"
    if config.tool is Tool.label_studio:
        path = out.with_name(f"{out.stem}_interface.xml")
        write_text(path, labelling_interface(export.classes))
        beside = (
            f", and the labelling interface of the project: {path}; LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT="
            f"{export.folder.parent}, with the local storage {export.folder}"
        )
    logger.log(
        RESULT,
        "labels export: %d objects of %d images, %d of them suspected, %d detections -> %s%s; paths of images are "
        "relative to %s",
        sum(len(image.objects) for image in export.images),
        len(export.images),
        sum(one.suspect is not None for image in export.images for one in image.objects),
        sum(len(image.detections) for image in export.images),
        out,
        beside,
        export.folder,
    )


def audit_of(path: Path, digest: str) -> AuditFile | None:
    """The audit of these labels; None if there is none. Raises ValueError for an audit of other labels."""
    if not path.is_file():
        return None
    audit = read_audit(path)
    if audit.dataset != digest:
        raise ValueError(
            f"{path}: expected the audit of these labels, got one of others; run `detpipe labels audit` again, or move "
            "the file away"
        )
    return audit
