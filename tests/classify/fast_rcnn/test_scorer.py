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
from detpipe.boxes import decode, iou
from detpipe.classify.classifier_folder import ClassifierError
from detpipe.classify.detect import ScoredRegions, moved_by_best, seen_from, select_detections
from detpipe.classify.fast_rcnn.scorer import REFINED_FROM, FastRcnnScorer, fast_rcnn_scorer
from detpipe.classify.settings import DetectConfig, Duplicates, FastRcnnScoringConfig
from detpipe.heads.fast_rcnn.network import FastRcnn, RegionOutputs
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.metrics.evaluate import evaluate
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageRecord
from tests import drawn
from tests.classify import tiny
from tests.classify.multibox_fast_rcnn import tiny as tiny_multibox_fast_rcnn

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

    def hidden(self, pooled: Tensor) -> Tensor:
        return pooled

    def outputs(self, features: Tensor) -> RegionOutputs:
        purest = torch.stack(
            [
                (features - torch.tensor(colour, dtype=torch.float32)[:, None, None]).abs().mean(dim=(1, 2, 3))
                for colour in COLOURS
            ],
            dim=1,
        )
        logits = torch.cat([torch.zeros(len(features), 1), 10 * (purest < 40).float() - 5], dim=1)
        return RegionOutputs(logits, None, None)


def oracle() -> Oracle:
    head = FastRcnnConfig(maps=["pixels"], merge_width=None, pool_size=9, hidden=4)
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


def scorer(network: FastRcnn, *scales: int, flip: bool = False, bf16: bool = False, refine: int = 0) -> FastRcnnScorer:
    return FastRcnnScorer(
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
    head = FastRcnnConfig(maps=["stem"], merge_width=8, pool_size=2, hidden=16, dropout=0.0)
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


def test_a_region_that_would_shrink_to_nothing_is_seen_in_its_place() -> None:
    """exp(-16) of a width is less than a step of float32 there."""
    boxes, places = np.float32([[10, 10, 50, 50]]), np.float32([[400, 100, 500, 200]])
    deltas = np.float32([[[0, 0, -16, 0], [0.1, 0, 0, 0]]])
    deltas = seen_from(boxes, places, deltas)
    np.testing.assert_allclose(decode(boxes, deltas[:, 0]), places, rtol=1e-4)
    np.testing.assert_allclose(decode(boxes, deltas[:, 1]), [[410, 100, 510, 200]], rtol=1e-4)


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
    monkeypatch.setattr("detpipe.classify.fast_rcnn.scorer.REGIONS_AT_ONCE", 2)
    (parts,) = scorer(trained_like(), 40).score([(noise(), BOXES)])
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, rtol=1e-5)


@pytest.fixture
def proposing(tmp_path: Path) -> MultiBoxFastRcnn:
    """A network that proposes: it was never trained, but says other things of other places."""
    return tiny_multibox_fast_rcnn.network(tiny_multibox_fast_rcnn.spec(tmp_path / "net"))


NONE = np.zeros((0, 4), dtype=np.float32)


def own_scorer(
    network: FastRcnn, *scales: int, flip: bool = False, bf16: bool = False, proposals: int = 20, refine: int = 1
) -> FastRcnnScorer:
    return FastRcnnScorer(
        network, scales=scales, max_side=640, flip=flip, refine=refine, device=CPU, bf16=bf16, compiled=False,
        proposals=proposals,
    )  # fmt: skip


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(64,), (97,), (64, 130)])
def test_a_network_s_own_regions_lie_in_the_image(
    proposing: MultiBoxFastRcnn, scales: tuple[int, ...], flip: bool
) -> None:
    images = [drawn.draw(0)[0], drawn.draw(1)[0][:77, :130]]
    for image, scored in zip(
        images, own_scorer(proposing, *scales, flip=flip).score([(one, NONE) for one in images]), strict=True
    ):
        assert scored.boxes is not None
        assert scored.deltas is not None
        assert 0 < len(scored.boxes) <= 20
        assert len(scored.boxes) == len(scored.probabilities) == len(scored.deltas)
        height, width = image.shape[:2]
        assert (scored.boxes >= 0).all()
        assert (scored.boxes <= [width, height, width, height]).all()
        assert (scored.boxes[:, 2:] > scored.boxes[:, :2]).all()
        assert ((scored.probabilities >= 0) & (scored.probabilities <= 1)).all()


