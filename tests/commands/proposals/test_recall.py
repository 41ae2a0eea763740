"""`proposals recall` on the drawn data: what it writes, what it compares, and what it refuses."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands.proposals.recall import run
from detpipe.commands.proposals.settings import ProposalsRecall
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.source import Split
from detpipe.datasets.voc import VocSource
from detpipe.proposals.baselines import Gaussian
from detpipe.storage.manifest import ArtefactError
from tests import drawn
from tests.commands.proposals.proposed import propose_all_but, propose_into


def recall(voc_root: Path, run_dir: Path, *against: Path, **settings: Any) -> dict[str, Any]:
    settings = {"resamples": 50, **settings}
    source = VocSource(root=str(voc_root))
    run(ProposalsRecall(run_dir=str(run_dir), dataset=source, against=list(map(str, against)), **settings))
    content: dict[str, Any] = json.loads((run_dir / "recall_curves.json").read_text())
    return content


def test_two_methods(voc_root: Path, proposed_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    content = recall(voc_root, proposed_copy / "gaussian", proposed_copy / "oracle" / "proposals.lmdb")
    assert list(content["methods"]) == ["gaussian", "oracle"]
    gaussian, oracle = content["methods"].values()
    assert (oracle["method"], oracle["images"], oracle["objects"]) == ("ground_truth", 4, 8)
    assert oracle["at"]["100"]["ar"] == {"value": 1, "low": 1, "high": 1}
    assert oracle["by_class"]["disc"]["objects"] == 4
    assert sum(one["objects"] for one in oracle["by_size"].values()) == 8
    assert gaussian["curves"]["longest"] == 60
    # The numbers are those that propose wrote.
    written = json.loads((proposed_copy / "gaussian" / "recall.json").read_text())
    for budget in ("100", "1000"):
        stated = {name: one["value"] for name, one in gaussian["at"][budget].items()}
        assert stated == pytest.approx(written[budget])
    paired = content["first_minus"]["oracle"]
    assert paired["ar"]["difference"] == pytest.approx([gaussian["at"]["100"]["ar"]["value"] - 1] * 4)
    assert paired["ar"]["same_sign"] == [1] * 4
    for name in ("recall_curves.png", "recall_curves.html"):
        assert str(proposed_copy / "gaussian" / name) in caplog.text
        assert (proposed_copy / "gaussian" / name).stat().st_size > 10_000
    assert "  100  gaussian" in caplog.text
    assert "gaussian minus oracle, ar at 2000: -0." in caplog.text


def test_the_same_bytes_again(voc_root: Path, proposed_copy: Path) -> None:
    recall(voc_root, proposed_copy / "gaussian", proposed_copy / "oracle", seed=4)
    files = [proposed_copy / "gaussian" / f"recall_curves.{kind}" for kind in ("json", "png", "html")]
    before = [file.read_bytes() for file in files]
    recall(voc_root, proposed_copy / "gaussian", proposed_copy / "oracle", seed=4)
    assert [file.read_bytes() for file in files] == before


def test_another_split_and_other_budgets(voc_root: Path, proposed_copy: Path) -> None:
    content = recall(voc_root, proposed_copy / "gaussian", split=Split.train, budgets=[7, 3], resamples=0)
    assert content["split"] == "train"
    (method,) = content["methods"].values()
    assert (method["images"], list(method["at"])) == (10, ["3", "7"])
    assert method["at"]["7"]["ar"]["low"] is None
    assert content["first_minus"] == {}


def test_an_image_without_proposals_is_missed(voc_root: Path, tmp_path: Path) -> None:
    folder = propose_all_but(drawn.TEST[0], voc_root, tmp_path / "run")
    (method,) = recall(voc_root, folder)["methods"].values()
    assert (method["images"], method["images_without_proposals"]) == (4, 1)
    assert method["at"]["100"]["abo"]["value"] == pytest.approx(6 / 8)


def test_runs_of_one_name_are_told_apart(voc_root: Path, proposed_copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "gaussian"
    shutil.copytree(proposed_copy / "gaussian", other)
    content = recall(voc_root, proposed_copy / "gaussian", other)
    assert list(content["methods"]) == [str(proposed_copy / "gaussian"), str(other)]
    (paired,) = content["first_minus"].values()
    assert paired["ar"]["difference"] == paired["ar"]["low"] == paired["ar"]["high"] == [0] * 4
    assert paired["ar"]["p"] == [1] * 4


def test_what_is_refused(voc_root: Path, proposed_copy: Path, tmp_path: Path) -> None:
    for places in ([tmp_path / "none"], [proposed_copy / "gaussian", tmp_path / "none"]):
        with pytest.raises(FileNotFoundError, match=r"none: expected a proposals\.lmdb or a run folder"):
            recall(voc_root, *places)
    with pytest.raises(ValueError, match=r"each once, got .*gaussian/proposals\.lmdb twice"):
        recall(voc_root, proposed_copy / "gaussian", proposed_copy / "gaussian" / "proposals.lmdb")
    with pytest.raises(ValueError, match="expected a val split"):
        recall(voc_root, proposed_copy / "gaussian", split=Split.val)
    other = drawn.copy(voc_root, tmp_path / "other")
    image = other / "JPEGImages" / f"{drawn.TEST[0]}.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(ArtefactError, match="give the dataset settings"):
        recall(other, proposed_copy / "gaussian")
    for wrong in ({"budgets": []}, {"budgets": [0]}, {"resamples": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ProposalsRecall(**wrong)


def test_a_folder_without_annotations_is_refused(voc_root: Path, tmp_path: Path) -> None:
    photos = ImageFolderSource(root=str(voc_root / "JPEGImages"))
    propose_into(tmp_path / "run", photos, Gaussian(max_proposals=5))
    with pytest.raises(ValueError, match="no annotations"):
        run(ProposalsRecall(run_dir=str(tmp_path / "run"), dataset=photos))
