"""Every head on stored features: it tells classes apart, and what a class more or less does to the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detpipe.heads.bbox_regressor import ridge_regression
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.stored.feature_head import FeatureHead, StoredHeadConfig
from detpipe.heads.stored.linear_svm import SvmConfig
from detpipe.heads.stored.nearest_neighbours import NearestNeighboursConfig
from detpipe.heads.stored.prototypes import PrototypesConfig, k_means
from detpipe.heads.stored.softmax_regression import SoftmaxRegressionConfig
from detpipe.heads.stored.two_layers import TwoLayersConfig
from detpipe.heads.stored.zero_shot import ZeroShotConfig, vectors_of
from tests.heads.stored.examples import clusters, first_classes


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    """Class vectors along the axes of a space of their own."""
    np.save(tmp_path / "vectors.npy", np.eye(4, dtype=np.float64) * 3)
    (tmp_path / "vectors.txt").write_text("d\nc\nb\na\n")
    return str(tmp_path / "vectors.npy")


def heads(vectors: str) -> dict[str, StoredHeadConfig]:
    return {
        "svm": SvmConfig(),
        "softmax": SoftmaxRegressionConfig(),
        "two_layers": TwoLayersConfig(passes=60, batch_size=64, networks=1, hidden=32, lr=0.01),
        "neighbours": NearestNeighboursConfig(k=5),
        "prototypes": PrototypesConfig(background=4),
        "zero_shot": ZeroShotConfig(vectors=vectors),
    }


NAMES = ["svm", "softmax", "two_layers", "neighbours", "prototypes", "zero_shot"]
KEEPS_BITS = ["svm", "prototypes", "zero_shot"]


def scores_of(head: FeatureHead, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seen = clusters(3, seed=seed)
    with torch.inference_mode():
        scores, deltas = head(torch.from_numpy(seen.features), torch.from_numpy(seen.geometry))
    assert deltas is not None
    return scores.numpy(), deltas.numpy(), seen.labels


def test_a_class_whose_vector_does_not_fit(vectors: str) -> None:
    zero_shot = ZeroShotConfig(vectors=vectors)
    head = zero_shot.train(clusters(2), seed=0)
    zero_shot.check_class(head, "c")
    with pytest.raises(ValueError, match=r"got none for \['zebra'\]"):
        zero_shot.check_class(head, "zebra")
    np.save(vectors, np.eye(4, 7))
    with pytest.raises(ValueError, match=r"expected vectors of 4 numbers.*got 7"):
        zero_shot.check_class(head, "c")


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_told_apart(name: str, vectors: str) -> None:
    head = heads(vectors)[name].train(clusters(3), seed=0)
    scores, deltas, labels = scores_of(head)
    assert scores.shape == (150, 4)
    assert deltas.shape == (150, 3, 4)
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    objects = labels > 0
    assert (scores[objects, 1:].argmax(axis=1) == labels[objects] - 1).mean() > 0.95
    # An object's own class scores more for it than for the background.
    own = scores[np.arange(150), labels][objects]
    assert np.median(own) > np.quantile(scores[~objects, 1:].max(axis=1), 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_no_regions(name: str, vectors: str) -> None:
    scores, deltas = heads(vectors)[name].train(clusters(3), seed=0)(torch.zeros(0, 8), torch.zeros(0, 3))
    assert scores.shape == (0, 4)
    assert deltas is not None
    assert deltas.shape == (0, 3, 4)


@pytest.mark.parametrize("name", KEEPS_BITS)
def test_a_class_more_changes_no_bit_of_the_others(name: str, vectors: str) -> None:
    settings, examples = heads(vectors)[name], clusters(3)
    two = settings.train(first_classes(examples, 2), seed=0)
    three = settings.add_class(two, examples, seed=0)
    before, after = scores_of(two), scores_of(three)
    assert after[0].shape == (150, 4)
    assert np.array_equal(before[0][:, 1:], after[0][:, 1:3])
    assert np.array_equal(before[1], after[1][:, :2])
    labels = after[2]
    if name != "zero_shot":  # whose map was learnt while the third class was background
        assert (after[0][labels == 3, 1:].argmax(axis=1) == 2).mean() > 0.95
    again = settings.remove_class(three, 3, first_classes(examples, 2), seed=0)
    assert np.array_equal(before[0], scores_of(again)[0])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(KEEPS_BITS)))
def test_heads_whose_classes_compete_are_trained_anew(name: str, vectors: str) -> None:
    settings, examples = heads(vectors)[name], clusters(3)
    three = settings.add_class(settings.train(first_classes(examples, 2), seed=0), examples, seed=0)
    scores, _, labels = scores_of(three)
    assert (scores[labels > 0, 1:].argmax(axis=1) == labels[labels > 0] - 1).mean() > 0.95
    two = settings.remove_class(three, 3, first_classes(examples, 2), seed=0)
    assert scores_of(two)[0].shape == (150, 3)


def test_without_box_regression_there_are_no_deltas() -> None:
    head = SvmConfig(box_regression=BoxRegression.none).train(clusters(2), seed=0)
    assert head(torch.zeros(1, 8), torch.zeros(1, 3))[1] is None
    two = SvmConfig(box_regression=BoxRegression.none).remove_class(head, 1, first_classes(clusters(2), 1), seed=0)
    assert (two.n_classes, len(two.box_weight)) == (1, 0)
    with pytest.raises(ValueError, match="expected ridge or none for a head on stored features, got joint"):
        SvmConfig(box_regression=BoxRegression.joint)


def test_boxes_are_moved_by_ridge_regression() -> None:
    examples = clusters(1)
    head = SvmConfig(ridge=1e-6).train(examples, seed=0)
    rows = examples.labels == 1
    _, deltas = head(torch.from_numpy(examples.features[rows]), torch.zeros(int(rows.sum()), 3))
    assert deltas is not None
    np.testing.assert_allclose(deltas[:, 0].numpy(), examples.deltas[rows], atol=1e-3)  # which are linear in them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processor_has_bf16", [False, True])
def test_the_precision_is_the_one_asked_for(
    name: str, processor_has_bf16: bool, vectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the processor has. It changes the result of just the heads that say so."""
    settings, examples = heads(vectors)[name], clusters(3)
    exact = settings.train(examples, seed=0, bf16=False).tensors()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor_has_bf16)
    again, rough = (settings.train(examples, seed=0, bf16=bf16).tensors() for bf16 in (False, True))
    assert all(torch.equal(exact[one], again[one]) for one in exact)
    assert all(torch.equal(exact[one], rough[one]) for one in exact) is not settings.USES_BF16