def test_its_own_regions_are_scored_as_given_ones_are_but_for_their_quality(
    proposing: MultiBoxFastRcnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposing, "quality", 0.0)
    one, image = own_scorer(proposing, 64, 97, flip=True), drawn.draw(0)[0]
    (own,) = one.score([(image, NONE)])
    assert own.boxes is not None
    (given,) = one.score([(image, own.boxes)])
    assert given.boxes is None
    np.testing.assert_array_equal(own.probabilities, given.probabilities)
    np.testing.assert_array_equal(own.deltas, given.deltas)
    monkeypatch.setattr(proposing, "quality", 1.0)
    (best,) = one.score([(image, NONE)])
    np.testing.assert_array_equal(best.probabilities[:, 0], given.probabilities[:, 0])
    assert (best.probabilities[:, 1] == best.probabilities[:, 2]).all()  # the proposal's confidence alone
    assert (np.diff(best.probabilities[:, 1]) <= 0).all()


def test_given_regions_are_scored_as_by_fast_rcnn(proposing: MultiBoxFastRcnn) -> None:
    """At a size that needs no padding, by the same layers."""
    image = drawn.draw(0)[0][:112]
    plain = FastRcnn(proposing.backbone, 2, tiny_multibox_fast_rcnn.head(), seed=5).eval()
    plain.load_state_dict({name: one for name, one in proposing.state_dict().items() if "predictor" not in name})
    boxes = np.array([[2, 3, 60, 70], [40, 0, 160, 112]], dtype=np.float32)
    (own,) = own_scorer(proposing, 112).score([(image, boxes)])
    (other,) = own_scorer(plain, 112).score([(image, boxes)])
    np.testing.assert_array_equal(own.probabilities, other.probabilities)
    np.testing.assert_array_equal(own.deltas, other.deltas)


def test_a_mirrored_image_has_the_same_own_regions_with_flip(proposing: MultiBoxFastRcnn) -> None:
    image = drawn.draw(0)[0]
    one = own_scorer(proposing, 60, flip=True)
    plain, turned = one.score([(image, NONE), (np.ascontiguousarray(image[:, ::-1]), NONE)])
    assert plain.boxes is not None
    assert turned.boxes is not None
    back = turned.boxes.copy()
    back[:, [0, 2]] = 160 - turned.boxes[:, [2, 0]]
    overlaps = iou(plain.boxes, back)
    assert overlaps.max(axis=1).min() > 0.99
    np.testing.assert_allclose(plain.probabilities, turned.probabilities[overlaps.argmax(axis=1)], atol=1e-2)


def test_the_network_s_proposals_are_those_that_training_saw(tmp_path: Path) -> None:
    """Of a net without padding, whose maps are smaller than the input over the stride."""
    spec = tiny_multibox_fast_rcnn.spec(tmp_path / "net")
    net = tmp_path / "net" / "tiny.prototxt"
    net.write_text(net.read_text().replace("pad: 2", "").replace("pad: 1", ""))
    network = tiny_multibox_fast_rcnn.network(spec)
    image = drawn.draw(0)[0][:112]
    (own,) = own_scorer(network, 112, refine=0).score([(image, NONE)])
    with torch.no_grad():
        output = network.predict(network.feature_maps(torch.from_numpy(image)[None]), (112, 160))
    boxes, _ = network.propose(output, 0, (112, 160), 20)
    np.testing.assert_allclose(own.boxes, boxes.numpy(), atol=1e-3)


def test_fewer_regions_are_the_best_of_more(proposing: MultiBoxFastRcnn) -> None:
    image = drawn.draw(0)[0]
    (many,), (few,) = (own_scorer(proposing, 64, proposals=n).score([(image, NONE)]) for n in (20, 3))
    assert few.boxes is not None
    assert many.boxes is not None
    assert len(few.boxes)
    np.testing.assert_array_equal(few.boxes, many.boxes[: len(few.boxes)])


def test_an_image_of_one_pixel_is_an_image_as_any(proposing: MultiBoxFastRcnn) -> None:
    (found,) = own_scorer(proposing, 64).score([(np.zeros((1, 1, 3), dtype=np.uint8), NONE)])
    assert found.boxes is not None
    assert len(found.boxes) > 0
    assert found.boxes.max() <= 1


def test_a_network_that_proposes_nothing(proposing: MultiBoxFastRcnn) -> None:
    for layer in proposing.predictor.outputs:
        torch.nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        layer.bias.data[1::5] = -1e3  # type: ignore[union-attr, operator]
    (nothing,) = own_scorer(proposing, 64, 97).score([(drawn.draw(0)[0], NONE)])
    assert nothing.probabilities.shape == (0, 3)


def test_own_regions_in_bf16_are_close_to_float32(proposing: MultiBoxFastRcnn) -> None:
    image = drawn.draw(0)[0]
    (exact,) = own_scorer(proposing, 64, proposals=40).score([(image, NONE)])
    (rough,) = own_scorer(proposing, 64, proposals=5, bf16=True).score([(image, NONE)])
    assert exact.boxes is not None
    assert rough.boxes is not None
    assert rough.boxes.dtype == rough.probabilities.dtype == np.float32
    # Rounding moves boxes a little, and may let another one through NMS: most find a partner.
    assert np.median(iou(rough.boxes, exact.boxes).max(axis=1)) > 0.9


