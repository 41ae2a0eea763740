"""Features, heads on them, detections from them, and classes that come and go, as a person runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from detpipe import Detector
from detpipe.classify.features.network import examples_of
from detpipe.classify.features.store import open_store
from detpipe.classify.kinds import load_classifier
from detpipe.heads.stored.feature_head import FeatureHead
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.storage.manifest import read_manifest
from tests import drawn
from tests.command_line import Outcome, detpipe
from tests.commands.test_run import bytes_of

SEEN = ("features.image_sides=[64]", "features.grid=1", "crops.size=32", "backbone.weights=none", "precision=float32")
REGIONS = ("sampling.regions_per_image=16", "sampling.fg_share=0.5", "detect.max_proposals=30", "device=cpu")
DISC = "dataset.classes=[disc]"
BOTH = "dataset.classes=[disc,square]"


@pytest.fixture(scope="module")
def featured(voc_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with proposals, features of one class, its machine and its detections. Read only."""
    folder = tmp_path_factory.mktemp("features") / "run"
    ran("propose", voc_root, folder, DISC, *drawn.settings("propose"))
    ran("features", voc_root, folder, DISC, *SEEN, *REGIONS)
    ran("train-cls", voc_root, folder, DISC, "head=svm", "backbone.weights=none")
    ran("detect", voc_root, folder, DISC, "detect.max_proposals=30", "precision=float32", "device=cpu")
    return folder


@pytest.fixture
def changed(featured: Path, tmp_path: Path) -> Path:
    return drawn.copy(featured, tmp_path / "run")


def ran(command: str, root: Path, folder: Path, *more: str) -> Outcome:
    outcome = detpipe(*command.split(), *drawn.voc(root), *more, f"run_dir={folder}")
    assert outcome.status == 0, outcome.err
    return outcome


def detect(root: Path, folder: Path, *more: str) -> list[dict[str, float]]:
    settings = ("detect.max_proposals=30", "precision=float32", "device=cpu", "overwrite=true")
    ran("detect", root, folder, *settings, *more)
    found: list[dict[str, float]] = json.loads((folder / "detections.json").read_text())
    return found


def test_stored_features_and_the_network_detect_the_same(voc_root: Path, changed: Path) -> None:
    by_store = json.loads((changed / "detections.json").read_text())
    (changed / "features" / "test" / "manifest.json").unlink()
    by_network = detect(voc_root, changed, DISC)
    assert len(by_store) > 0
    assert by_store == by_network


