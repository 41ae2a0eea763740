"""The settings of `detpipe inspect`. This file and what it imports do without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detpipe.backbone.settings import NONE, BackboneConfig
from detpipe.network.settings import Precision
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class NetworkCommand(Command):
    """The settings of every command that looks into a network at work."""

    backbone: BackboneConfig | None = None
    """backbone=efficientnet_lite0|caffe and its settings; null: the trained classifier of run_dir."""
    classes: int = 1000
    """With a backbone whose weights bring no classifier: the outputs of the new softmax head."""
    image: str | None = None
    """An image, or a folder of which the first `batch` are taken; null: noise, drawn from the seed."""
    batch: int = 8
    """How many images at most are looked at together."""
    label: int | None = None
    """The label of all images, from 0; null: drawn from the seed."""
    training: bool | None = None
    """Batch norms and dropout as in training, of Caffe's nets the phase TRAIN; null: where there are no weights yet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1 or self.classes < 2:
            raise ValueError(f"batch, classes: expected numbers from 1 and 2, got {self.batch} and {self.classes}")

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
    """Names of layers, as the table has them, whose maps are drawn; none: a few, from the first to the last."""
    maps: int = 64
    """How many maps of a layer are drawn: the first ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps < 1:
            raise ValueError(f"maps: expected a number from 1, got {self.maps}")


@dataclass(kw_only=True)
class InspectTime(NetworkCommand):
    """Settings of `detpipe inspect time`."""

    iterations: int = 10
    """Steps that are timed, without hooks and with them."""
    warm_up: int = 2
    """Steps before them that are not."""
    backward: bool = True
    """Whether gradients are computed, too; false: the forward pass alone, as in detection."""
    precision: Precision = Precision.float32
    """auto is bf16 where the hardware computes in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1 or self.warm_up < 0:
            got = f"{self.iterations} and {self.warm_up}"
            raise ValueError(f"iterations, warm_up: expected numbers from 1 and from 0, got {got}")

    @property
    def is_training(self) -> bool:
        """As is said; else as in training where there is a backward pass."""
        return self.backward if self.training is None else self.training


@dataclass(kw_only=True)
class InspectWeights(Command):
    """Settings of `detpipe inspect weights`."""

    path: str | None = None
    """A .caffemodel, .pth, .pt (a snapshot, too) or .safetensors, or a run folder with a classifier; null: run_dir."""
    against: str | None = None
    """Another one, of before: how far each tensor went; start is what the run folder's training started from."""
    prototxt: str | None = None
    """Of a .caffemodel: its net, a file or a preset; null: tensors go by their layer's name and a number."""
    layer: str | None = None
    """The tensor whose filters are drawn; null: those that see the image."""
    filters: int = 256
    """How many pictures of filters are drawn at most."""
    bgr: bool | None = None
    """Whether filters of three channels see blue first; null: those of Caffe's files and of runs with such nets do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filters < 1:
            raise ValueError(f"filters: expected a number from 1, got {self.filters}")


@dataclass(kw_only=True)
class InspectRun(Command):
    """Settings of `detpipe inspect run`."""

    out: str | None = None
    """The folder for the pictures and the page; null: `run_dir`."""


@dataclass(kw_only=True)
class InspectDb(Command):
    """Settings of `detpipe inspect db`."""

    db: str | None = None
    """A database of images that make-db, crop or Caffe wrote: an LMDB folder, or the folder of its shards."""
    out: str | None = None
    """The folder for the pictures and the page; null: inspect_NAME beside the database."""
    sample: int = 60
    """Records on the contact sheet, drawn evenly by class with `seed`; 0 makes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sample <= 1000:
            raise ValueError(f"sample: expected 0 to 1000 records, got {self.sample}")

    @property
    def database(self) -> Path:
        """What is looked into. Raises ValueError where nobody said."""
        if self.db is None:
            raise ValueError("db: expected a database to look into, got none; give db=DB")
        return Path(self.db)

    @property
    def out_folder(self) -> Path:
        """Where the pictures go."""
        return self.database.parent / f"inspect_{self.database.stem}" if self.out is None else Path(self.out)
