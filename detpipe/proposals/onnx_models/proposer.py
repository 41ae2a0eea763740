"""A box model as an ONNX file as a proposer: its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from detpipe.datasets.image_file import AnyImage, as_image, file_digest
from detpipe.proposals.kept_files import keep_files, kept_file
from detpipe.proposals.network_boxes import ANY_NUMBER, as_proposals
from detpipe.proposals.onnx_models.model_file import OnnxModelError, model_files
from detpipe.proposals.onnx_models.presets import (
    PRESETS,
    Activation,
    Background,
    BoxForm,
    Channels,
    Fit,
    Layout,
    ModelForm,
    Preset,
)
from detpipe.proposals.proposer import Proposer
from detpipe.storage.manifest import digest_of
from detpipe.structures import Dataset, Proposals

if TYPE_CHECKING:
    from detpipe.proposals.onnx_models.session import OnnxBoxModel


@dataclass(kw_only=True)
class OnnxProposals(Proposer):
    """The boxes of a detector in an ONNX file, whatever their class, under onnxruntime (the extra `[onnx]`).

    It runs on a GPU if onnxruntime has CUDA. Settings that are null are taken from the preset.
    """

    COMPARABLE_SCORES: ClassVar[bool] = True

    path: str = ""
    """The ONNX file."""
    preset: Preset | None = None
    """The project whose exports the file follows; its settings are the defaults of those below. Must be given."""
    input_size: list[int] | None = None
    """Height and width of the input, for a file that leaves them open. null: the preset's, mostly 640 x 640."""
    fit: Fit | None = None
    """How the image becomes an input of this size."""
    antialias: bool | None = None
    """Resize as Pillow and torchvision do, with which DETRs are trained. false: as OpenCV, with which YOLO is."""
    fill: int | None = None
    """Level of the pixels beside a letterboxed image, 0 to 255. null: the preset's, for fcos_mmdet the mean."""
    mean: list[float] | None = None
    """Subtracted from the levels 0 to 255 of the three channels. Not used if the input has bytes."""
    std: list[float] | None = None
    """The levels less `mean` are divided by this. [255,255,255] gives 0 to 1."""
    channels: Channels | None = None
    """Order of the colour channels; `mean` and `std` have the same."""
    layout: Layout | None = None
    """Where boxes and scores are in the outputs."""
    box_form: BoxForm | None = None
    """The four numbers of a box."""
    normalised: bool | None = None
    """Whether the numbers of a box are shares of the input's sides (0 to 1) instead of pixels of the input."""
    activation: Activation | None = None
    """What makes scores from the numbers of the output."""
    background: Background | None = None
    """The class in the scores that means no object."""
    strides: list[int] | None = None
    """Sides in pixels of the cells to which boxes are relative, as YOLOX has them. []: boxes are in the input."""
    classes: int | None = None
    """Number of class scores of a box; numbers behind them, such as for masks, are ignored. null: as many as the
    file says it has names (Ultralytics writes them into it), else all."""
    boxes_output: str | None = None
    """Name of the output of boxes, or of the output with boxes and scores."""
    scores_output: str | None = None
    """Name of the output of scores, for `layout=separate`."""
    min_score: float = 0.001
    """Drop boxes with a lower score."""
    nms_iou: float = 0.7
    """IoU threshold of non-maximum suppression over all classes: drop a box that overlaps a better one by more. 1
    drops none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in (("input_size", 2), ("mean", 3), ("std", 3)):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, list(value))
                if len(value) != count:
                    raise ValueError(f"proposals.{name}: expected {count} numbers, got {list(value)}")
        if self.input_size is not None and min(self.input_size) < 1:
            raise ValueError(f"proposals.input_size: expected a height and width from 1, got {self.input_size}")
        if self.std is not None and 0 in self.std:
            raise ValueError(f"proposals.std: expected numbers other than 0, got {self.std}")
        if self.strides and min(self.strides) < 1:
            raise ValueError(f"proposals.strides: expected numbers from 1, got {self.strides}")
        if self.fill is not None and not 0 <= self.fill <= 255:
            raise ValueError(f"proposals.fill: expected a level from 0 to 255, got {self.fill}")
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"proposals.classes: expected a number from 1, got {self.classes}")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"proposals.nms_iou: expected a number in [0, 1], got {self.nms_iou}")

    @property
    def form(self) -> ModelForm:
        """The settings of the preset, with those that are set here. Raises ValueError without a preset."""
        if self.preset is None:
            raise ValueError(f"proposals.preset: expected {', '.join(Preset)}, got none; see docs/other_detectors.md")
        form: ModelForm = PRESETS[self.preset]
        given: dict[str, Any] = {}
        for field in dataclasses.fields(ModelForm):
            value = getattr(self, field.name)
            if value is not None:
                value = (value,) if field.name.endswith("_output") else value
                given[field.name] = tuple(value) if isinstance(value, list) else value
        return dataclasses.replace(form, **given)

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Load the model.

        Raises ValueError without a path or preset, OnnxModelError and the errors of `open_input` for the file, and
        ImportError without onnxruntime.
        """
        self._model()

    @property
    def max_threads(self) -> int:
        """Any number: threads share the model."""
        return ANY_NUMBER

    def inputs(self) -> Mapping[str, str]:
        """The digests of the model's files, and of the preset's settings, which the settings here only name."""
        files = {path.name: file_digest(path).hex() for path in model_files(self._path)}
        return {**files, f"preset {self.preset}": digest_of(self.form)}

    def keep(self, folder: Path) -> None:
        """Copy the model's files. Raises as `model_files`."""
        keep_files(folder, self._path.parent, model_files(self._path))

    def kept_in(self, folder: Path) -> Proposer:
        """The same proposer with the copied model, if there is one."""
        return dataclasses.replace(self, path=kept_file(folder, self.path))

    def __call__(self, image: AnyImage) -> Proposals:
        """The model's boxes of an RGB image. Raises what `check` raises, and OnnxModelError for other outputs."""
        image = as_image(image)
        boxes, scores = self._model()(image)
        kept = scores >= self.min_score
        return as_proposals(
            boxes[kept], scores[kept], (image.shape[0], image.shape[1]), self.max_proposals, nms_iou=self.nms_iou
        )

    @property
    def _path(self) -> Path:
        if not self.path:
            raise OnnxModelError("proposals=onnx: expected an ONNX file, got none; give proposals.path=FILE")
        return Path(self.path)

    def _model(self) -> OnnxBoxModel:
        from detpipe.proposals.onnx_models.session import loaded

        size = self.input_size
        return loaded(self._path, self.form, None if size is None else (size[0], size[1]))
