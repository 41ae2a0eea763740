"""A two-layer head on stored features: what it is and how well a region fits, by one hidden layer.

Linear heads tell classes apart, but a part of an object from the whole badly. The hidden layer is shared, so that each
class's objects teach what an object's extent looks like; a second output says how much the region overlaps one, and the
two are multiplied (as the centre-ness of FCOS, Tian et al. 2019, and the IoU of IoU-Net, Jiang et al. 2018).

N: regions, D: feature width, G: numbers of the geometry, H: width of the hidden layer, K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe.heads.feature_head import Examples, FeatureHead, StoredHead, any_overlap, standardisation, standardised
from detpipe.heads.softmax import softmax_loss
from detpipe.structures import Float32Array, Int64Array

GEOMETRY_WEIGHT = 3.0
"""Standardised geometry is multiplied by this: a dozen numbers beside thousands, held down by the same decay."""


class TwoLayerHead(FeatureHead):
    """softmax times the overlap: hidden = relu(W1 x + b1), logits and overlap = W2 hidden + b2.

    Of M networks, whose scores are averaged. hidden_weight: (M, H, D + G), hidden_bias: (M, H),
    weight: (M, K + 2, H), bias: (M, K + 2); row 0 the background, the last the overlap's.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def n_classes(self) -> int:
        return self.bias.shape[1] - 2

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        x = torch.cat([x, geometry], dim=1)
        return torch.stack([self._scores(x, one) for one in range(len(self.bias))]).mean(dim=0)

    def _scores(self, x: Tensor, one: int) -> Tensor:
        """(N, D + G) -> (N, K) of one network."""
        hidden = (x @ self.hidden_weight[one].T + self.hidden_bias[one]).relu()
        out = hidden @ self.weight[one].T + self.bias[one]
        return out[:, :-1].softmax(dim=1)[:, 1:] * out[:, -1:].sigmoid()


@dataclass(kw_only=True)
class TwoLayers(StoredHead):
    """One hidden layer, trained in batches by AdamW; with a class added, all are trained anew."""

    hidden: int = 128
    """Width of the hidden layer."""
    networks: int = 2
    """Networks from other starts, whose scores are averaged."""
    passes: float = 4.0
    """Passes over the regions."""
    batch_size: int = 512
    """Regions of a step."""
    fg_share: float = 0.25
    """Share of a step's regions that are objects'."""
    lr: float = 0.001
    """The highest learning rate: it rises, then falls to nothing."""
    weight_decay: float = 0.01
    """AdamW's."""
    input_dropout: float = 0.2
    """Share of the features that are dropped."""
    dropout: float = 0.5
    """Share of the hidden layer that is dropped."""
    background_iou: float = 0.5
    """Regions that overlap each object by less are background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hidden, self.networks, self.batch_size) < 1 or not (self.passes > 0 and self.lr > 0):
            raise ValueError("head: wanted hidden, networks and batch_size from 1, passes and lr above 0")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1 and 0 < self.fg_share < 1):
            raise ValueError("head: wanted dropout and input_dropout in [0, 1), fg_share in (0, 1)")

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int) -> TwoLayerHead:
        """The networks, whose first layer takes the geometry as it is."""
        classes = list(range(1, len(examples.classes) + 1))
        for label in classes:
            examples.positives(label)  # raises where there are none
        rows = np.flatnonzero((examples.labels > 0) | ~any_overlap(examples, self.background_iou))
        mean, scale = standardisation(examples.geometry[rows])
        scale = scale * np.float32(GEOMETRY_WEIGHT)
        x = np.concatenate([examples.features, (examples.geometry - mean) * scale], axis=1)
        overlaps = np.clip((examples.class_ious.max(axis=1).astype(np.float32) - 0.1) / 0.8, 0, 1)
        networks = [
            self._network(x, examples.labels, overlaps, rows, len(classes), seed + one).state_dict()
            for one in range(self.networks)
        ]
        first = torch.stack([network["1.weight"] for network in networks])
        first[:, :, -len(scale) :] *= torch.from_numpy(scale)
        shift = first[:, :, -len(scale) :] @ torch.from_numpy(mean)
        return TwoLayerHead(
            hidden_weight=first,
            hidden_bias=torch.stack([network["1.bias"] for network in networks]) - shift,
            weight=torch.stack([network["4.weight"] for network in networks]),
            bias=torch.stack([network["4.bias"] for network in networks]),
            **shared,
            **self.box_tensors(examples, classes),
        )

    def extend(self, head: FeatureHead, examples: Examples, *, seed: int) -> TwoLayerHead:
        """All classes trained anew, and so calibrated to the new one."""
        return self.fit(examples, {"mean": head.mean, "scale": head.scale}, seed=seed)

    def remove_class(self, head: FeatureHead, label: int, examples: Examples, *, seed: int) -> FeatureHead:
        """All that stay trained anew."""
        del label
        return self.extend(head, standardised(examples, head.mean.numpy(), head.scale.numpy()), seed=seed)

    def _network(
        self, x: Float32Array, labels: Int64Array, overlaps: Float32Array, rows: Int64Array, classes: int, seed: int
    ) -> nn.Sequential:
        """One network on standardised inputs (N, D + G). Dropout draws from torch's global generator, lent for it."""
        generator = np.random.default_rng(seed)
        objects, background = rows[labels[rows] > 0], rows[labels[rows] == 0]
        n_objects = round(self.fg_share * self.batch_size) if len(background) else self.batch_size
        fast = torch.cpu._is_avx512_bf16_supported()  # several times as fast; the loss and the updates are in float32
        steps = max(round(self.passes * len(rows) / self.batch_size), 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Dropout(self.input_dropout),
                nn.Linear(x.shape[1], self.hidden),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, classes + 2),
            )
            optimizer = torch.optim.AdamW(network.parameters(), self.lr, weight_decay=self.weight_decay)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps + 1)
            for _ in range(steps):
                chosen = generator.choice(objects, n_objects)
                if len(background):
                    chosen = np.concatenate([chosen, generator.choice(background, self.batch_size - n_objects)])
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                    out = network(torch.from_numpy(x[chosen])).float()
                loss = softmax_loss(out[:, :-1], torch.from_numpy(labels[chosen]))
                loss = loss + F.binary_cross_entropy_with_logits(out[:, -1], torch.from_numpy(overlaps[chosen]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return network.eval()