def test_new_regions_are_seen_in_the_precision_of_the_stored_ones(
    voc_root: Path, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features were computed in float32: on a processor with bf16, too. Asked for bf16, the store does not do."""
    by_store = json.loads((changed / "detections.json").read_text())
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    (changed / "classifier" / "detect.json").unlink()
    settings = ("detect.max_proposals=30", "device=cpu", "overwrite=true")
    ran("detect", voc_root, changed, DISC, *settings)
    assert json.loads((changed / "detections.json").read_text()) == by_store
    assert json.loads((changed / "classifier" / "detect.json").read_text())["precision"] == "float32"
    outcome = ran("detect", voc_root, changed, DISC, *settings, "precision=bf16")
    assert "computing the features" in outcome.out + outcome.err
    assert json.loads((changed / "detections.json").read_text()) != by_store


def test_a_second_look_is_the_same_with_and_without_a_store(voc_root: Path, changed: Path) -> None:
    """The likeliest regions are seen where they moved to, by features that no store has."""
    once = json.loads((changed / "detections.json").read_text())
    by_store = detect(voc_root, changed, DISC, "detect.features.refine=5")
    assert by_store != once
    (changed / "features" / "test" / "manifest.json").unlink()
    assert by_store == detect(voc_root, changed, DISC, "detect.features.refine=5")
    curve = detpipe("curve", *drawn.voc(voc_root), DISC, "detect.features.refine=5", f"run_dir={changed}")
    assert curve.status == 1
    assert "detect.features.refine=5" in curve.err


def test_mirrored_views_are_twice_the_examples(voc_root: Path, changed: Path) -> None:
    ran("features", voc_root, changed, DISC, *SEEN, *REGIONS, "features.mirrored=true", "overwrite=true")
    store = open_store(changed / "features" / "train")
    examples = examples_of(store)
    width = store.features.shape[1] // 2
    assert examples.features.shape == (2 * len(store), width)
    np.testing.assert_array_equal(examples.features[len(store) :], store.features[:, width:])
    np.testing.assert_array_equal(examples.deltas[len(store) :], store.deltas * [-1, 1, 1, 1])
    ran("train-cls", voc_root, changed, DISC, "head=svm", "backbone.weights=none", "overwrite=true")
    by_store = detect(voc_root, changed, DISC)
    (changed / "features" / "test" / "manifest.json").unlink()
    assert len(by_store) > 0
    assert by_store == detect(voc_root, changed, DISC)


def test_eval_beside_what_is_not_finished(voc_root: Path, changed: Path) -> None:
    """It reads the detections, and tells on its page of what else is whole."""
    for name in ("features/test", "classifier"):
        file = changed / name / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "complete": False}))
    (changed / "recall.json").write_text("{")
    outcome = ran("eval", voc_root, changed, DISC)
    assert "features/test: not finished" in outcome.err
    assert "recall.json: expected JSON" in outcome.err
    assert list(json.loads((changed / "metrics.json").read_text())["seconds"]) == [
        "propose",
        "features",
        "detect",
        "eval",
    ]


def test_a_second_run_computes_nothing(voc_root: Path, changed: Path) -> None:
    before = (changed / "features" / "train" / "features.npy").stat().st_mtime_ns
    ran("features", voc_root, changed, DISC, *SEEN, *REGIONS)
    assert (changed / "features" / "train" / "features.npy").stat().st_mtime_ns == before


def test_more_regions_take_over_those_that_are_there(voc_root: Path, changed: Path) -> None:
    more = [*SEEN, *REGIONS, "sampling.jittered=12", "detect.max_proposals=40"]
    refused = detpipe("features", *drawn.voc(voc_root), DISC, *more, f"run_dir={changed}")
    assert refused.status == 1
    assert "regions.jittered: 8 -> 12" in refused.err
    ran("features", voc_root, changed, DISC, *more, "overwrite=true")
    summary = read_manifest(changed / "features" / "test").summary
    assert summary["taken_over"] == 4 * 30
    assert summary["regions"] == 4 * 40
    assert not list((changed / "features").glob("*.before"))


def test_without_features(voc_root: Path, tmp_path: Path) -> None:
    outcome = detpipe("train-cls", *drawn.voc(voc_root), "head=svm", f"run_dir={tmp_path / 'empty'}")
    assert outcome.status == 1
    assert "run `detpipe features` first" in outcome.err


def test_another_network_is_refused(voc_root: Path, changed: Path) -> None:
    outcome = detpipe(
        "train-cls", *drawn.voc(voc_root), "head=svm", "backbone.weights=none", "seed=5", "overwrite=true",
        f"run_dir={changed}",
    )  # fmt: skip
    assert outcome.status == 1
    assert "give the backbone settings" in outcome.err
    assert (changed / "classifier" / "weights.safetensors").is_file()
    for words in (["train-cls", "head=svm"], ["features"]):
        weights = f"backbone.weights={changed / 'gone.pth'}"
        outcome = detpipe(*words, *drawn.voc(voc_root), weights, "overwrite=true", f"run_dir={changed}")
        assert outcome.status == 1
        assert "backbone.weights: expected imagenet" in outcome.err
        assert (changed / "classifier" / "weights.safetensors").is_file()
        assert (changed / "features" / "train" / "manifest.json").is_file()


@pytest.mark.parametrize("moment", ["training", "saving"])
def test_a_training_that_fails_keeps_the_classifier_that_there_is(
    moment: str, voc_root: Path, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no room")

    if moment == "training":
        monkeypatch.setattr("detpipe.heads.stored.prototypes.PrototypesConfig.fit", fails)
    else:
        monkeypatch.setattr("detpipe.commands.train_cls.stored_head.save_classifier", fails)
    before = bytes_of(changed / "classifier")
    words = ["train-cls", *drawn.voc(voc_root), "head=prototypes", "backbone.weights=none", f"run_dir={changed}"]
    outcome = detpipe(*words, "overwrite=true")
    assert (outcome.status, "no room" in outcome.err) == (1, True)
    assert bytes_of(changed / "classifier") == before
    monkeypatch.undo()
    assert detpipe(*words, "overwrite=true").status == 0
    assert bytes_of(changed / "classifier") != before
    assert not (changed / "classifier.before").exists()


def test_overwrite_makes_what_has_a_broken_manifest(voc_root: Path, changed: Path) -> None:
    """As its error says."""
    for name in ("features/train", "classifier"):
        (changed / name / "manifest.json").write_text("{")
    ran("features", voc_root, changed, DISC, *SEEN, *REGIONS, "overwrite=true")
    ran("train-cls", voc_root, changed, DISC, "head=svm", "backbone.weights=none", "overwrite=true")


def test_a_class_added_and_removed(voc_root: Path, changed: Path) -> None:
    one = detect(voc_root, changed, DISC)
    head = load_classifier(changed / "classifier")[0].head
    regions = len(open_store(changed / "features" / "train"))
    ran("classes add", voc_root, changed)  # the data set has one class that the detector lacks
    network, spec = load_classifier(changed / "classifier")
    assert spec.classes == ("disc", "square")
    store = open_store(changed / "features" / "train")
    assert store.classes == ("disc", "square")
    assert len(store) >= regions
    assert (store.labels == 2).any()
    features = torch.from_numpy(store.features[:].astype("float32"))
    with torch.inference_mode():
        before, after = head(features, torch.zeros(len(store), 0)), network.head(features, torch.zeros(len(store), 0))
    assert torch.equal(before[0][:, 1], after[0][:, 1])
    assert torch.equal(before[1][:, 0], after[1][:, 0])
    both = detect(voc_root, changed, BOTH, "detect.max_detections=1000")
    assert {found["category_id"] for found in both} == {1, 2}
    assert [found for found in both if found["category_id"] == 1] == one
    ran("eval", voc_root, changed, BOTH)
    ran("classes remove", voc_root, changed, "name=square")
    assert detect(voc_root, changed, DISC) == one


def test_a_killed_change_goes_on(voc_root: Path, changed: Path) -> None:
    folder = changed / "classifier"
    settings = (folder / "detect.json").read_bytes()
    folder.rename(changed / "classifier.before")  # as it is between the old classifier and the new one
    ran("classes add", voc_root, changed, "name=square")
    assert load_classifier(folder)[1].classes == ("disc", "square")
    assert not (changed / "classifier.before").exists()
    # How its proposals were made stands in the new classifier's folder, too.
    made = read_manifest(changed / "proposals.lmdb").settings["proposals"]
    assert json.loads((folder / "proposals.json").read_text()) == made
    # And how it looks at images.
    assert (folder / "detect.json").read_bytes() == settings


def test_a_killed_change_with_another_setting_begins_anew(voc_root: Path, changed: Path, tmp_path: Path) -> None:
    """Of the killed one there are eight images' rows, of other regions of the new class."""
    whole, before = drawn.copy(changed, tmp_path / "whole"), drawn.copy(changed, tmp_path / "before")
    ran("classes add", voc_root, whole, "name=square", "enough=8")
    ran("classes add", voc_root, changed, "name=square", "enough=1000")
    train = changed / "features" / "train"
    assert len(open_store(train)) > len(open_store(whole / "features" / "train"))
    # As it was after a kill in it: what it is made of stands aside, and the classifier is the old one.
    manifest = json.loads((train / "manifest.json").read_text())
    (train / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    (train / "done.json").write_text("8")
    shutil.copytree(before / "features" / "train", train.with_name("train.before"))
    shutil.rmtree(changed / "classifier")
    shutil.copytree(before / "classifier", changed / "classifier")
    ran("classes add", voc_root, changed, "name=square", "enough=8")
    for name in ("features/train/features.npy", "classifier/weights.safetensors"):
        assert (changed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("classes add", ["name=disc"], "name: expected a new class, got disc"),
        ("classes add", ["name=sqare"], "name: expected training images with objects of sqare"),
        ("classes remove", ["name=disc"], "one of several classes"),
        ("classes remove", [], "got None"),
        ("classes add", ["enough=-1"], "enough: expected at least 0 regions, got -1"),
    ],
)
def test_classes_that_cannot_be_meant(
    command: str, more: list[str], message: str, voc_root: Path, featured: Path
) -> None:
    before = bytes_of(featured)
    outcome = detpipe(*command.split(), *drawn.voc(voc_root), *more, f"run_dir={featured}")
    assert outcome.status == 1
    assert message in outcome.err
    assert bytes_of(featured) == before


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("proposals.lmdb/manifest.json", "proposals.lmdb: expected an artefact"),
        ("proposals.lmdb/data.mdb", "proposals.lmdb"),
        ("features/train/features.npy", "features/train/features.npy: "),
        ("features/test/geometry.npy", "features/test/geometry.npy: "),
        ("classifier/weights.safetensors", "weights.safetensors: "),
    ],
)
def test_a_change_of_what_is_not_whole_changes_nothing(
    spoilt: str, message: str, voc_root: Path, changed: Path
) -> None:
    if spoilt.startswith("proposals"):
        (changed / spoilt).unlink()
    else:
        (changed / spoilt).write_bytes((changed / spoilt).read_bytes()[:2000])
    before = bytes_of(changed)
    outcome = detpipe("classes", "add", *drawn.voc(voc_root), f"run_dir={changed}")
    assert (outcome.status, message in outcome.err) == (1, True), outcome.err
    assert bytes_of(changed) == before


