"""A two-layer head on stored features: class scores times a predicted IoU.

Linear heads separate classes well, but not an object from a part of it. Here all classes share a hidden layer, which
learns from every object what a complete object looks like. One output predicts the IoU with an object; it is multiplied
with the class scores (compare the centre-ness of FCOS, Tian et al. 2019, and IoU-Net, Jiang et al. 2018). Four more
outputs predict class-agnostic box deltas: with few objects per class, they are learned better from all classes.
Between the hidden layer and the outputs may be layers of attention among the regions of an image.

N: number of regions. D: feature width. G: number of geometry values. H: width of the hidden layer. K: number of
classes. M: number of networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detpipe.heads.bbox_regressor import TARGET_STD
from detpipe.heads.fast_rcnn.region_attention import RegionAttention
from detpipe.heads.fast_rcnn.settings import MOST_LAYERS
from detpipe.heads.region_head import BoxRegression
from detpipe.heads.softmax import softmax_loss
from detpipe.heads.stored.feature_head import (
    CompetingHeadConfig,
    Examples,
    FeatureHead,
    any_overlap,
    standardisation,
)
from detpipe.heads.stored.image_attention import (
    Batches,
    ImageBatches,
    RegionBatches,
    attended,
    boxes_of,
    new_attention,
    stored_attention,
)
from detpipe.structures import Float32Array, Int64Array

GEOMETRY_WEIGHT = 3.0
"""Factor of the standardised geometry. It offsets weight decay: there are thousands of features, but G is small."""


class TwoLayersHead(FeatureHead):
    """Softmax times predicted IoU: hidden = relu(W1 x + b1); logits and IoU = W2 hidden + b2.

    The scores of M networks are averaged. hidden_weight: (M, H, D + G), hidden_bias: (M, H). weight: (M, K + 2, H),
    bias: (M, K + 2); row 0 is the background, the last row the IoU. delta_weight: (M, 4, H), delta_bias: (M, 4), the
    class-agnostic deltas; (M, 0, H) and (M, 0) unless box_regression=joint. attention: the layers of attention of each
    network; empty without attention. Their parameters are given as "attention.M.NAME".
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor
    delta_weight: Tensor
    delta_bias: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        """tensors: buffers and parameters by name. Raises TypeError and RuntimeError for missing or unknown ones."""
        attention = {name: one for name, one in tensors.items() if name.startswith("attention.")}
        super().__init__(**{name: one for name, one in tensors.items() if name not in attention})
        of_network = [
            {name.removeprefix(start): one for name, one in attention.items() if name.startswith(start)}
            for start in (f"attention.{number}." for number in range(len(self.bias) if attention else 0))
        ]
        if sum(map(len, of_network)) != len(attention):
            raise TypeError(f"expected layers of attention of {len(of_network)} networks, got others")
        self.attention = nn.ModuleList(stored_attention(self.hidden_bias.shape[1], one) for one in of_network)

    @property
    def n_classes(self) -> int:
        return self.bias.shape[1] - 2

    @property
    def attention_layers(self) -> int:
        return len(self.attention[0].layers) if len(self.attention) else 0  # type: ignore[arg-type]

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), **dict(self.named_parameters())}

    def forward(
        self, features: Tensor, geometry: Tensor, ignored: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        x = (features - self.mean) * self.scale
        hidden = self._hidden(x, geometry, ignored)
        return self.with_background(self._mean_scores(hidden)), self._mean_deltas(hidden, x, geometry)

    def class_scores(self, x: Tensor, geometry: Tensor) -> Tensor:
        return self._mean_scores(self._hidden(x, geometry))

    def deltas(self, x: Tensor, geometry: Tensor) -> Tensor | None:
        return self._mean_deltas(self._hidden(x, geometry), x, geometry)

    def _mean_scores(self, hidden: list[Tensor]) -> Tensor:
        return torch.stack([self._scores(own, one) for one, own in enumerate(hidden)]).mean(dim=0)

    def _mean_deltas(self, hidden: list[Tensor], x: Tensor, geometry: Tensor) -> Tensor | None:
        if not self.delta_bias.numel():
            return super().deltas(x, geometry)
        found = [own @ self.delta_weight[one].T + self.delta_bias[one] for one, own in enumerate(hidden)]
        return torch.stack(found).mean(dim=0)[:, None].expand(-1, self.n_classes, -1)

    def _hidden(self, x: Tensor, geometry: Tensor, ignored: Tensor | None = None) -> list[Tensor]:
        """(N, D), (N, G) -> the hidden layer (N, H) of each network."""
        joined = torch.cat([x, geometry], dim=1)
        hidden = [
            (joined @ weight.T + bias).relu() for weight, bias in zip(self.hidden_weight, self.hidden_bias, strict=True)
        ]
        if not len(self.attention):
            return hidden
        boxes = boxes_of(geometry)
        return [attended(layers, one, boxes, ignored) for layers, one in zip(self.attention, hidden, strict=True)]

    def _scores(self, hidden: Tensor, one: int) -> Tensor:
        """(N, H) -> scores (N, K) of network number `one`."""
        out = hidden @ self.weight[one].T + self.bias[one]
        return out[:, :-1].softmax(dim=1)[:, 1:] * out[:, -1:].sigmoid()


@dataclass(kw_only=True)
class TwoLayersConfig(CompetingHeadConfig):
    """Networks with one hidden layer, trained with AdamW. If a class is added, all are trained again."""

    MODULE: ClassVar[type[FeatureHead]] = TwoLayersHead

    JOINT: ClassVar[bool] = True
    NEEDS_EACH: ClassVar[bool] = False
    USES_BF16: ClassVar[bool] = True
    box_regression: BoxRegression = BoxRegression.joint
    """Box regression: joint (by the hidden layer, class-agnostic), ridge (ridge regression per class) or none."""
    hidden: int = 128
    """Width of the hidden layer."""
    networks: int = 6
    """Number of networks with different initial weights, whose scores are averaged."""
    passes: float = 4.0
    """Number of epochs over the regions."""
    batch_size: int = 512
    """Regions per batch."""
    fg_share: float = 0.25
    """Share of object regions in a batch."""
    lr: float = 0.001
    """Largest learning rate of the one-cycle schedule."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    input_dropout: float = 0.2
    """Share of the input features that are dropped; each step drops others."""
    dropout: float = 0.5
    """Share of the hidden units that are dropped."""
    background_iou: float = 0.5
    """Regions whose IoU with every object is below this are background."""
    attention: int = 0
    """Number of layers of attention among the regions of an image, after the hidden layer. 0: each region is classified
    by itself. With attention, batches are whole images with about batch_size regions in all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weight_decay >= 0:
            raise ValueError(f"head.weight_decay: expected at least 0, got {self.weight_decay}")
        if min(self.hidden, self.networks, self.batch_size) < 1 or not (self.passes > 0 and self.lr > 0):
            raise ValueError(
                "head: expected hidden, networks and batch_size >= 1, passes and lr above 0, got "
                f"{self.hidden}, {self.networks}, {self.batch_size}, {self.passes}, {self.lr}"
            )
        if not 0 <= self.attention <= MOST_LAYERS:
            raise ValueError(f"head.attention: expected 0 to {MOST_LAYERS} layers, got {self.attention}")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1 and 0 < self.fg_share < 1):
            raise ValueError(
                "head: expected dropout and input_dropout in [0, 1) and fg_share in (0, 1), got "
                f"{self.dropout}, {self.input_dropout}, {self.fg_share}"
            )

    @property
    def attention_layers(self) -> int:
        return self.attention

    def fit(self, examples: Examples, shared: dict[str, Tensor], *, seed: int, bf16: bool = False) -> TwoLayersHead:
        """Train the networks. The standardisation of the geometry is folded into the first layer.

        Raises ValueError with attention, if the examples do not have the image of each region.
        """
        classes = list(range(1, len(examples.classes) + 1))
        examples.check_any_positives()
        rows = np.flatnonzero((examples.labels > 0) | ~any_overlap(examples, self.background_iou))
        mean, scale = standardisation(examples.geometry[rows])
        scale = scale * np.float32(GEOMETRY_WEIGHT)
        x = torch.from_numpy(np.concatenate([examples.features, (examples.geometry - mean) * scale], axis=1))
        # bf16 is several times as fast if the CPU supports it. The loss and the updates are in float32.
        x = x.to(torch.bfloat16 if bf16 else torch.float32)
        overlaps = np.clip((examples.class_ious.max(axis=1).astype(np.float32) - 0.1) / 0.8, 0, 1)
        batches = self._batches(examples, rows)
        steps = max(round(self.passes * len(rows) / self.batch_size), 1)
        trained = [self._network(x, examples, overlaps, batches, steps, seed + one) for one in range(self.networks)]
        networks = [network.state_dict() for network, _ in trained]
        attention = {
            f"attention.{number}.{name}": tensor
            for number, (_, layers) in enumerate(trained)
            for name, tensor in (layers.state_dict().items() if layers is not None else ())
        }
        first = torch.stack([network["0.weight"] for network in networks])
        first[:, :, -len(scale) :] *= torch.from_numpy(scale)
        shift = first[:, :, -len(scale) :] @ torch.from_numpy(mean)
        scores = len(classes) + 2
        weight, bias = (torch.stack([network[f"3.{name}"] for network in networks]) for name in ("weight", "bias"))
        std = torch.tensor(TARGET_STD)[: bias.shape[1] - scores]
        return TwoLayersHead(
            hidden_weight=first,
            hidden_bias=torch.stack([network["0.bias"] for network in networks]) - shift,
            weight=weight[:, :scores].contiguous(),
            bias=bias[:, :scores].contiguous(),
            delta_weight=weight[:, scores:] * std[:, None],
            delta_bias=bias[:, scores:] * std,
            **attention,
            **shared,
            **self.box_tensors(examples, classes),
        )

    def _batches(self, examples: Examples, rows: Int64Array) -> Batches:
        """Batches of the regions `rows`; with attention, of whole images."""
        size, fg_share = self.batch_size, self.fg_share
        if not self.attention:
            return RegionBatches(examples.labels, rows, size=size, fg_share=fg_share)
        if examples.sets is None:
            raise ValueError(
                f"head.attention={self.attention}: expected the image of each region, got none; use head.attention=0"
            )
        return ImageBatches(examples.labels, rows, examples.sets, size=size, fg_share=fg_share)

    def _network(
        self, x: Tensor, examples: Examples, overlaps: Float32Array, batches: Batches, steps: int, seed: int
    ) -> tuple[nn.Sequential, RegionAttention | None]:
        """Train one network on the standardised inputs x (N, D + G), in bf16 if x is.

        The outputs are the K + 1 class logits, the logit of the IoU, and with joint box regression the deltas divided
        by TARGET_STD. Dropout uses torch's global generator, whose state is restored afterwards.
        """
        labels, classes = examples.labels, len(examples.classes)
        joint = self.box_regression is BoxRegression.joint
        generator = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = nn.Linear(x.shape[1], self.hidden)
            network = nn.Sequential(
                first,
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, classes + 2 + 4 * joint),
            )
            attention = new_attention(self.hidden, self.attention, seed) if self.attention else None
            weights = [*network.parameters(), *(attention.parameters() if attention is not None else ())]
            optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=self.weight_decay, fused=True)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps + 1)
            for _ in range(steps):
                batch = batches.draw(generator)
                # All regions of a step drop the same features: a mask for each region would take longer than the step.
                # It is the same on the weights, which are fewer.
                kept = generator.random(x.shape[1]) >= self.input_dropout
                weight = first.weight * (torch.from_numpy(kept) / (1 - self.input_dropout))
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype is torch.bfloat16):
                    hidden = F.linear(x[torch.from_numpy(batch.rows)], weight, first.bias).relu()
                    if attention is not None:
                        boxes = boxes_of(torch.from_numpy(examples.geometry[batch.rows]))
                        hidden = attention(hidden, boxes, torch.from_numpy(batch.sets))
                    out = network[2:](hidden).float()
                loss = softmax_loss(out[:, : classes + 1], torch.from_numpy(labels[batch.rows]), reduction="none")
                overlap = torch.from_numpy(overlaps[batch.rows])
                loss = loss + F.binary_cross_entropy_with_logits(out[:, classes + 1], overlap, reduction="none")
                if joint:
                    targets = torch.from_numpy(examples.deltas[batch.rows]) / torch.tensor(TARGET_STD)
                    off = F.smooth_l1_loss(out[:, classes + 2 :], targets, reduction="none").sum(dim=1)
                    loss = loss + off * torch.from_numpy(labels[batch.rows] > 0)
                optimizer.zero_grad()
                (loss @ torch.from_numpy(batch.weights)).backward()
                optimizer.step()
                schedule.step()
        return network.eval(), attention
