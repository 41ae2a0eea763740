"""Inference for heads on frozen features, with iterative box refinement.

R: regions of one image. D: feature width. G: number of geometry features. K: classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from detpipe.classify.detect import ScoredRegions, Scorer, moved_by_best, refuse_best_box
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
    """The scorer of a head and its backbone. Raises ClassifierError as `refuse_best_box`."""
    refuse_best_box(config)
    extractor = extractor_of(network, spec, config, device, bf16=bf16)
    return FeatureScorer(network, extractor, refine=config.features.refine)


def extractor_of(
    network: FeatureClassifier, spec: FeatureClassifierSpec, config: DetectConfig, device: torch.device, *, bf16: bool
) -> RegionFeatures:
    """The feature extractor of the classifier, for regions without stored features."""
    return RegionFeatures(
        network.backbone, spec.crops, spec.features, device=device, bf16=bf16, batch_size=config.batch_size
    )


class FeatureScorer:
    """Scores regions by their features; see `Scorer`. Regions must be sorted best first, as proposals are.

    refine: number of top-scoring regions per image to rescore after box refinement; see `refined`.
    """

    def __init__(self, network: FeatureClassifier, extractor: RegionFeatures, *, refine: int = 0) -> None:
        self.network = network
        self._extractor = extractor
        self._refine = refine

    def score(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[ScoredRegions]:
        """See `Scorer`. Features are rounded to float16, so that they equal stored features."""
        first = self._scored(images)
        if not self._refine:
            return (scored for _, _, scored in first)
        return refined(first, self.network.head, self._extractor, self._refine)

    def _scored(self, images: Iterable[tuple[Image, Float32Array]]) -> Iterator[Scored]:
        waiting: list[tuple[Image, Float32Array]] = []

        def recorded() -> Iterator[tuple[Image, Float32Array]]:
            for image, boxes in images:
                waiting.append((image, boxes))
                yield image, boxes

        for features in self._extractor.features(recorded()):
            image, boxes = waiting.pop(0)
            geometry = region_geometry(boxes, (image.shape[0], image.shape[1]), np.arange(len(boxes)))
            yield image, boxes, score_features(self.network.head, features, geometry, self._extractor.config.views)


def refined(
    scored_images: Iterable[Scored], head: FeatureHead, extractor: RegionFeatures, count: int
) -> Iterator[ScoredRegions]:
    """The regions of each image, followed by its `count` top-scoring ones after box refinement, scored again.

    (Iterative localization: Gidaris & Komodakis 2015, section 4.) `boxes` of a result hold all of them,
    (R + at most `count`, 4). If the head has no box regression, nothing is added.
    """
    waiting: list[tuple[Float32Array, ScoredRegions, Float32Array, Float32Array]] = []

    def moved_regions() -> Iterator[tuple[Image, Float32Array]]:
        for image, boxes, scored in scored_images:
            image_size = (image.shape[0], image.shape[1])
            best = scored.probabilities[:, 1:].max(axis=1, initial=0)
            rows = np.argsort(-best, kind="stable")[: count if scored.deltas is not None else 0]
            moved = moved_by_best(boxes[rows], scored.of(rows), image_size)
            waiting.append((boxes, scored, moved, region_geometry(moved, image_size, rows)))
            yield image, moved

    for features in extractor.features(moved_regions()):
        boxes, scored, moved, geometry = waiting.pop(0)
        rescored = score_features(head, features, geometry, extractor.config.views)
        yield scored.with_more(boxes, moved, rescored)


def score_features(
    head: FeatureHead, features: Float32Array, geometry: Float32Array, views: Sequence[bool]
) -> ScoredRegions:
    """Scores and deltas from features (R, D) and geometry (R, G), both float32, on the CPU. R = 0 gives none.

    views: for each view whether it is mirrored; the results are averaged over the views. Features are rounded to
    float16 first, as in a store.
    """
    return score_views(head, split_views(features.astype(np.float16), geometry, views))


View = tuple[bool, torch.Tensor, torch.Tensor]
"""Whether it is mirrored, features (R, D / V) and geometry (R, G), float32."""


def split_views(features: npt.NDArray[np.float16], geometry: Float32Array, views: Sequence[bool]) -> list[View]:
    """The inputs of a head for each view of stored features (R, D) float16 and geometry (R, G)."""
    columns = np.split(features.astype(np.float32), len(views), axis=1)
    return [
        (mirrored, torch.from_numpy(column), torch.from_numpy(mirrored_geometry(geometry) if mirrored else geometry))
        for mirrored, column in zip(views, columns, strict=True)
    ]


def score_views(head: FeatureHead, views: Sequence[View]) -> ScoredRegions:
    """Scores and deltas, averaged over the views. Several heads can share the views of a region."""
    head.cpu()
    all_scores, all_deltas = [], []
    with torch.inference_mode():
        for mirrored, features, geometry in views:
            scores, deltas = head(features, geometry)
            all_scores.append(scores)
            if deltas is not None:
                all_deltas.append(deltas * deltas.new_tensor([-1, 1, 1, 1]) if mirrored else deltas)
        means = [torch.stack(one).mean(dim=0).numpy() for one in (all_scores, all_deltas) if one]
    return ScoredRegions(means[0], means[1] if all_deltas else None)