def test_features_of_other_settings_than_the_classifiers(voc_root: Path, changed: Path) -> None:
    file = changed / "features" / "test" / "manifest.json"
    file.write_text(file.read_text().replace('"grid": 1', '"grid": 2'))
    before = bytes_of(changed)
    outcome = detpipe("classes", "add", *drawn.voc(voc_root), f"run_dir={changed}")
    assert (outcome.status, "with the classifier's settings" in outcome.err) == (1, True), outcome.err
    assert bytes_of(changed) == before


def test_a_class_that_would_be_lost(voc_root: Path, changed: Path, tmp_path: Path) -> None:
    """Where classes compete all are trained anew: from annotations of the new one alone there is nothing of the old."""
    ran("train-cls", voc_root, changed, "head=knn", "backbone.weights=none", "overwrite=true")
    root = drawn.copy(voc_root, tmp_path / "squares")
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("disc", "blob"))
    before = bytes_of(changed)
    outcome = detpipe("classes", "add", *drawn.voc(root), "name=square", f"run_dir={changed}")
    assert (outcome.status, "expected regions of disc" in outcome.err) == (1, True), outcome.err
    assert bytes_of(changed) == before


def test_a_test_store_that_is_gone_is_not_missed(voc_root: Path, changed: Path) -> None:
    shutil.rmtree(changed / "features" / "test")
    ran("classes add", voc_root, changed)
    assert load_classifier(changed / "classifier")[1].classes == ("disc", "square")


