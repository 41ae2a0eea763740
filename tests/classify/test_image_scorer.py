"""Scores from one pass over the image: an oracle that reads colours finds every object, at every scale and mirrored."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detpipe.backbone.backbone import Backbone, FeatureMap
from detpipe.backbone.input_spec import InputSpec
from detpipe.boxes import decode
from detpipe.classify.detect import DetectConfig, ScoredRegions, select_detections
from detpipe.classify.image_scorer import REFINED_FROM, ImageScorer, moved_by_best
from detpipe.heads.fast_rcnn import FastRcnn, FastRcnnHead
from detpipe.metrics.evaluate import evaluate
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord
from tests.classify import tiny

CPU = torch.device("cpu")
COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


class PixelBackbone(Backbone):
    """Its only map are the pixels."""

    def __init__(self) -> None:
        super().__init__(InputSpec((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 3, {"pixels": FeatureMap(1, 3)})
        self.nothing = nn.Linear(3, 3)

    @property
    def stages(self) -> list[tuple[str, nn.Module]]:
        return [("nothing", self.nothing)]

    def forward_maps(self, x: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        return dict.fromkeys(names, x)


class Oracle(FastRcnn):
    """A region is the class whose colour fills it, and background where another colour is in it, too."""

    def classify(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        purest = torch.stack(
            [
                (pooled - torch.tensor(colour, dtype=torch.float32)[:, None, None]).abs().mean(dim=(1, 2, 3))
                for colour in COLOURS
            ],
            dim=1,
        )
        return torch.cat([torch.zeros(len(pooled), 1), 10 * (purest < 40).float() - 5], dim=1), None


def oracle() -> Oracle:
    head = FastRcnnHead(maps=["pixels"], merge_width=None, pool_size=9, hidden=4)
    return Oracle(PixelBackbone(), len(COLOURS), head, seed=0).eval()


def painted(number: int) -> tuple[Image, GroundTruth]:
    """An image of odd size with a rectangle of each class on grey, far enough apart."""
    generator = np.random.default_rng(number)
    height, width = generator.integers(90, 200, 2)
    image = np.full((height, 3 * width, 3), 120, dtype=np.uint8)
    boxes = []
    for turn, colour in enumerate(generator.permutation(COLOURS)):
        w, h = generator.integers(24, width - 20), generator.integers(24, height - 20)
        x, y = turn * width + generator.integers(8, width - w - 8), generator.integers(8, height - h - 8)
        image[y : y + h, x : x + w] = colour
        boxes.append((x, y, x + w, y + h, 1 + COLOURS.index(tuple(colour.tolist()))))
    rows = np.array(boxes, dtype=np.float32)
    return image, GroundTruth.from_boxes(rows[:, :4], rows[:, 4].astype(np.int64))


def with_decoys(truth: GroundTruth) -> Float32Array:
    """The objects, and boxes that lie a quarter beside them."""
    side = truth.boxes[:, 2:] - truth.boxes[:, :2]
    beside = np.concatenate([truth.boxes[:, :2] + side / 4, truth.boxes[:, 2:] + side / 4], axis=1)
    return np.concatenate([truth.boxes, beside]).astype(np.float32)


def scorer(network: FastRcnn, *scales: int, flip: bool = False, bf16: bool = False, refine: int = 0) -> ImageScorer:
    return ImageScorer(
        network, scales=scales, max_side=2000, flip=flip, refine=refine, device=CPU, bf16=bf16, compiled=False
    )


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(64,), (97,), (150,), (333,), (64, 150, 333)])
def test_objects_as_proposals_give_recall_and_map_of_one(scales: tuple[int, ...], flip: bool) -> None:
    pictures = {number: painted(number) for number in range(4)}
    regions = [(image, with_decoys(truth)) for image, truth in pictures.values()]
    found = {
        number: select_detections(boxes, scored, image.shape[:2], DetectConfig(score_floor=0.5))
        for number, (image, boxes), scored in zip(
            pictures, regions, scorer(oracle(), *scales, flip=flip).score(regions), strict=True
        )
    }
    dataset = Dataset(
        "painted",
        ("red", "green", "blue"),
        (1, 2, 3),
        tuple(ImageRecord(number, Path("none"), image.shape[:2]) for number, (image, _) in pictures.items()),
        {number: truth for number, (_, truth) in pictures.items()},
    )
    metrics = evaluate(dataset, found)
    assert metrics.voc10.map == 1.0
    assert metrics.coco.numbers["AP"] == pytest.approx(1.0, abs=1e-3)
    assert sum(len(one) for one in found.values()) == 12


def trained_like(n_classes: int = 2) -> FastRcnn:
    torch.manual_seed(3)
    head = FastRcnnHead(maps=["stem"], merge_width=8, pool_size=2, hidden=16, dropout=0.0)
    network = FastRcnn(tiny.TinyBackbone(), n_classes, head, seed=0).eval()
    with torch.no_grad():
        network.head.linear.weight.mul_(50)
        assert network.box_regressor is not None
        network.box_regressor.linear.weight.mul_(100)
    return network


def noise(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (40, 64, 3), dtype=np.uint8)


BOXES = np.array([[2, 3, 30, 30], [10, 0, 64, 40], [40, 20, 60, 39]], dtype=np.float32)


def test_scores_are_the_networks_own_at_the_images_size() -> None:
    network = trained_like()
    (scored,) = scorer(network, 40).score([(noise(), BOXES)])
    regions = torch.nn.functional.pad(torch.from_numpy(BOXES), (1, 0))
    with torch.inference_mode():
        logits, deltas = network(torch.from_numpy(noise())[None], regions)
    assert deltas is not None
    assert scored.deltas is not None
    np.testing.assert_allclose(scored.probabilities, logits.softmax(dim=1).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scored.deltas, deltas.numpy(), rtol=1e-4, atol=1e-6)


def test_a_mirrored_image_has_the_same_scores_with_flip() -> None:
    """With `flip` both are looked at, so that mirroring the image can only mirror the answer."""
    mirrored = BOXES.copy()
    mirrored[:, [0, 2]] = 64 - BOXES[:, [2, 0]]
    plain, turned = scorer(trained_like(), 40, flip=True).score(
        [(noise(), BOXES), (np.ascontiguousarray(noise()[:, ::-1]), mirrored)]
    )
    np.testing.assert_allclose(plain.probabilities, turned.probabilities, rtol=1e-4, atol=1e-5)
    assert plain.deltas is not None
    assert turned.deltas is not None
    np.testing.assert_allclose(plain.deltas[:, :, 0], -turned.deltas[:, :, 0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(plain.deltas[:, :, 1:], turned.deltas[:, :, 1:], rtol=1e-3, atol=1e-5)


def test_several_scales_are_averaged() -> None:
    network = trained_like()
    (both,), (small,), (large,) = (scorer(network, *s).score([(noise(), BOXES)]) for s in ((32, 80), (32,), (80,)))
    np.testing.assert_allclose(both.probabilities, (small.probabilities + large.probabilities) / 2, rtol=1e-6)


def test_likely_regions_are_moved_and_scored_again() -> None:
    """The result of a second pass, worked out from two first ones: of the regions, and of where they were moved to."""
    network = trained_like()
    (first,) = scorer(network, 40).score([(noise(), BOXES)])
    places = moved_by_best(BOXES, first, (40, 64))
    (second,) = scorer(network, 40).score([(noise(), places)])
    (both,) = scorer(network, 40, refine=1).score([(noise(), BOXES)])
    assert first.deltas is not None
    assert second.deltas is not None
    assert both.deltas is not None
    rows = first.probabilities[:, 1:].max(axis=1) >= REFINED_FROM
    assert rows.any()
    np.testing.assert_allclose(
        both.probabilities[rows], (first.probabilities + second.probabilities)[rows] / 2, rtol=1e-4, atol=1e-6
    )
    for label in (0, 1):  # they end where the second pass puts them
        np.testing.assert_allclose(
            decode(BOXES, both.deltas[:, label])[rows], decode(places, second.deltas[:, label])[rows], atol=1e-2
        )


def test_unlikely_regions_and_such_without_area_stay() -> None:
    network = trained_like()
    with torch.no_grad():
        network.head.linear.bias[0] = 1e4
    (first,), (both,) = (scorer(network, 40, refine=refine).score([(noise(), BOXES)]) for refine in (0, 2))
    np.testing.assert_array_equal(both.probabilities, first.probabilities)
    empty = np.array([[5, 5, 5, 9]], dtype=np.float32)
    (alone,) = scorer(trained_like(), 40, refine=1).score([(noise(), empty)])
    assert np.isfinite(alone.probabilities).all()


def test_a_region_that_would_vanish_stays_where_it_is() -> None:
    away = np.tile(np.array([[[-50.0, 0, 0, 0]]], dtype=np.float32), (3, 2, 1))
    scored = ScoredRegions(np.full((3, 3), 1 / 3, dtype=np.float32), away)
    np.testing.assert_array_equal(moved_by_best(BOXES, scored, (40, 64)), BOXES)


def test_no_regions_and_no_images() -> None:
    one = scorer(trained_like(), 40)
    (nothing,) = one.score([(noise(), BOXES[:0])])
    assert nothing.probabilities.shape == (0, 3)
    assert nothing.deltas is not None
    assert nothing.deltas.shape == (0, 2, 4)
    assert list(one.score([])) == []


def test_bf16_is_close_to_float32() -> None:
    (exact,), (rough,) = (scorer(trained_like(), 40, bf16=bf16).score([(noise(), BOXES)]) for bf16 in (False, True))
    np.testing.assert_allclose(rough.probabilities, exact.probabilities, atol=0.05)


def test_an_error_in_the_images_is_raised() -> None:
    def images() -> object:
        yield noise(), BOXES
        raise OSError("gone")

    stream = scorer(trained_like(), 40).score(images())  # type: ignore[arg-type]
    next(stream)
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_regions_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = scorer(trained_like(), 40).score([(noise(), BOXES)])
    monkeypatch.setattr("detpipe.classify.image_scorer.REGIONS_AT_ONCE", 2)
    (parts,) = scorer(trained_like(), 40).score([(noise(), BOXES)])
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, rtol=1e-5)
