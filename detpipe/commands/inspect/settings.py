"""The settings of `detpipe inspect`. This file must not import torch, so that --help is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detpipe.backbone.settings import NONE, BackboneConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class NetworkCommand(Command):
    """The settings of every command that runs a network."""

    backbone: BackboneConfig | None = None
    """The network: backbone=efficientnet_lite0|caffe and its settings; null: the classifier in run_dir."""
    classes: int = 1000
    """Number of outputs of a new softmax head, if the weights of `backbone` have no classifier."""
    image: str | None = None
    """An image, or a folder whose first `batch` images are used; null: random noise."""
    batch: int = 8
    """Number of images in the batch, at most."""
    label: int | None = None
    """The label of all images, from 0; null: random labels."""
    training: bool | None = None
    """true: training mode (batch norm, dropout, Caffe's phase TRAIN); false: test mode; null: true if weights=none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1 or self.classes < 2:
            raise ValueError(f"batch, classes: expected numbers >= 1 and 2, got {self.batch} and {self.classes}")

    @property
    def is_training(self) -> bool:
        """Whether the network is in training mode."""
        if self.training is not None:
            return self.training
        return self.backbone is not None and self.backbone.weights == NONE


@dataclass(kw_only=True)
class InspectActivations(NetworkCommand):
    """Settings of `detpipe inspect activations`."""

    layers: list[str] = field(default_factory=list)
    """Names of the layers, as in the table, whose maps are drawn; empty: four evenly spaced layers."""
    maps: int = 64
    """Number of maps to draw per layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps < 1:
            raise ValueError(f"maps: expected a number >= 1, got {self.maps}")


@dataclass(kw_only=True)
class InspectTime(NetworkCommand):
    """Settings of `detpipe inspect time`."""

    iterations: int = 10
    """Number of timed steps, both with and without hooks."""
    warm_up: int = 2
    """Number of steps before the timed ones."""
    backward: bool = True
    """true: time the forward and backward pass; false: the forward pass only, as in detection."""
    precision: Precision = Precision.float32
    """float32, bf16, or auto: bf16 if the hardware supports it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1 or self.warm_up < 0:
            got = f"{self.iterations} and {self.warm_up}"
            raise ValueError(f"iterations, warm_up: expected numbers >= 1 and 0, got {got}")

    @property
    def is_training(self) -> bool:
        """Whether the network is in training mode: `training`, or by default `backward`."""
        return self.backward if self.training is None else self.training


@dataclass(kw_only=True)
class InspectWeights(Command):
    """Settings of `detpipe inspect weights`."""

    path: str | None = None
    """A .caffemodel, .pth, .pt (also a snapshot) or .safetensors file, or a run folder; null: run_dir."""
    against: str | None = None
    """Earlier weights, to show how far each tensor has moved; start: the initial weights of the run's training."""
    prototxt: str | None = None
    """The net of a .caffemodel, as a file or a preset; null: tensors are named by layer and number."""
    layer: str | None = None
    """The tensor whose filters are drawn; null: the weight of the first layer, which sees the image."""
    filters: int = 256
    """Number of filters to draw, at most."""
    bgr: bool | None = None
    """Channel order of filters with three channels: true for BGR, false for RGB; null: BGR for Caffe nets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters < 1:
            raise ValueError(f"filters: expected a number >= 1, got {self.filters}")


@dataclass(kw_only=True)
class InspectRun(Command):
    """Settings of `detpipe inspect run`."""

    out: str | None = None
    """The folder of the pictures and the page; null: run_dir."""


@dataclass(kw_only=True)
class InspectAttention(Command):
    """Settings of `detpipe inspect attention`."""

    image: str | None = None
    """An image file, or a test image by its id or file name."""
    detections: int = 4
    """Number of detections to draw, highest score first."""
    regions: int = 8
    """Number of regions to draw for each detection: those that it attends to most."""
    layer: int | None = None
    """The attention layer, from 1; null: the last one."""
    attention_head: int | None = None
    """The head of the layer, from 1; null: the mean of all heads."""
    out: str | None = None
    """The folder of the picture; null: run_dir."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("detections", "regions", "layer", "attention_head"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a number from 1, got {value}")


@dataclass(kw_only=True)
class InspectDb(Command):
    """Settings of `detpipe inspect db`."""

    db: str | None = None
    """A database of images, written by make-db, crop or Caffe: an LMDB folder, or the folder of its shards."""
    out: str | None = None
    """The folder of the pictures and the page; null: inspect_NAME in the folder of the database."""
    sample: int = 60
    """Number of random records on the contact sheet, balanced by class; 0: no contact sheet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sample <= 1000:
            raise ValueError(f"sample: expected 0 to 1000 records, got {self.sample}")

    @property
    def database(self) -> Path:
        """The path of the database. Raises ValueError if `db` is not set."""
        if self.db is None:
            raise ValueError("db: expected a database of images, got none; give db=DB")
        return Path(self.db)

    @property
    def out_folder(self) -> Path:
        """The folder of the pictures and the page."""
        return self.database.parent / f"inspect_{self.database.stem}" if self.out is None else Path(self.out)