@pytest.mark.parametrize("head", ["linear", "knn", "prototypes", "two_layers"])
def test_every_head_is_trained_saved_and_used(head: str, voc_root: Path, changed: Path) -> None:
    small = ["head.passes=20", "head.batch_size=16"] if head == "two_layers" else []
    ran("train-cls", voc_root, changed, f"head={head}", *small, "backbone.weights=none", "overwrite=true")
    found = detect(voc_root, changed, DISC)
    assert {one["category_id"] for one in found} <= {1}
    description = json.loads((changed / "classifier" / "classifier.json").read_text())
    assert description["kind"] == "features"


@pytest.mark.parametrize("processor_has_bf16", [False, True])
def test_a_head_is_trained_in_the_precision_asked_for(
    processor_has_bf16: bool, voc_root: Path, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32 is the same on every processor; another precision is another classifier, where it changes the head."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor_has_bf16)
    plain = ["backbone.weights=none"]
    ran("train-cls", voc_root, changed, "head=svm", *plain, "precision=bf16")  # nothing to do: an SVM has no bf16
    assert "bf16" not in read_manifest(changed / "classifier").settings
    two = [*plain, "head=two_layers", "head.passes=20", "head.batch_size=16", "head.networks=1"]
    ran("train-cls", voc_root, changed, *two, "precision=float32", "overwrite=true")
    assert read_manifest(changed / "classifier").settings["bf16"] is False
    said = detpipe("train-cls", *drawn.voc(voc_root), *two, "precision=bf16", f"run_dir={changed}")
    assert (said.status, "bf16: False -> True" in said.err) == (1, True), said.err
    by_hardware = detpipe("train-cls", *drawn.voc(voc_root), *two, f"run_dir={changed}")
    assert by_hardware.status == int(processor_has_bf16), by_hardware.err
    # A class more is learnt in the same precision.
    seen = []
    learn = TwoLayersConfig.fit

    def watched(*arguments: Any, **more: Any) -> FeatureHead:
        seen.append(more["bf16"])
        return learn(*arguments, **more)

    monkeypatch.setattr(TwoLayersConfig, "fit", watched)
    ran("classes add", voc_root, changed, "name=square")
    assert seen == [False]
    assert read_manifest(changed / "classifier").settings["bf16"] is False


def test_machines_of_the_objects_own_boxes(voc_root: Path, changed: Path) -> None:
    """As in rcnn_2014."""
    assert read_manifest(changed / "classifier").settings["settings"]["positive_iou"] == 0
    own = ["sampling.own_boxes=true", "sampling.fg_share=0.1"]
    ran("features", voc_root, changed, DISC, *SEEN, *REGIONS, *own, "overwrite=true")
    assert (open_store(changed / "features" / "train").ious == 1).sum() == len(drawn.TRAIN)
    outcome = ran("train-cls", voc_root, changed, "head=svm_2014", "backbone.weights=none", "overwrite=true")
    assert f"disc: {len(drawn.TRAIN)} positives" in outcome.err


def test_the_whole_flow(voc_root: Path, tmp_path: Path) -> None:
    small = [*SEEN, *REGIONS, "head.passes=3", "head.batch_size=16"]
    ran("run", voc_root, tmp_path / "run", *drawn.settings("propose"), "experiment=rcnn_frozen", *small)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["seconds"]) == ["propose", "features", "train-cls", "detect", "eval"]


