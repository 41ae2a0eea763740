"""The model card: its content, its bytes, and hostile names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.export.description import ANY_IMAGE, ExportDescription, ImageForm
from detpipe.runs import model_card
from detpipe.runs.kept_evaluation import FILE, kept_evaluation
from detpipe.runs.model_card import as_text, card_of_run, keep_model_card
from detpipe.runs.run_folder import RunFolder
from tests import drawn


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the classifier's folder alone, as it is moved to another machine."""
    shutil.copytree(finished_run / "classifier", tmp_path / "moved" / "classifier")
    return RunFolder(tmp_path / "moved")


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_card_of_a_run(finished_run: Path) -> None:
    card = (finished_run / "classifier/README.md").read_text()
    _, header, body = card.split("---\n", 2)
    told = yaml.safe_load(header)
    assert told["pipeline_tag"] == "object-detection"
    assert not {"license", "datasets"} & told.keys()
    assert body.startswith("\n# Object detector of 2 classes\n")
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert f"{metrics['voc10']['map']:.3f}" in section(card, "Metrics")
    assert f"{metrics['coco']['AP']:.3f}" in section(card, "Metrics")
    assert f"Measured on {len(drawn.TEST)} images" in section(card, "Metrics")
    for label, name in enumerate(drawn.CLASSES, 1):
        assert f"| {label} | {name} |" in section(card, "Classes")
    manifest = json.loads((finished_run / "classifier/manifest.json").read_text())
    assert all(digest in section(card, "Data") for digest in manifest["inputs"].values())
    assert "R-CNN" in section(card, "Settings")
    assert "began with random ones" in section(card, "Licences")


def test_the_interval_holds_the_number(finished_run: Path) -> None:
    kept = kept_evaluation(finished_run / "classifier")
    assert kept is not None
    for measured in (kept.map, *kept.per_class.values()):
        assert measured.value is not None
        assert measured.low is not None
        assert measured.high is not None
        assert 0 <= measured.low <= measured.value <= measured.high <= 1
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert kept.map.value == pytest.approx(metrics["voc10"]["map"])
    assert {name: one.value for name, one in kept.per_class.items()} == pytest.approx(metrics["voc10"]["per_class"])


def test_equal_folders_give_equal_bytes(finished_run: Path, folder: RunFolder) -> None:
    """Also elsewhere: no path, no time, no name of the machine."""
    card = (finished_run / "classifier/README.md").read_text()
    assert card_of_run(folder) == card
    assert str(finished_run) not in card
    before = (folder.classifier / "README.md").stat().st_mtime_ns
    keep_model_card(folder)
    assert (folder.classifier / "README.md").stat().st_mtime_ns == before


def test_a_detector_that_was_not_evaluated(folder: RunFolder) -> None:
    for name in (FILE, "operating_point.json", "manifest.json"):
        (folder.classifier / name).unlink()
    card = card_of_run(folder)
    assert "`detpipe eval`" in section(card, "Metrics")
    assert "| 1 | disc |\n| 2 | square |" in section(card, "Classes")
    assert "Unknown" in section(card, "Data")


def test_what_differs_in_an_export_is_named(folder: RunFolder) -> None:
    detect = {"max_proposals": 1000, "score_floor": 0.01, "nms_iou": 0.4, "vote_iou": None, "max_detections": 100}
    exported = ExportDescription(
        opset=18,
        kind="crops",
        classes=drawn.CLASSES,
        category_ids=(1, 2),
        needs_boxes=True,
        inputs=ANY_IMAGE.inputs(proposals=True),
        outputs=ANY_IMAGE.outputs(0),
        image=ImageForm(),
        proposals={"method": "SelectiveSearch"},
        detect=detect,
        precision="float32",
        quantize="int8",
    )
    card = card_of_run(folder, exported)
    assert "OnnxDetector" in section(card, "Load it")
    assert "before the export. It differed in: nms_iou 0.3, " in section(card, "Metrics")
    assert "quantize none" in section(card, "Metrics")
    assert "| detect.nms\\_iou | 0.4 |" in section(card, "Settings").replace("detect.nms_iou", "detect.nms\\_iou")


def test_no_classifier_has_no_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_model_card(RunFolder(tmp_path))
    assert (list(tmp_path.iterdir()), caplog.text) == ([], "")


def test_a_damaged_file_is_a_warning(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.classifier / FILE).write_text("{")
    keep_model_card(folder)
    assert FILE in caplog.text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", ""),
        ("traffic light", "traffic light"),
        ("a|b\nc", "a\\|b\N{REPLACEMENT CHARACTER}c"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:alert(1))", "\\[x\\](javascript\\:alert(1))"),
        ("![x](http://a.b/c.png)", "\\!\\[x\\](http\\://a.b/c.png)"),
        ("www.a.b", "www\\.a.b"),
        ("`--` **no** AT&T", "\\`--\\` \\*\\*no\\*\\* AT&amp;T"),
        ("a\u202eb\ud800", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
        ("x" * 101, "x" * 100 + " …"),
        ("\u0645\u0627\u0634\u06cc\u0646\u200c\u0647\u0627", "\u0645\u0627\u0634\u06cc\u0646\u200c\u0647\u0627"),
    ],
)
def test_a_name_stays_text(name: str, shown: str) -> None:
    assert as_text(name) == shown


@given(st.text(st.characters()))
def test_any_name_is_one_cell(name: str) -> None:
    row = as_text(name)
    assert len(row.splitlines()) <= 1
    assert row.replace("\\\\", "").count("|") == row.replace("\\\\", "").count("\\|")
    assert "<" not in row
    row.encode()


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (BackboneConfig(), "Apache-2.0"),
        (BackboneConfig(name="torchvision/resnet18"), "from torchvision"),
        (BackboneConfig(weights="/home/somebody/secret/net.pth"), "the file net.pth"),
        (BackboneConfig(name="caffe", prototxt="lenet", weights="none"), "random"),
    ],
)
def test_the_licence_of_the_initial_weights(backbone: BackboneConfig, said: str) -> None:
    text = model_card._licences(backbone)
    assert said in text
    assert "somebody" not in text
