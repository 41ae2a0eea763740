"""No script from a class, file, layer or image name runs in any page: in Chromium, and by reading the HTML.

Both with the page's own content policy and without it: the policy is a second line of defence.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detpipe.classify.images.contents import Fault
from detpipe.inspect.signals import measure_signals
from detpipe.inspect.step_cost import measure_cost
from detpipe.inspect.tensor_statistics import histogram, tensor_statistics
from detpipe.inspect.weight_change import weight_change
from detpipe.labels.corrections import Action
from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind
from detpipe.metrics.classification import classification_metrics
from detpipe.metrics.evaluate import evaluate
from detpipe.report import (
    blame_page,
    budget_page,
    classification_page,
    database_page,
    labels_page,
    photo_page,
    proposal_page,
    recall_page,
    signals_page,
    source_page,
    time_page,
    training_page,
    weights_page,
)
from detpipe.report.run import page as run_page
from detpipe.structures import Dataset, GroundTruth, ImageRecord
from tests.report.own_scripts import without_own_scripts
from tests.report.run.test_page import found, read
from tests.report.test_blame_page import FOUND as FOUND_TRACED
from tests.report.test_blame_page import TRACES, blamed
from tests.report.test_blame_page import dataset as blamed_images
from tests.report.test_budget_page import DETECTIONS, curve
from tests.report.test_learning_curve_page import curve as learning
from tests.report.test_learning_curve_page import limits
from tests.report.test_learning_curve_page import page_of as page_of_curve
from tests.report.test_recall_page import FOUND, compare, measured

SHORT = "<svg onload=parent.hit()>"
EVIL = f"{SHORT}\"><script>parent.hit()</script>'></style></title></svg><img src=x onerror=parent.hit()>{{{{7*7}}}}"
EVENT = 'x" onmouseover="parent.hit()" autofocus onfocus=\'parent.hit()\''
LINK = "javascript:parent.hit()"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
GREY = np.full((20, 30, 3), 128, np.uint8)
ROWS = [{"iteration": 10, "loss": 2.0, EVIL: 1.0, "val_accuracy": 0.5, "examples_per_second": 4.0, "waiting": 0.1}]


def evil_network() -> nn.Module:
    """A network whose layer has the name of a script. PyTorch refuses only dots in names."""
    network = nn.Sequential()
    network.add_module(EVIL.replace(".", ""), nn.Linear(8, 8, bias=False))
    network.add_module("relu", nn.ReLU())
    return network


def run_html(folder: Path) -> str:
    name = EVIL.replace("/", "") + ".jpg"
    (folder / name).write_bytes(b"no image")
    records = (ImageRecord(name, folder / name, (80, 80)),)
    truth = {name: GroundTruth.from_boxes([[5, 5, 40, 40], [40, 10, 75, 75]], [1, 2])}
    dataset = Dataset(
        name=EVIL, classes=(EVIL, EVENT), category_ids=(1, 2), records=records, ground_truth=truth
    )  # fmt: skip
    detections = {name: found([[5, 5, 40, 40], [60, 60, 79, 79]], [0.9, 0.8], [1, 2])}
    data = run_page.ReportData(
        title=EVIL,
        dataset=dataset,
        detections=detections,
        metrics=evaluate(dataset, detections),
        log_rows=ROWS,
        proposer_rows=ROWS,
        settings={EVIL: {EVENT: EVIL}},
        seconds={EVIL: 3.0},
        check_counts={EVIL: 4},
    )
    return run_page.render(data)


def source_html() -> str:
    one = source_page.picture(
        GREY, found([[1, 1, 9, 9]], [0.9], [1]), [EVIL], file=EVIL, link=LINK, min_score=0.5
    )  # fmt: skip
    return source_page.render(
        source_page.SourcePage(
            source=EVIL,
            classes=[EVIL, "猫"],
            min_score=0.5,
            why=EVIL,
            counts=[(EVIL, 1, 1), ("猫", 1, 1)],
            images=1,
            bad=[EVIL, EVENT],
            pictures=[one],
        )
    )


def photos_html() -> str:
    data = photo_page.PhotoPage(
        source=EVIL,
        classes=[EVIL, "猫"],
        best=[(EVIL, 0.9), ("猫", 0.5)],
        bad=[EVIL, EVENT],
        pictures=[photo_page.picture(GREY, EVIL, [(EVIL, 0.9), ("猫", 0.1)])],
    )
    return photo_page.render(data)


def signals_html() -> str:
    network, x = evil_network(), torch.ones(4, 8)
    signals = measure_signals(network, lambda: network(x).sum())
    return signals_page.render(signals_page.SignalsPage(subtitle=EVIL, signals=signals, maps={EVIL: GREY}))


def time_html() -> str:
    network, x = evil_network(), torch.ones(4, 8)
    cost = measure_cost(network, lambda: network(x).sum(), iterations=1, warm_up=0, backward=True)
    return time_page.render(time_page.TimePage(subtitle=EVIL, machine=EVIL, cost=cost))


def weights_html() -> str:
    tensors = {EVIL: torch.ones(2, 2)}
    statistics = {EVIL: tensor_statistics(tensors[EVIL])}
    return weights_page.render(
        weights_page.WeightsPage(
            subtitle=EVIL,
            shapes={EVIL: (2, 2)},
            statistics=statistics,
            histograms={EVIL: histogram(tensors[EVIL], statistics[EVIL], 5)},
            filters=(EVIL, GREY),
            against=EVIL,
            change=weight_change(tensors, {EVIL: torch.zeros(2, 2)}),
        )
    )


def proposal_html(folder: Path) -> str:
    one = proposal_page.ShownImage.of(EVIL, GREY, 0, None, 0.7)
    proposal_page.write_proposal_page(
        folder / "proposals.html", EVIL, [(LINK, one), (EVENT, one)], top=1, budget=1, min_iou=0.5
    )  # fmt: skip
    return (folder / "proposals.html").read_text("utf-8")


def database_html() -> str:
    return database_page.render(
        database_page.DatabasePage(
            subtitle=EVIL,
            facts={EVIL: EVENT},
            labels={0: 2, 1: 3},
            names={0: EVIL, 1: EVENT},
            faults=[Fault(EVIL, EVENT)],
            fault_count=2,
            sample=[database_page.SampledImage(0, EVIL, EVENT, GREY)],
            mean=GREY,
        )
    )


def classification_html() -> str:
    logits = np.eye(3, dtype=np.float32)
    metrics = classification_metrics(logits, np.array([0, 1, 1]), [EVIL, EVENT, SHORT])
    return classification_page.render(classification_page.ClassificationPage(subtitle=EVIL, metrics=metrics))


def training_html() -> str:
    return training_page.render(
        training_page.TrainingPage(
            subtitle=EVIL,
            rows=ROWS,
            snapshots=[training_page.SnapshotFile(name=EVIL, size=1)],
            settings={EVIL: EVENT},
        )
    )


def recall_html() -> str:
    mine = measured(FOUND)
    return recall_page.render(
        recall_page.RecallPage(
            subtitle=EVIL,
            methods={EVIL: mine, EVENT: mine},
            paired={EVENT: compare(mine, mine)},
            sources={EVIL: EVIL, EVENT: EVIL},
            resamples=30,
        )
    )


def budget_html() -> str:
    made = budget_page.BudgetPage(subtitle=EVIL, curve=curve(DETECTIONS), method=EVIL, resamples=3, timed=1)
    return budget_page.render(made)


def labels_html(folder: Path) -> str:
    name = EVIL.replace("/", "") + ".jpg"
    suspect = Suspect(
        image=name,
        split=EVIL,
        kind=SuspectKind.wrong_class,
        score=0.5,
        object=0,
        box=(5.0, 5.0, 20.0, 20.0),
        label=EVIL,
        suggestion=Suggestion(action=Action.change, label=EVENT),
        why=EVIL,
    )
    known = labels_page.LabelledObject(box=suspect.box, label=EVIL, id=EVENT)
    image = labels_page.PageImage(record=ImageRecord(name, folder / name, (80, 80)), objects=[known])
    page = labels_page.LabelsPage(
        title=EVIL,
        subtitle=EVIL,
        dataset=EVIL,
        classes=[EVIL, EVENT],
        items=[suspect],
        images={(EVIL, name): image},
    )
    return labels_page.render(page, EVIL, LabelsPageConfig())


def blame_html(folder: Path) -> str:
    images = blamed_images(folder, list(TRACES), (EVIL, EVENT, SHORT))
    return blame_page.render(blamed(replace(images, name=EVIL), FOUND_TRACED, TRACES, against=True))


def learning_curve_html() -> str:
    made = learning(0.3, 0.5, 0.65)
    return page_of_curve(made, limits(made, [True] * 3, [0.7] * 3), EVIL)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each page of the package, made of hostile text."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        "run": run_html(folder),
        "source": source_html(),
        "photos": photos_html(),
        "training": training_html(),
        "database": database_html(),
        "classification": classification_html(),
        "proposal": proposal_html(folder),
        "recall": recall_html(),
        "budget": budget_html(),
        "signals": signals_html(),
        "time": time_html(),
        "weights": weights_html(),
        "labels": labels_html(folder),
        "blame": blame_html(folder),
        "learning_curve": learning_curve_html(),
    }


def test_every_template_is_tried(pages: dict[str, str]) -> None:
    templates = Path(run_page.__file__).parents[1] / "templates"
    assert set(pages) == {path.stem for path in templates.glob("*.html")} - {"base", "macros"}


def test_hostile_text_is_escaped_everywhere(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        reader = read(without_own_scripts(page))
        for tag, attributes in reader.tags:
            assert tag not in ("script", "iframe", "object", "embed", "base", "form"), (name, tag)
            assert not [key for key in attributes if key.startswith("on")], (name, tag, attributes)
            for key in ("href", "src", "xlink:href"):
                assert not (attributes.get(key) or "").strip().lower().startswith("javascript:"), (name, attributes)
        assert "hit()" in " ".join(reader.words), name  # the text is there, as text
        assert "49" not in " ".join(words for words in reader.words if "hit()" in words), name  # no template in it ran


def test_no_script_runs_in_chromium(pages: dict[str, str], tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; test_hostile_text_is_escaped_everywhere reads the HTML instead")
    shown = {"control": "<svg onload=parent.control()>"}
    for name, page in pages.items():
        without = POLICY.sub("", page)
        assert without != page, f"{name} has no content policy"
        shown |= {f"{name} with its policy": page, f"{name} without its policy": without}
    frames = "\n".join(f'<iframe name="{name}" srcdoc="{html.escape(page)}"></iframe>' for name, page in shown.items())
    marks = "".join(
        f"function {name}() {{ document.documentElement.setAttribute('data-{name}', 'yes') }}\n"
        for name in ("hit", "control")
    )
    (tmp_path / "all.html").write_text(f"<!DOCTYPE html><script>{marks}</script>{frames}", "utf-8", "replace")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [browser, *options, "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "all.html").as_uri()],
        capture_output=True,
        timeout=240,
        check=True,
    )
    root = re.search(rb"<html[^>]*>", done.stdout)
    assert root is not None
    assert b"data-control" in root[0], "the browser did not run the script of the control"
    assert b"data-hit" not in root[0]