@pytest.mark.slow
def test_the_whole_flow_with_a_vision_transformer(voc_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    small = ["features.image_sides=[64]", "head.passes=3", "head.batch_size=16", "backbone.weights=none"]
    network = "backbone.name=timm/vit_tiny_patch16_224"
    ran("run", voc_root, tmp_path / "run", *drawn.settings("propose"), "experiment=features_vit", network, *small)
    assert np.load(tmp_path / "run" / "features" / "train" / "features.npy").shape[1] == (2 * 2 + 1) * 192
    photo = next((voc_root / "JPEGImages").iterdir())
    outcome = detpipe("detect", f"source={photo}", f"run_dir={tmp_path / 'run'}")
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_fine_tuning_before_a_head_on_features(voc_root: Path, tmp_path: Path) -> None:
    """R-CNN's two trainings: the features are those of the fine-tuned backbone."""
    run = tmp_path / "run"
    words = [
        "head=svm",
        "features.image_sides=[]",
        "fine_tune=true",
        "tuning.dropout=0.1",
        "departures=[fewer iterations]",
    ]
    outcome = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *words), f"run_dir={run}")
    assert outcome.status == 0, outcome.err
    seconds = json.loads((run / "metrics.json").read_text())["seconds"]
    assert list(seconds) == ["propose", "crop", "fine-tune", "features", "train-cls", "detect", "eval"]
    assert json.loads((run / "classifier" / "classifier.json").read_text())["head"] == "svm"
    tuned = load_file(run / "fine_tuned" / "classifier" / "weights.safetensors")
    used = load_file(run / "classifier" / "weights.safetensors")
    name = "backbone.conv_head.weight"
    np.testing.assert_array_equal(used[name], tuned[name])
    again = detpipe("run", *drawn.voc(voc_root), *drawn.settings("run", *words), f"run_dir={run}")
    assert again.status == 0, again.err
    refused = detpipe(
        *[
            "run",
            *drawn.voc(voc_root),
            *drawn.settings("run", "fine_tune=true"),
            f"run_dir={tmp_path / 'other'}",
        ]
    )
    assert (refused.status, "fine_tune: expected a head on stored features" in refused.err) == (1, True)