def attending(tmp_path: Path) -> MultiBoxFastRcnn:
    """A network that proposes and whose regions attend to each other, with an effect."""
    network = tiny_multibox_fast_rcnn.network(tiny_multibox_fast_rcnn.spec(tmp_path / "attending", attention=1))
    assert network.attention is not None
    assert network.best is not None
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in network.attention.layers:
            layer.joined.weight.normal_(std=0.1, generator=generator)  # type: ignore[union-attr]
            layer.output.weight.normal_(std=0.1, generator=generator)  # type: ignore[union-attr]
        network.best.weight.normal_(generator=generator)
        network.best.bias.zero_()
    return network


def test_all_regions_of_an_image_attend_to_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = attending(tmp_path)
    one, image = own_scorer(network, 64, refine=0), drawn.draw(0)[0]
    boxes = np.array([[2, 3, 60, 70], [40, 0, 160, 112], [80, 9, 110, 90]], dtype=np.float32)
    (whole,) = one.score([(image, boxes)])
    (two,) = one.score([(image, boxes[:2])])
    assert not np.allclose(whole.probabilities[:2], two.probabilities, atol=1e-4)
    monkeypatch.setattr("detpipe.classify.fast_rcnn.scorer.REGIONS_AT_ONCE", 2)
    (parts,) = one.score([(image, boxes)])
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, rtol=1e-4, atol=1e-6)
    (other,) = one.score([(drawn.draw(1)[0], NONE)])
    together = list(one.score([(image, boxes), (drawn.draw(1)[0], NONE)]))
    np.testing.assert_array_equal(together[0].probabilities, parts.probabilities)
    np.testing.assert_array_equal(together[1].probabilities, other.probabilities)


def test_moved_regions_attend_to_each_other(tmp_path: Path) -> None:
    network, image = attending(tmp_path), drawn.draw(0)[0]
    (first,) = own_scorer(network, 64, refine=0).score([(image, NONE)])
    (given,) = own_scorer(network, 64, refine=0).score([(image, first.boxes)])
    (both,) = own_scorer(network, 64, refine=1).score([(image, first.boxes)])
    assert first.boxes is not None
    rows = np.flatnonzero(given.probabilities[:, 1:].max(axis=1) >= REFINED_FROM)
    assert len(rows) > 1
    places = moved_by_best(first.boxes[rows], given.of(rows), (120, 160))
    (second,) = own_scorer(network, 64, refine=0).score([(image, places)])
    mean = (given.probabilities[rows] + second.probabilities) / 2
    np.testing.assert_allclose(both.probabilities[rows], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("refine", [0, 1])
def test_scores_of_boxes_that_are_not_the_best_are_less(tmp_path: Path, refine: int) -> None:
    network, image = attending(tmp_path), drawn.draw(0)[0]
    spec = tiny_multibox_fast_rcnn.spec(tmp_path / "attending", attention=1, refine=refine)
    found = {}
    for duplicates in Duplicates:
        config = DetectConfig(max_proposals=20, fast_rcnn=FastRcnnScoringConfig(duplicates=duplicates))
        (found[duplicates],) = fast_rcnn_scorer(network, spec, config, CPU, bf16=False).score([(image, NONE)])
    plain, learned = found[Duplicates.nms].probabilities, found[Duplicates.learned].probabilities
    np.testing.assert_array_equal(learned[:, 0], plain[:, 0])
    share = learned[:, 1:] / plain[:, 1:]
    np.testing.assert_allclose(share[:, 0], share[:, 1], rtol=1e-4)  # one factor for all classes
    assert 0 < share.min() < share.max() < 1
    np.testing.assert_allclose(found[Duplicates.learned].best, share[:, 0], rtol=1e-4)
    assert found[Duplicates.nms].best is None
    np.testing.assert_array_equal(found[Duplicates.both].probabilities, learned)
    with torch.no_grad():
        assert network.best is not None
        network.best.weight.zero_()
    (half,) = fast_rcnn_scorer(
        network, spec, DetectConfig(max_proposals=20, fast_rcnn=FastRcnnScoringConfig(duplicates=Duplicates.both)),
        CPU, bf16=False,
    ).score([(image, NONE)])  # fmt: skip
    np.testing.assert_allclose(half.probabilities[:, 1:], plain[:, 1:] / 2, rtol=1e-4)


def test_learned_duplicates_need_attention(proposing: MultiBoxFastRcnn, tmp_path: Path) -> None:
    config = DetectConfig(fast_rcnn=FastRcnnScoringConfig(duplicates=Duplicates.learned))
    with pytest.raises(ClassifierError, match=r"duplicates=learned: .*head\.attention"):
        fast_rcnn_scorer(proposing, tiny_multibox_fast_rcnn.spec(tmp_path / "net"), config, CPU, bf16=False)