def test_two_layers_learn_boxes_with_the_classes() -> None:
    examples = clusters(2)
    deltas = np.where(examples.labels[:, None] > 0, np.array([0.2, -0.1, 0.3, 0], np.float32), 0).astype(np.float32)
    settings = TwoLayersConfig(passes=60, batch_size=64, networks=2, hidden=32, lr=0.01, dropout=0.0, input_dropout=0.0)
    head = settings.train(replace(examples, deltas=deltas), seed=0)
    rows = examples.labels > 0
    moved = head(torch.from_numpy(examples.features[rows]), torch.from_numpy(examples.geometry[rows]))[1]
    assert moved is not None
    assert moved.shape == (60, 2, 4)
    np.testing.assert_allclose(moved.numpy().mean(axis=(0, 1)), [0.2, -0.1, 0.3, 0], atol=0.02)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])
    by_ridge = replace(settings, box_regression=BoxRegression.ridge).train(examples, seed=0)
    assert by_ridge.tensors()["delta_bias"].shape == (2, 0)
    assert by_ridge.tensors()["box_bias"].shape == (2, 4)


def test_ridge_regression_is_the_same_by_either_matrix() -> None:
    generator = np.random.default_rng(0)
    x, t = generator.normal(0, 1, (6, 9)), generator.normal(0, 1, (6, 2))
    weight, bias = ridge_regression(x, t, 3.0)  # fewer regions than features
    scale = 20 / np.linalg.norm(x, axis=1).mean()
    centred = (x - x.mean(axis=0)) * scale
    wanted = np.linalg.solve(centred.T @ centred + 3 * np.eye(9), centred.T @ (t - t.mean(axis=0))) * scale
    np.testing.assert_allclose(weight, wanted)
    np.testing.assert_allclose(bias, t.mean(axis=0) - x.mean(axis=0) @ wanted)