def test_attention_among_stored_regions(voc_root: Path, changed: Path) -> None:
    """Trained, detected from the store and from the images, loaded, changed; what judges single regions refuses it."""
    two = ["head=two_layers", "head.passes=20", "head.batch_size=16", "head.networks=1", "backbone.weights=none"]
    ran("train-cls", voc_root, changed, DISC, *two, "head.attention=1", "precision=float32", "overwrite=true")
    by_store = detect(voc_root, changed, DISC, "detect.features.refine=3")
    assert len(by_store) > 0
    path = voc_root / "JPEGImages" / f"{drawn.TEST[0]}.jpg"
    found = Detector.from_run(changed, device="cpu", precision="float32")(path)
    assert len(found) > 0
    (changed / "features" / "test" / "manifest.json").rename(changed / "kept.json")
    assert detect(voc_root, changed, DISC, "detect.features.refine=3") == by_store
    (changed / "kept.json").rename(changed / "features" / "test" / "manifest.json")
    other = detpipe("train-cls", *drawn.voc(voc_root), DISC, *two, "precision=float32", f"run_dir={changed}")
    assert (other.status, "attention: 1 -> 0" in other.err) == (1, True), other.err
    for command in ("curve", "labels audit"):
        head = ["head=two_layers", "head.attention=1"] if command == "labels audit" else []
        refused = detpipe(*command.split(), *drawn.voc(voc_root), DISC, *head, f"run_dir={changed}")
        assert (refused.status, "head.attention" in refused.err) == (1, True), refused.err
    learned = ("detect.fast_rcnn.duplicates=learned", "overwrite=true", "device=cpu")
    refused = detpipe("detect", *drawn.voc(voc_root), DISC, *learned, f"run_dir={changed}")
    assert (refused.status, "detect.fast_rcnn.duplicates=learned" in refused.err) == (1, True), refused.err
    ran("learning-curve", voc_root, changed, DISC, "shares=[0.5,1]", "resamples=5", "precision=float32", "device=cpu")
    assert json.loads((changed / "learning_curve.json").read_text())["head"]["attention"] == 1
    ran("classes add", voc_root, changed, "name=square")
    assert load_classifier(changed / "classifier")[0].head.attention_layers == 1  # type: ignore[union-attr, operator]
