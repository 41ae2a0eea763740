"""How the box models of known projects are used: the table of presets, and the settings that a preset sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Preset(StrEnum):
    """A family of exported detectors."""

    yolo = "yolo"
    """Ultralytics' exports of YOLOv5, YOLOv8, YOLO11 and others without built-in NMS."""
    yolo_nms = "yolo_nms"
    """YOLOv10, YOLO26, and Ultralytics' exports with nms=True."""
    yolov7_nms = "yolov7_nms"
    """YOLOv7's export with --grid --end2end --max-wh, for onnxruntime."""
    yolox = "yolox"
    """YOLOX without --decode_in_inference."""
    detr = "detr"
    """RT-DETR and D-FINE, exported with their postprocessor."""
    detr_transformers = "detr_transformers"
    """DETR and Table Transformer of Hugging Face's transformers."""
    rt_detr_transformers = "rt_detr_transformers"
    """RT-DETR and D-FINE of Hugging Face's transformers."""
    rt_detr_ultralytics = "rt_detr_ultralytics"
    """RT-DETR of Ultralytics."""
    rf_detr = "rf_detr"
    """RF-DETR."""
    ssd = "ssd"
    """torchvision's SSD, SSDlite, RetinaNet and Faster R-CNN, which resize and normalise inside."""
    ssd_tf = "ssd_tf"
    """SSD and others of TensorFlow's Object Detection API, converted by tf2onnx."""
    fcos = "fcos"
    """torchvision's FCOS."""
    fcos_mmdet = "fcos_mmdet"
    """FCOS of MMDetection, exported by MMDeploy."""
    paddle = "paddle"
    """PP-YOLOE+ and RT-DETR of PaddleDetection, with NMS, converted by paddle2onnx."""


class Fit(StrEnum):
    """How an image becomes an input of another size."""

    stretch = "stretch"
    """Resize both sides, without regard to the aspect ratio."""
    letterbox = "letterbox"
    """Keep the aspect ratio, centre the image, and fill the rest."""
    top_left = "top_left"
    """Keep the aspect ratio, put the image into the top left corner, and fill the rest."""
    shorter_side = "shorter_side"
    """Keep the aspect ratio: the shorter side becomes the smaller number of the input's size, but the longer side at
    most the larger one. The model must take any size."""
    original = "original"
    """Give the image as it is. The model must take any size."""


class Channels(StrEnum):
    """The order of the colour channels."""

    rgb = "rgb"
    bgr = "bgr"


class Layout(StrEnum):
    """Where boxes and scores are in the outputs. N is the number of boxes, C the number of classes."""

    yolo = "yolo"
    """`columns` or `objectness`, whichever has more boxes than numbers per box."""
    columns = "columns"
    """One output (1, 4 + C, N): a box, then the scores of the classes, as of YOLOv8."""
    objectness = "objectness"
    """One output (1, N, 5 + C): a box, the objectness, then the scores of the classes, as of YOLOv5."""
    rows = "rows"
    """One output (1, N, 5 or more): a box, its score, then its class if there is more, as of YOLOv10."""
    row_scores = "row_scores"
    """One output (1, N, 4 + C): a box, then the scores of the classes, as of older RT-DETRs of Ultralytics."""
    class_rows = "class_rows"
    """One output (N, 6): the class, the score, then the box, as of PaddleDetection."""
    image_rows = "image_rows"
    """One output (N, 7): the number of the image, the box, the score, the class, as of SuperGradients (flat)."""
    image_class_rows = "image_class_rows"
    """One output (N, 7): the number of the image, the box, the class, the score, as of YOLOv7."""
    separate = "separate"
    """One output of boxes (1, N, 4), and one of scores (1, N) or (1, N, C); also without the 1."""


class BoxForm(StrEnum):
    """The four numbers of a box."""

    xyxy = "xyxy"
    """Left, top, right, bottom."""
    cxcywh = "cxcywh"
    """Centre, width, height."""
    xywh = "xywh"
    """Left, top, width, height."""
    yxyx = "yxyx"
    """Top, left, bottom, right."""


class Activation(StrEnum):
    """What makes scores from the numbers of the output."""

    none = "none"
    sigmoid = "sigmoid"
    softmax = "softmax"


class Background(StrEnum):
    """The class in the scores that means no object."""

    none = "none"
    first = "first"
    last = "last"


@dataclass(frozen=True)
class ModelForm:
    """The input and the outputs of a box model.

    input_size: (height, width), for files that leave it open. antialias: the image is resized as by Pillow or
    torchvision, otherwise as by OpenCV. fill: level of the pixels beside a letterboxed image; None means `mean`, which
    is 0 in the input but for less than a level. mean, std: the input is (level - mean) / std, for levels 0 to 255.
    normalised: box numbers are shares of the input's sides, not pixels. strides: sides of the cells to which boxes are
    relative, as YOLOX has them; empty if boxes are in the input. classes: number of class scores; None means all that
    there are. boxes_output, scores_output: names of outputs, of which the first that the file has counts; for other
    layouts than `separate`, boxes_output holds both.
    """

    input_size: tuple[int, int] = (640, 640)
    fit: Fit = Fit.stretch
    antialias: bool = False
    fill: int | None = 0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    channels: Channels = Channels.rgb
    layout: Layout = Layout.separate
    box_form: BoxForm = BoxForm.xyxy
    normalised: bool = False
    strides: tuple[int, ...] = ()
    activation: Activation = Activation.none
    background: Background = Background.none
    classes: int | None = None
    boxes_output: tuple[str, ...] = ("boxes",)
    scores_output: tuple[str, ...] = ("scores",)


IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

PRESETS: Mapping[Preset, ModelForm] = {
    Preset.yolo: ModelForm(fit=Fit.letterbox, fill=114, layout=Layout.yolo, box_form=BoxForm.cxcywh),
    Preset.yolo_nms: ModelForm(fit=Fit.letterbox, fill=114, layout=Layout.rows),
    Preset.yolov7_nms: ModelForm(fit=Fit.letterbox, fill=114, layout=Layout.image_class_rows),
    Preset.yolox: ModelForm(
        fit=Fit.top_left,
        fill=114,
        std=(1.0, 1.0, 1.0),
        channels=Channels.bgr,
        layout=Layout.objectness,
        box_form=BoxForm.cxcywh,
        strides=(8, 16, 32),
    ),
    Preset.detr: ModelForm(antialias=True),
    Preset.detr_transformers: ModelForm(
        input_size=(800, 1333),
        fit=Fit.shorter_side,
        antialias=True,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        box_form=BoxForm.cxcywh,
        normalised=True,
        activation=Activation.softmax,
        background=Background.last,
        boxes_output=("pred_boxes",),
        scores_output=("logits",),
    ),
    Preset.rt_detr_transformers: ModelForm(
        antialias=True,
        box_form=BoxForm.cxcywh,
        normalised=True,
        activation=Activation.sigmoid,
        boxes_output=("pred_boxes",),
        scores_output=("logits",),
    ),
    Preset.rt_detr_ultralytics: ModelForm(layout=Layout.rows, box_form=BoxForm.cxcywh, normalised=True),
    Preset.rf_detr: ModelForm(
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        box_form=BoxForm.cxcywh,
        normalised=True,
        activation=Activation.sigmoid,
        boxes_output=("dets", "pred_boxes"),
        scores_output=("labels", "logits", "pred_logits"),
    ),
    Preset.ssd: ModelForm(fit=Fit.original),
    Preset.ssd_tf: ModelForm(
        fit=Fit.original,
        std=(1.0, 1.0, 1.0),
        box_form=BoxForm.yxyx,
        normalised=True,
        boxes_output=("detection_boxes", "detection_boxes:0"),
        scores_output=("detection_scores", "detection_scores:0"),
    ),
    Preset.fcos: ModelForm(fit=Fit.original),
    Preset.fcos_mmdet: ModelForm(
        input_size=(800, 1344),
        fit=Fit.top_left,
        fill=None,
        mean=(102.9801, 115.9465, 122.7717),
        std=(1.0, 1.0, 1.0),
        channels=Channels.bgr,
        layout=Layout.rows,
        boxes_output=("dets",),
    ),
    Preset.paddle: ModelForm(layout=Layout.class_rows),
}
"""Each preset is only these settings; every one of them may be set on its own.

What each was checked against:

- yolo, yolo_nms, rt_detr_ultralytics: exports and predictors of ultralytics 8.4 (docs/other_detectors.md).
- yolox: tools/export_onnx.py and demo/ONNXRuntime of Megvii-BaseDetection/YOLOX, and exports of yolox 0.3.
- yolov7_nms: ONNX_ORT in models/experimental.py of WongKinYiu/yolov7.
- detr_transformers, rt_detr_transformers: image processors and models of transformers 5.24, by torch.onnx.export.
- detr: rtdetrv2_pytorch/tools/export_onnx.py and RTDETRPostProcessor of lyuwenyu/RT-DETR. Inputs `images` and
  `orig_target_sizes` (width, height); outputs `labels`, `boxes` as x1 y1 x2 y2 in these sizes, and `scores` after a
  sigmoid. D-FINE's export has the same inputs and outputs (tools/deployment/export_openvino.py of Peterande/D-FINE
  names the inputs; its export_onnx.py was seen in copies only). Images are resized by Pillow (its onnx_inf.py).
- rf_detr: rfdetr/deploy/export.py and src/rfdetr/export of roboflow/rf-detr. Outputs `dets`, pred_boxes as cx cy w h in
  shares, and `labels`, pred_logits of a focal loss; a square image, less ImageNet's mean.
- ssd, fcos: torchvision.models.detection, and exports of ssdlite320_mobilenet_v3_large, retinanet_resnet50_fpn,
  fcos_resnet50_fpn and fasterrcnn_mobilenet_v3_large_320_fpn with random weights by torch.onnx.export (dynamo=False),
  height and width as dynamic axes. Outputs have no names of their own unless
  `output_names` gives some; the boxes are those with four columns, and the scores the only other floats.
- ssd_tf: research/object_detection/exporter_lib_v2.py of tensorflow/models. Input (1, H, W, 3) of bytes; all outputs
  are float32, among them `detection_boxes`, `detection_scores` and raw ones. tf2onnx adds `:0` to the names of
  TensorFlow 1.
- fcos_mmdet: configs/mmdet/base_static.py of open-mmlab/mmdeploy (`dets`, `labels`) and
  configs/fcos/fcos_r50_caffe_fpn_gn-head_1x_coco.py of open-mmlab/mmdetection. It pads with 0 after the mean is
  subtracted.
- paddle: configs/ppyoloe/_base_/ppyoloe_plus_reader.yml and deploy/third_engine/onnx of PaddlePaddle/PaddleDetection,
  which resizes bicubically.
"""
