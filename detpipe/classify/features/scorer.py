"""A head on the features of a frozen network at work: scores of regions, and a second look at the likely ones.

R: regions of one image, D: feature width, G: numbers of the geometry, K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from detpipe.classify.detect import ScoredRegions, Scorer, moved_by_best
from detpipe.classify.features.extractor import RegionFeatures
from detpipe.classify.features.geometry import mirrored_geometry, region_geometry
from detpipe.classify.features.network import FeatureClassifier, FeatureClassifierSpec
from detpipe.classify.settings import DetectConfig
from detpipe.heads.stored.feature_head import FeatureHead
from detpipe.structures import Float32Array, Image

Scored = tuple[Image, Float32Array, ScoredRegions]
"""An image, its regions (R, 4), and their scores."""


def feature_scorer(
    network: FeatureClassifier, spec: FeatureClassifierSpec, config: DetectConfig, device: torch.device, *, bf16: bool
) -> Scorer:
    """The head and its backbone in inference."""
    extractor = extractor_of(network, spec, config, device, bf16=bf16)
    return FeatureScorer(network, extractor, second_look=config.second_look)


def extractor_of(
    network: FeatureClassifier, spec: FeatureClassifierSpec, config: DetectConfig, device: torch.device, *, bf16: bool
) -> RegionFeatures:
    """The extractor of the classifier's features, for regions that are not stored."""
    return RegionFeatures(
        network.backbone, spec.crops, spec.features, device=device, bf16=bf16, batch_size=config.batch_size
    )


class FeatureScorer:
    """Scores of regions by their features; see `Scorer`. Regions come best first, as proposals do.

    second_look: so many of an image's likeliest regions are looked at again; see there.
    """

    def __init__(self, network: FeatureClassifier, extractor: RegionFeatures, *, second_look: int = 0) -> None:
        self.network = network
        self._extractor = extractor
        self._second_look = second_look

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Features pass through float16, so that they are those of a store."""
        first = self._first_look(images)
        if not self._second_look:
            return (scored for _, _, scored in first)
        return second_look(first, self.network.head, self._extractor, self._second_look)

    def _first_look(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Scored]:
        held: list[tuple[Image, Float32Array]] = []

        def noted() -> Iterator[tuple[Image, Float32Array]]:
            for image, boxes in images:
                held.append((image, boxes))
                yield image, boxes

        for features in self._extractor.features(noted()):
            image, boxes = held.pop(0)
            geometry = region_geometry(boxes, (image.shape[0], image.shape[1]), np.arange(len(boxes)))
            yield image, boxes, score_features(self.network.head, features, geometry, self._extractor.config.views)


def second_look(
    first: Iterable[Scored], head: FeatureHead, extractor: RegionFeatures, most: int
) -> Iterator[ScoredRegions]:
    """The regions of each image, and after them the `most` likeliest ones as seen where their deltas bring them.

    A proposal is seldom just the object's box; where it moves to is looked at for itself, and gets scores and deltas of
    its own (iterative localization, Gidaris & Komodakis 2015, section 4). The result's `boxes` are all of them,
    (R + at most `most`, 4). Without deltas nothing moves: the first look's scores are all.
    """
    held: list[tuple[Float32Array, ScoredRegions, Float32Array, Float32Array]] = []

    def moved() -> Iterator[tuple[Image, Float32Array]]:
        for image, boxes, scored in first:
            image_size = (image.shape[0], image.shape[1])
            best = scored.probabilities[:, 1:].max(axis=1, initial=0)
            rows = np.argsort(-best, kind="stable")[: most if scored.deltas is not None else 0]
            places = moved_by_best(boxes[rows], scored.of(rows), image_size)
            held.append((boxes, scored, places, region_geometry(places, image_size, rows)))
            yield image, places

    for features in extractor.features(moved()):
        boxes, scored, places, geometry = held.pop(0)
        again = score_features(head, features, geometry, extractor.config.views)
        yield scored.with_more(boxes, places, again)


def score_features(
    head: FeatureHead, features: Float32Array, geometry: Float32Array, views: Sequence[bool]
) -> ScoredRegions:
    """(R, D), (R, G) float32 -> the regions' scores and deltas, on the CPU: the mean of the views; R = 0 gives none.

    Features are rounded to float16 first, as a store has them.
    """
    head.cpu()
    scores, moves = [], []
    stored = features.astype(np.float16).astype(np.float32)
    with torch.inference_mode():
        for mirrored, columns in zip(views, np.split(stored, len(views), axis=1), strict=True):
            place = mirrored_geometry(geometry) if mirrored else geometry
            scored, deltas = head(torch.from_numpy(columns), torch.from_numpy(place))
            scores.append(scored)
            if deltas is not None:
                moves.append(deltas * deltas.new_tensor([-1, 1, 1, 1]) if mirrored else deltas)
        means = [torch.stack(one).mean(dim=0).numpy() for one in (scores, moves) if one]
    return ScoredRegions(means[0], means[1] if moves else None)