def test_a_class_without_regions() -> None:
    examples = clusters(2)
    lacking = first_classes(examples, 1)
    lacking = type(lacking)(
        features=lacking.features,
        geometry=lacking.geometry,
        labels=lacking.labels,
        ious=lacking.ious,
        deltas=lacking.deltas,
        class_ious=np.pad(lacking.class_ious, ((0, 0), (0, 1))),
        classes=("a", "b"),
    )
    for settings in (SvmConfig(), NearestNeighboursConfig(), PrototypesConfig()):
        assert settings.NEEDS_EACH
        with pytest.raises(ValueError, match=r"class b: .*dataset\.classes"):
            settings.train(lacking, seed=0)
    for competing in (SoftmaxRegressionConfig(), TwoLayersConfig(passes=20, batch_size=16)):
        assert not competing.NEEDS_EACH
        scores, _, labels = scores_of(competing.train(lacking, seed=0))
        assert np.median(scores[labels == 1, 1]) > np.quantile(scores[labels != 1, 1], 0.9)
        assert np.median(scores[labels == 1, 1]) > 5 * np.median(scores[:, 2])
        nothing = type(lacking)(**{**vars(lacking), "labels": 0 * lacking.labels})
        with pytest.raises(ValueError, match="expected regions of at least one of the classes"):
            competing.train(nothing, seed=0)


def test_the_nearest_neighbour_by_hand() -> None:
    examples = clusters(2, each=1, background=1)
    head = NearestNeighboursConfig(k=1, background_iou=0.5).train(examples, seed=0)
    scores, _ = head(torch.from_numpy(examples.features), torch.from_numpy(examples.geometry))
    assert scores[:, 1:].round().tolist() == [[0, 0], [1, 0], [0, 1]]


def test_k_means() -> None:
    points = np.array([[1, 0], [0.98, 0.2], [0, 1], [0.2, 0.98]], np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    centres = k_means(points, 2, seed=3)
    np.testing.assert_allclose(np.sort(centres[:, 0]), [0.1005, 0.9949], atol=0.01)
    assert k_means(points[:0], 3, seed=0).shape == (0, 2)
    assert len(k_means(points, 9, seed=0)) == 4


def test_an_unseen_class_by_its_vector(tmp_path: Path) -> None:
    # Features are a linear picture of the vectors, so that the map of two classes says where the third lies.
    generator = np.random.default_rng(0)
    vectors = np.array([[1, 0], [0, 1], [-0.7, 0.7]])
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "v.txt").write_text("a\nb\nc\n")
    examples = clusters(3, width=6)
    features = generator.normal(0, 0.3, examples.features.shape).astype(np.float32)
    features[examples.labels > 0, :2] += 4 * vectors[examples.labels[examples.labels > 0] - 1]
    seen = first_classes(type(examples)(**{**vars(examples), "features": features}), 2)
    kept = examples.labels < 3
    taught = type(seen)(
        **{name: value[kept] if isinstance(value, np.ndarray) else value for name, value in vars(seen).items()}
    )
    taught = type(seen)(
        **{**vars(taught), "classes": ("a", "b", "c"), "class_ious": np.pad(taught.class_ious, ((0, 0), (0, 1)))}
    )
    head = ZeroShotConfig(vectors=str(tmp_path / "v.npy")).train(taught, seed=0)
    scores, _ = head(torch.from_numpy(features), torch.from_numpy(examples.geometry))
    third = scores[:, 3].detach().numpy()
    assert third[examples.labels == 3].mean() > third[examples.labels == 1].mean()
    assert (scores[examples.labels == 3, 1:].argmax(dim=1) == 2).float().mean() > 0.9


@pytest.mark.parametrize(
    ("array", "names", "message"),
    [
        (np.eye(2), "a\n", "vector for each of the 1 names"),
        (np.eye(2), "a\nc\n", r"got none for \['b'\]"),
        (np.zeros((2, 2)), "a\nb\n", "finite vectors that are not 0"),
        (np.array([object()], dtype=object), "a\n", r"v\.npy: expected"),
    ],
)
def test_bad_class_vectors(array: np.ndarray, names: str, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    (tmp_path / "v.txt").write_text(names)
    with pytest.raises(ValueError, match=message):
        vectors_of(tmp_path / "v.npy", ("a", "b"))


@pytest.mark.parametrize(("place", "byte"), [(0, 0), (8, 1), (21, 44), (26, 66)])
def test_class_vectors_with_a_damaged_header(place: int, byte: int, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "v.txt").write_text("a\nb\n")
    whole = bytearray((tmp_path / "v.npy").read_bytes())
    whole[place] = byte
    (tmp_path / "v.npy").write_bytes(whole)
    with pytest.raises(ValueError, match=r"v\.npy: expected"):
        vectors_of(tmp_path / "v.npy", ("a", "b"))
