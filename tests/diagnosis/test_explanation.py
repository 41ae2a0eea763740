"""The story of an object or a false detection in words, on scenes whose right answer is written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.classify.detect import ScoredRegions, select
from detpipe.classify.object_trace import trace_objects
from detpipe.classify.settings import DetectConfig, Duplicates, FastRcnnScoringConfig
from detpipe.diagnosis.advice import DetectorSettings
from detpipe.diagnosis.explanation import Explanation, ImageFacts, Role, explain_false, explain_objects
from detpipe.structures import Detections, GroundTruth
from tests.diagnosis.scenes import BOX, CAT, CLASSES, DOG, FAR, SHORT, found, objects

SIZE = (200, 200)
NAMES = ("astronaut", "coin")
ASTRONAUT, COIN = 1, 2
LEFT, RIGHT, MOVED = (0, 0, 20, 20), (14, 0, 34, 20), (9, 0, 31, 20)
COINS = objects((LEFT, COIN), (RIGHT, COIN))


def detected(
    truth: GroundTruth,
    regions: list[tuple[int, ...]],
    scores: list[list[float]],
    *,
    config: DetectConfig | None = None,
    stored: list[tuple[int, ...]] | None = None,
    names: tuple[str, ...] = NAMES,
    deltas: np.ndarray | None = None,
    best: list[float] | None = None,
) -> ImageFacts:
    """An image with these regions, selected as the detector does. scores: background first. stored: all proposals."""
    config = config or DetectConfig()
    boxes = np.array(regions, np.float32).reshape(-1, 4)
    factors = np.array(best, np.float32) if best is not None else None
    scored = ScoredRegions(np.array(scores, np.float32).reshape(-1, len(names) + 1), deltas, best=factors)
    selection = select(boxes, scored, SIZE, config)
    return ImageFacts(
        image="a",
        truth=truth,
        detections=selection.detections,
        classes=names,
        threshold=0.5,
        threshold_why="the best F1 on these images",
        traces=trace_objects(boxes, scored, SIZE, selection, truth, config.suppressed_above),
        proposals=np.array(stored if stored is not None else regions, np.float32).reshape(-1, 4),
        detector=DetectorSettings(
            max_proposals=config.max_proposals,
            nms_iou=config.nms_iou,
            vote_iou=config.vote_iou,
            max_detections=config.max_detections,
            duplicates=config.fast_rcnn.duplicates,
            method="selective_search",
            larger=("proposals.max_side=800",),
        ),
        score_floor=config.score_floor,
    )


def the_miss(facts: ImageFacts) -> tuple[Explanation, str]:
    """The only missed object, and its lines as one text."""
    (miss,) = [one for one in explain_objects(facts) if one.is_error]
    return miss, " ".join(miss.lines)


def test_a_coin_with_score_099_that_nms_removed() -> None:
    facts = detected(COINS, [LEFT, MOVED], [[0, 0, 1], [0.01, 0, 0.99]])
    first, second = explain_objects(facts)
    assert (first.title, first.change) == (
        "object 0, coin, box 0 0 20 20: found by detection 0 (coin 1.00), IoU 1.00",
        "",
    )
    assert second.title == "object 1, coin, box 14 0 34 20: missed (suppressed)"
    text = " ".join(second.lines)
    assert "IoU 0.68 after box regression. Its scores before NMS: coin 0.99, background 0.01, astronaut 0.00." in text
    # 11 x 20 pixels of 20 x 20 + 22 x 20 - 11 x 20 are in both.
    assert "(detect.nms_iou=0.3) removed it: IoU 0.35 with detection 0 (coin 1.00). It counts for object 0." in text
    assert "Threshold: 0.50, the best F1 on these images." in text
    assert "detect.nms_iou=0.4 would keep this box" in second.change
    assert [(frame.role, frame.box) for frame in second.frames] == [
        (Role.object, RIGHT),
        (Role.moved, MOVED),
        (Role.remover, LEFT),
        (Role.proposal, MOVED),
    ]


def test_a_worse_box_of_the_same_coin_is_no_neighbour() -> None:
    """Neither crowded images nor another threshold of NMS help: the box that was kept has an IoU of 0.4."""
    worse, better = (0, 0, 20, 8), (0, 0, 20, 12)
    regions, scores = [worse, better], [[0.1, 0, 0.9], [0.2, 0, 0.8]]
    missed, text = the_miss(detected(objects((LEFT, COIN)), regions, scores))
    assert "removed it: IoU 0.67 with detection 0 (coin 0.90)." in text
    assert missed.change.startswith("the box that was kept shows this object, too, but its place is worse")
    assert "nms_iou" not in missed.change
    assert "vote" not in missed.change


def test_a_coin_that_was_not_the_best_box() -> None:
    config = DetectConfig(fast_rcnn=FastRcnnScoringConfig(duplicates=Duplicates.learned))
    facts = detected(COINS, [LEFT, MOVED], [[0, 0, 1], [0.1, 0, 0.1]], best=[1, 0.125], config=config)
    second, text = the_miss(facts)
    assert "multiplied by 0.12, the learned probability" in text
    assert "(detect.fast_rcnn.duplicates=learned)" in text
    assert "nms_iou" not in text + second.change
    assert "detect.fast_rcnn.duplicates=nms" in second.change
    # Nothing was suppressed, so a second box of a coin is answered by adding NMS.
    twice = detected(COINS, [LEFT, LEFT, RIGHT], [[0, 0, 1], [0, 0, 0.9], [0, 0, 0.8]], best=[1, 1, 1], config=config)
    (false,) = explain_false(twice)
    assert "detect.fast_rcnn.duplicates=both" in false.change


def test_what_is_advised_against_nms_keeps_the_coin() -> None:
    facts = detected(COINS, [LEFT, MOVED], [[0, 0, 1], [0.01, 0, 0.99]], config=DetectConfig(nms_iou=0.4))
    assert not any(one.is_error for one in explain_objects(facts))


def test_an_astronaut_of_004_is_no_astronaut() -> None:
    # A detection of another class covers the coin, but its score is far below the threshold.
    facts = detected(objects((LEFT, COIN)), [LEFT], [[0.93, 0.04, 0.03]])
    assert facts.detections.scores.tolist() == pytest.approx([0.04, 0.03])
    miss, text = the_miss(facts)
    assert miss.title.endswith("missed (background)")
    assert "was scored background 0.93, astronaut 0.04, coin 0.03" in text
    assert "astronaut" not in miss.change
    assert "label more training images in which coin looks like this" in miss.change


def test_a_real_astronaut_is_one() -> None:
    miss, text = the_miss(detected(objects((LEFT, COIN)), [LEFT], [[0.1, 0.8, 0.1]]))
    assert miss.title.endswith("missed (wrong_class)")
    assert "detected as astronaut 0.80" in text
    assert "label more training images with coin and astronaut" in miss.change


def test_no_proposal() -> None:
    miss, text = the_miss(detected(objects((LEFT, COIN)), [(0, 0, 20, 8), FAR], [[0.1, 0, 0.9], [1, 0, 0]]))
    assert miss.title.endswith("missed (no_proposal)")
    assert "Best proposal: rank 1 of 2 classified, IoU 0.40." in text
    assert "No box covers the object: the nearest one after box regression has IoU 0.40" in text
    assert "proposals=multibox" in miss.change
    assert "proposals.max_side=800" in miss.change


def test_a_proposal_beyond_the_budget() -> None:
    stored = [FAR] * 240 + [(0, 0, 20, 18), LEFT]
    facts = detected(objects((LEFT, COIN)), [FAR], [[1, 0, 0]], config=DetectConfig(max_proposals=1), stored=stored)
    miss, text = the_miss(facts)
    assert miss.title.endswith("missed (budget)")
    assert "Of all 242 stored proposals: rank 242, IoU 1.00, which is beyond detect.max_proposals=1." in text
    assert "The first of them with an IoU of at least 0.5: rank 241." in text
    assert miss.change == "classify more proposals: detect.max_proposals=300"


def test_box_regression() -> None:
    deltas = np.zeros((1, 2, 4), np.float32)
    deltas[0, 1, 0] = 0.5  # half of its width to the right: 10 x 20 of 600 pixels are in both
    miss, text = the_miss(detected(objects((LEFT, COIN)), [LEFT], [[0.1, 0, 0.9]], deltas=deltas))
    assert miss.title.endswith("missed (box_regression)")
    assert "Box regression for coin moved it from IoU 1.00 to 0.33." in text
    assert "head.box_regression=none" in miss.change


def test_below_the_threshold() -> None:
    miss, text = the_miss(detected(objects((LEFT, COIN)), [LEFT], [[0.3, 0.2, 0.5 - 1e-3]]))
    assert miss.title.endswith("missed (threshold)")
    assert "The box was kept: it is detection 0 (coin 0.50)." in text
    assert "a threshold of 0.49 would show it" in miss.change


def test_the_limit() -> None:
    facts = detected(
        objects((FAR, COIN), (LEFT, COIN)), [FAR, LEFT], [[0, 0, 1], [0.1, 0, 0.9]],
        config=DetectConfig(max_detections=1),
    )  # fmt: skip
    miss, text = the_miss(facts)
    assert miss.title.endswith("missed (suppressed)")
    assert "the image has more detections than detect.max_detections=1" in text
    assert miss.change == "allow more detections: detect.max_detections=3"


def test_voting_moved_the_box_away() -> None:
    # The best box has IoU 9 / 12. The mean of the heights 12, 23 and 24, weighted by score, is 19.6: IoU 0.46.
    facts = detected(
        objects(((0, 0, 20, 9), COIN)), [(0, 0, 20, 12), (0, 0, 20, 23), (0, 0, 20, 24)],
        [[0, 0, 1], [0, 0.02, 0.98], [0, 0.02, 0.98]], config=DetectConfig(vote_iou=0.5, nms_iou=0.3),
    )  # fmt: skip
    assert facts.detections.boxes[0].tolist() == pytest.approx([0, 0, 20, 19.6], abs=0.02)
    miss, text = the_miss(facts)
    assert miss.title.endswith("missed (suppressed)")
    assert "box voting (detect.vote_iou=0.5) moved it (IoU 0.61): it is detection 0 (coin 1.00)." in text
    assert miss.change == "vote with nearer boxes only: detect.vote_iou=0.65"


def test_a_box_that_counts_for_a_neighbour() -> None:
    truth = objects((BOX, COIN), ((0, 5, 10, 15), COIN))
    miss, text = the_miss(detected(truth, [(0, 2, 10, 12)], [[0.1, 0, 0.9]]))
    assert miss.title.startswith("object 1, coin")
    assert "The box was kept: it is detection 0 (coin 0.90). It counts for object 0." in text


def test_a_refined_region_is_called_so() -> None:
    facts = detected(objects((LEFT, COIN)), [FAR, LEFT], [[1, 0, 0], [0.1, 0.8, 0.1]], stored=[FAR])
    assert "a region that was refined and scored again (detect.features.refine)" in the_miss(facts)[1]


def test_difficult_objects_and_crowds_do_not_count() -> None:
    truth = objects((BOX, COIN), (FAR, COIN), difficult=[0], crowd=[1])
    one, two = explain_objects(detected(truth, [SHORT], [[0.9, 0, 0.1]]))
    assert (one.is_error, two.is_error) == (False, False)
    assert one.title.endswith("difficult, which does not count")
    assert two.title.endswith("a crowd, which does not count")


def test_an_image_without_objects_regions_or_detections() -> None:
    assert explain_objects(detected(objects(), [LEFT], [[0.1, 0, 0.9]])) == []
    assert explain_false(detected(objects((LEFT, COIN)), [], [])) == []
    miss, text = the_miss(detected(objects((LEFT, COIN)), [], []))
    assert miss.title.endswith("missed (no_proposal)")
    assert "no region of this image was classified" in text


def facts_of(truth: GroundTruth, detections: Detections) -> ImageFacts:
    """A run without traces and proposals."""
    return ImageFacts(
        image="a",
        truth=truth,
        detections=detections,
        classes=CLASSES,
        threshold=0.5,
        threshold_why="as set by threshold",
        traces=None,
        proposals=None,
        detector=DetectorSettings(),
    )


def test_without_traces_the_detections_tell() -> None:
    facts = facts_of(objects((BOX, CAT), (FAR, DOG)), found((0.9, BOX, DOG), (0.6, SHORT, CAT)))
    one, two = explain_objects(facts)
    assert one.title.endswith("missed (wrong_class)")
    assert "Nearest: detection 0 (dog 0.90), IoU 1.00." in one.lines
    assert two.title.endswith("missed (missed)")
    assert "overwrite=true" in two.change


@pytest.mark.parametrize(
    ("row", "kind", "line", "change"),
    [
        ((0.7, BOX, CAT), "duplicate", "IoU 1.00 with object 0, cat.", "detect.nms_iou"),
        ((0.7, SHORT, CAT), "localisation", "IoU 0.40 with object 0, cat.", "box"),
        ((0.7, FAR, CAT), "wrong_class", "IoU 1.00 with object 1, dog.", "cat and dog"),
        ((0.7, (100, 100, 110, 104), CAT), "both", "IoU 0.40 with object 1, dog.", "both classes"),
        ((0.7, (50, 50, 60, 60), CAT), "background", "No object is near it.", "without a label"),
    ],
)
def test_false_detections(row: tuple[float, tuple[int, ...], int], kind: str, line: str, change: str) -> None:
    facts = facts_of(objects((BOX, CAT), (FAR, DOG)), found((0.9, BOX, CAT), row, (0.1, SHORT, DOG)))
    (one,) = explain_false(facts)
    assert one.title.startswith("detection 1, cat 0.70, box ")
    assert one.title.endswith(f"false ({kind})")
    assert line in one.lines
    assert change in one.change
    assert one.frames[0].role is Role.detection
