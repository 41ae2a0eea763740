"""The table of readers: for each its valid files, which are small, and how it reads one."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import scipy.io
from google.protobuf import text_format

from detpipe.storage.reader_process import Arrays
from tests.storage.test_tar_file import tar_of


@dataclass(frozen=True)
class FileReader:
    """A row of the table.

    suffix: of the files. make: the valid files. read: reads a path. contained: `read` itself runs in a ReaderProcess
    when users call it, so any exception, crash or limit becomes one sentence. allowed: exceptions that are right; they
    must name the file in one line. uses_torch: it is imported before the limits are set. has_picture: `file.png` is
    beside the file, for annotations that need their image.
    """

    suffix: str
    make: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    contained: bool = False
    allowed: tuple[type[Exception], ...] = (ValueError, OSError)
    file_name: str = "file"
    uses_torch: bool = False
    has_picture: bool = False

    def new_path(self, folder: Path) -> Path:
        """Where a file to read is written, in a folder that is made. The picture is there already, if it needs one."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.has_picture:
            (folder / "file.png").write_bytes(encoded("png"))
        return folder / f"{self.file_name}{self.suffix}"


class ManyLinesError(Exception):
    """An error that is not one sentence with the name of the file."""


def read_one(path: Path) -> tuple[Any, Arrays]:
    """Read a file in a folder that has the name of its reader. Allowed errors are dropped."""
    reader = READERS[path.parent.name]
    try:
        reader.read(path)
    except reader.allowed as error:
        text = str(error)
        if not reader.contained and ("\n" in text or len(text) > 2_000 or str(path.parent) not in text):
            raise ManyLinesError(f"{type(error).__name__}: {text[:300]!r}") from error
    return None, {}


# What is imported is imported on first use: torch takes a second, and most readers do without.


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def encoded(suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture()).save(buffer, format=suffix, **options)
    return buffer.getvalue()


def with_exif() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded("jpeg", exif=exif)


def images() -> list[bytes]:
    grey = cv2.imencode(".png", picture()[:, :, 0].astype(np.uint16) * 257)[1].tobytes()
    forms = [encoded("png"), encoded("jpeg"), encoded("bmp"), encoded("tiff"), encoded("gif"), encoded("webp")]
    return [*forms, encoded("tiff", compression="tiff_lzw"), encoded("jpeg", progressive=True), with_exif(), grey]


def read_image_file(path: Path) -> object:
    from detpipe.datasets.image_file import read_header, read_image

    read_header(path)
    return read_image(path)


BOXES = np.array([[1, 1, 4, 6], [2, 2, 3, 5]], np.float32)


def pickles() -> list[bytes]:
    detectron = {"ids": [1, 2], "boxes": [BOXES, BOXES[:0]], "objectness_logits": [BOXES[:, 0], BOXES[:0, 0]]}
    named = {"a/b.jpg": {"bboxes": BOXES, "scores": BOXES[:, 0]}}
    return [pickle.dumps(one, protocol) for one in (detectron, named, [BOXES]) for protocol in (0, 2, 4, 5)]


def mats() -> list[bytes]:
    cells, names = np.empty((1, 2), object), np.empty((2, 1), object)
    cells[0, 0], cells[0, 1], names[0, 0], names[1, 0] = BOXES, BOXES[:1], "a", "b"
    files = []
    for content in (
        {"boxes": cells, "images": names},
        {"boxes": BOXES},
        {"boxes": np.zeros((0, 4)), "other": {"field": [BOXES, "text"]}},
    ):
        for compressed in (False, True):
            buffer = io.BytesIO()
            scipy.io.savemat(buffer, content, do_compression=compressed)
            files.append(buffer.getvalue())
    return files


def coco_results() -> list[bytes]:
    results = [{"image_id": i, "category_id": 1, "bbox": [1, 2.5, 3, 4], "score": 0.5} for i in range(3)]
    return [json.dumps(results).encode(), b"[]"]


def read_proposals(path: Path) -> object:
    from detpipe.proposals.files.imported import _read_arrays

    return _read_arrays(path)


def read_results(path: Path) -> object:
    from detpipe.datasets.coco_results import read_detections
    from detpipe.structures import Dataset, ImageRecord

    records = tuple(ImageRecord(i, Path(f"{i}.jpg"), (6, 9)) for i in range(3))
    return read_detections(path, Dataset("test", ("thing",), (1,), records, None))


def coco() -> list[bytes]:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 6}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 3, 1, 3, 4]], "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    return [json.dumps(content).encode()]


def read_coco(path: Path) -> object:
    from detpipe.datasets.coco import read_coco_file

    return read_coco_file(path, path.parent)


def xmls() -> list[bytes]:
    text = """<annotation><filename>a.jpg</filename><size><width>9</width><height>6</height><depth>3</depth></size>
<object><name>thing</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>6</ymax>
</bndbox></object></annotation>"""
    return [text.encode(), f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()]


def read_xml(path: Path) -> object:
    from detpipe.datasets.voc_xml import read_voc_annotation

    return read_voc_annotation(path)


def read_list(path: Path) -> object:
    from detpipe.datasets.labelled_images import read_image_list

    return read_image_list(path, path.parent, None)


def idx() -> list[bytes]:
    return [b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + bytes(24)]


def read_idx_file(path: Path) -> object:
    from detpipe.datasets.idx import read_idx

    return read_idx(path, 3)


def arrays() -> list[bytes]:
    files = []
    for array in (np.ones((3, 2, 2), np.float32), np.ones(3), np.asfortranarray(np.ones((2, 3), np.uint8))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    return files


def read_array(path: Path) -> object:
    from detpipe.storage.npy_file import _load

    return {name: np.array(array) for name, array in _load(path)[1].items()}


def torch_files() -> list[bytes]:
    import torch

    files = []
    for content in ({"a": torch.ones(2, 3), "b": torch.zeros(2).half()}, {"epoch": 1, "model": {"w": torch.ones(1)}}):
        for new in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=new)
            files.append(buffer.getvalue())
    return files


def read_torch(path: Path) -> object:
    from detpipe.storage.torch_file import _load

    return _load(path)


def safetensors() -> list[bytes]:
    from safetensors.numpy import save

    return [save({"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float16)})]


def read_safetensors(path: Path) -> object:
    from detpipe.backbone.weights import read_state

    return read_state(path)


def blobs() -> list[bytes]:
    from detpipe.storage.caffe_blob_pb2 import BlobProto, BlobShape

    old = BlobProto(num=1, channels=3, height=2, width=2, data=range(12))
    return [
        old.SerializeToString(),
        BlobProto(shape=BlobShape(dim=[3, 2, 2]), double_data=range(12)).SerializeToString(),
    ]


def read_mean_file(path: Path) -> object:
    from detpipe.storage.mean_file import read_mean

    return read_mean(path)


NET = """name: "net" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "f" type: "InnerProduct" bottom: "p" top: "f" inner_product_param { num_output: 5 } }
layer { name: "s" type: "Softmax" bottom: "f" top: "s" }
"""


def read_net(path: Path) -> object:
    from detpipe.backbone.caffe.load import load_caffe

    return load_caffe(path)


def caffemodels() -> list[bytes]:
    from detpipe.backbone.caffe.caffe_net_pb2 import NetParameter

    net = NetParameter()
    text_format.Parse('name: "n" layer { name: "c" type: "Convolution" }', net)
    for _ in range(2):
        blob = net.layer[0].blobs.add()
        blob.shape.dim.extend([2, 3])
        blob.data.extend(range(6))
    return [net.SerializeToString()]


def read_model(path: Path) -> object:
    from detpipe.backbone.caffe.caffemodel import read_caffemodel

    return [blob.array.sum() for several in read_caffemodel(path).values() for blob in several]


SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 100 max_iter: 300 momentum: 0.9
weight_decay: 0.0005 snapshot: 100 snapshot_prefix: "x" test_iter: 10 test_interval: 50 random_seed: 1
"""


def read_solver(path: Path) -> object:
    from detpipe.solver.solver_prototxt import read_solver_prototxt

    return read_solver_prototxt(path)


def databases() -> list[bytes]:
    from detpipe.proposals.proposals_db import StoredProposals, serialize_proposals
    from detpipe.storage.datum import caffe_datum, pack_image
    from detpipe.storage.lmdb_store import LmdbWriter
    from detpipe.structures import Proposals

    files = []
    proposals = Proposals(BOXES, np.array([1, 0.5], np.float32))
    record = serialize_proposals(StoredProposals(proposals, (6, 9), bytes(16), None))
    values = [
        record,
        caffe_datum(picture(), 1).SerializeToString(),
        pack_image(picture(), jpeg_quality=90).SerializeToString(),
        bytes(10_000),  # needs pages of its own
    ]
    for count in (1, 30):
        with tempfile.TemporaryDirectory() as folder:
            with LmdbWriter(Path(folder)) as writer:
                for number in range(count):
                    for kind, value in enumerate(values):
                        writer.put(b"%d/%08d" % (kind, number), value)
            files.append((Path(folder) / "data.mdb").read_bytes())
    return files


def read_database(path: Path) -> object:
    from detpipe.proposals.proposals_db import parse_proposals
    from detpipe.storage.datum import parse_datum, unpack_image
    from detpipe.storage.lmdb_pages import check_pages
    from detpipe.storage.lmdb_store import LmdbReader

    check_pages(path.parent)
    reader = LmdbReader(path.parent)
    try:
        found: list[object] = [len(reader)]
        for key, value in reader.items():
            where = f"{path.parent}, record {key!r}"
            if key.startswith(b"0"):
                found.append(parse_proposals(value, where))
            elif key[:1] in b"12":
                found.append(unpack_image(parse_datum(value, where), where))
    finally:
        reader.close()
    return found


def shard_indices() -> list[bytes]:
    shard = {"folder": "0001-of-0002", "records": 4, "digest": "ab"}
    index = {"stage": "crop", "shards": [shard, {**shard, "folder": "0002-of-0002"}], "seed": 3}
    return [json.dumps(index).encode()]


def read_shard_index(path: Path) -> object:
    from detpipe.storage.shard_index import read_index

    return read_index(path.parent)


def manifests() -> list[bytes]:
    content = {
        "stage": "propose",
        "settings": {"a": [1, None, {"b": "c"}]},
        "inputs": {"train": "ab"},
        "complete": True,
        "seconds": 1.5,
        "summary": {"images": 3},
        "bad": [{"path": "a.jpg", "reason": "cut"}],
        "detpipe": "0.1.0",
    }
    return [json.dumps(content).encode()]


def read_manifest_file(path: Path) -> object:
    from detpipe.storage.manifest import find_manifest

    return find_manifest(path.parent)


def read_data_set(word: str, *, is_folder: bool = False) -> Callable[[Path], object]:
    """How a file that `dataset=word` reads is read, by its path or in its folder. Needs the picture beside it."""

    def read(path: Path) -> object:
        from detpipe.class_path import load_class
        from detpipe.datasets.formats import FORMATS
        from detpipe.datasets.source import Split

        root = path.parent if is_folder else path
        return load_class(FORMATS[word])(root=str(root), test_share=0.0, max_bad=1.0).load(Split.train)

    return read


YOLO_YAML = """path: .
train: file.png
nc: 2
names:
  0: cat
  1: "dog"
"""
YOLO_TEXT = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.9\n"
CSV = """filename,width,height,class,xmin,ymin,xmax,ymax
file.png,9,6,cat,1,2,5.5,4
file.png,9,6,"dog",1,2,3,4
"""
OPEN_IMAGES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf
file,xclick,/m/01g317,1,0.1,0.5,0.2,0.75,0
"""
CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels><label>
<name>cat</name></label></labels></task></meta><image id="0" name="file.png" width="9" height="6">
<box label="cat" xtl="1.0" ytl="2.0" xbr="5.5" ybr="4.0" rotation="30.0"></box>
<polygon label="cat" points="1.0,2.0;3.5,2.0;3.0,4.0"></polygon>
<ellipse label="cat" cx="4" cy="3" rx="2" ry="1"></ellipse>
<mask label="cat" rle="1, 2, 1" left="1" top="1" width="2" height="2"></mask>
<points label="cat" points="1,2"></points></image></annotations>
"""


def label_studio() -> list[bytes]:
    size = {"original_width": 9, "original_height": 6, "image_rotation": 0}
    shapes = {
        "rectanglelabels": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 5},
        "ellipselabels": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20},
        "polygonlabels": {"points": [[10, 10], [20.5, 10], [10, 30]]},
    }
    result = [{"type": kind, "value": {**value, kind: ["cat"]}, **size} for kind, value in shapes.items()]
    task = {"id": 1, "data": {"image": "/data/upload/1/file.png"}, "annotations": [{"result": result}]}
    short = [{**one["value"], "original_width": 9, "original_height": 6} for one in result]
    minimal = {"image": "/data/upload/1/file.png", "id": 1, "label": short, "annotator": 1, "annotation_id": 1}
    return [json.dumps([task]).encode(), json.dumps([minimal]).encode()]


def labelme() -> list[bytes]:
    kinds = {"rectangle": [[1, 2], [5.5, 4]], "polygon": [[1, 1], [3, 1], [3, 4]], "circle": [[4, 3], [5, 3]]}
    shapes = [{"label": "cat", "points": points, "shape_type": kind} for kind, points in kinds.items()]
    content = {"shapes": shapes, "imagePath": "file.png", "imageData": None, "imageHeight": 6, "imageWidth": 9}
    return [json.dumps(content).encode()]


def via() -> list[bytes]:
    shapes: list[dict[str, Any]] = [
        {"name": "rect", "x": 1, "y": 2, "width": 4.5, "height": 2},
        {"name": "ellipse", "cx": 4, "cy": 3, "rx": 2, "ry": 1, "theta": 0.5},
        {"name": "polygon", "all_points_x": [1, 3, 3], "all_points_y": [1, 1, 4]},
    ]
    regions = [{"shape_attributes": one, "region_attributes": {"kind": "cat"}} for one in shapes]
    images = {"file.png12": {"filename": "file.png", "size": 12, "regions": regions, "file_attributes": {}}}
    project = {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {"region": {}}}
    return [json.dumps(one).encode() for one in (images, project)]


def hugging_face() -> list[bytes]:
    forms = [{"bbox": [[1, 2, 4.5, 2]], "categories": [0]}, [{"bbox": [1, 2, 4.5, 2], "category": "cat"}], None]
    rows = [json.dumps({"file_name": "file.png", "width": 9, "height": 6, "objects": one}) for one in forms]
    return ["\n".join(rows).encode(), f"{rows[1]}\n\n".encode()]


def megadetector() -> list[bytes]:
    own = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.5, 0.25]}
    microsoft = {"category": "1", "confidence": 0.9, "bbox": [1, 2, 5, 4]}
    failed = {"file": "b.jpg", "failure": "cut", "detections": None}
    files = [
        {"detection_categories": {"1": "animal"}, "images": [{"file": "a.jpg", "detections": [own]}, failed]},
        [{"file": "a.jpg", "detections": [microsoft]}],
        {"annotations": [{"img_id": "a.jpg", "bbox": [[1, 2, 5, 4]], "category": [0], "confidence": [0.9]}]},
    ]
    return [json.dumps(one).encode() for one in files]


def read_megadetector_file(path: Path) -> object:
    from detpipe.datasets.megadetector import read_megadetector

    return read_megadetector(path)


LABELS = [b"file,species\na.jpg,cat\nb.jpg,\n", b"RelativePath;File;Species\nsite 1;a.jpg;cat\n", b"a.jpg\tcat\n"]


def read_labels(path: Path) -> object:
    from detpipe.datasets.image_label_table import read_image_labels

    return read_image_labels(path)


TREES = [b"class,genus,family\ncat,felis,felidae\ndog,canis,canidae\n", b"cat;animal\ndog;animal\n"]


def read_tree(path: Path) -> object:
    from detpipe.taxonomy.class_tree import read_class_tree

    return read_class_tree(path, ("cat", "dog"))


def tars() -> list[bytes]:
    image, boxes = encoded("png"), {"annotations": [{"bbox": [1, 1, 3, 4], "category": "cat"}]}
    members = {"a.png": image, "a.json": json.dumps(boxes).encode(), "b/c.png": image, "b/c.xml": xmls()[0]}
    long = {f"{'d' * 120}/a.png": image, f"{'d' * 120}/a.txt": b"cat"}
    absolute = {"a.png": image, "/b.png": image}
    return [tar_of(one, form) for one in (members, long, absolute) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def parquet_files() -> list[bytes]:
    import pyarrow
    import pyarrow.parquet

    image, boxes = encoded("png"), [[[1.0, 1.0, 4.0, 6.0]], []]
    objects = [{"bbox": [[1.0, 1.0, 3.0, 4.0]], "category": [0]}, {"bbox": [], "category": []}]
    classes = {"objects": {"feature": {"category": {"feature": {"names": ["cat"]}}}}}
    described = {b"huggingface": json.dumps({"info": {"features": classes}}).encode()}
    files = []
    for columns, metadata in (
        ({"id": ["a", "b"], "bytes": [image, image], "boxes": boxes, "labels": [["cat"], []]}, None),
        ({"image": [{"bytes": image, "path": name} for name in "ab"], "objects": objects}, described),
    ):
        for compression in ("none", "snappy"):
            table, buffer = pyarrow.table(columns).replace_schema_metadata(metadata), io.BytesIO()
            pyarrow.parquet.write_table(table, buffer, row_group_size=1, compression=compression)
            files.append(buffer.getvalue())
    return files


def read_parquet_rows(path: Path) -> object:
    """As the process with limits reads it: it is not called in another process."""
    from detpipe.storage.parquet_file import read_group, read_rows

    groups = read_rows(path)[1]["groups"]
    return [read_group(path, number) for number in range(len(groups) - 1)]


def read_members(word: str) -> Callable[[Path], object]:
    """How a file with images in it is read: as a data set, and as a source of images, each of which is read."""

    def read(path: Path) -> object:
        from detpipe.datasets.image_file import BrokenImageError, read_image
        from detpipe.datasets.image_list import DetectedImages
        from detpipe.datasets.source import Split

        found = []
        for entry in DetectedImages(root=str(path), max_bad=1.0).entries(Split.test):
            with contextlib.suppress(BrokenImageError, FileNotFoundError):
                found.append(None if entry.image is None else read_image(entry.image))
        return found, read_data_set(word)(path)

    return read


READERS: dict[str, FileReader] = {
    "image": FileReader(".png", images, read_image_file),
    "pickle": FileReader(".pkl", pickles, read_proposals, contained=True),
    "mat": FileReader(".mat", mats, read_proposals, contained=True),
    "proposals_json": FileReader(".json", coco_results, read_proposals, contained=True),
    "results_json": FileReader(".json", coco_results, read_results),
    "coco": FileReader(".json", coco, read_coco),
    "voc": FileReader(".xml", xmls, read_xml),
    "yolo_yaml": FileReader(".yaml", lambda: [YOLO_YAML.encode()], read_data_set("yolo"), has_picture=True),
    "yolo_text": FileReader(
        ".txt", lambda: [YOLO_TEXT.encode()], read_data_set("yolo", is_folder=True), has_picture=True
    ),
    "csv": FileReader(
        ".csv", lambda: [CSV.encode(), b"file.png;1;2;5,5;4;cat\n"], read_data_set("csv"), has_picture=True
    ),
    "openimages": FileReader(".csv", lambda: [OPEN_IMAGES.encode()], read_data_set("openimages"), has_picture=True),
    "labelstudio": FileReader(".json", label_studio, read_data_set("labelstudio"), has_picture=True),
    "cvat": FileReader(".xml", lambda: [CVAT.encode()], read_data_set("cvat"), has_picture=True),
    "labelme": FileReader(".json", labelme, read_data_set("labelme", is_folder=True), has_picture=True),
    "hugging_face": FileReader(".jsonl", hugging_face, read_data_set("imagefolder"), has_picture=True),
    "via": FileReader(".json", via, read_data_set("via"), has_picture=True),
    "megadetector": FileReader(".json", megadetector, read_megadetector_file),
    "image_labels": FileReader(".csv", lambda: LABELS, read_labels),
    "taxonomy": FileReader(".csv", lambda: TREES, read_tree),
    "image_list": FileReader(".txt", lambda: [b"a.jpg 0\nb c.jpg 1\n\nd.jpg\n2\n"], read_list),
    "idx": FileReader(".idx", idx, read_idx_file),
    "npy": FileReader(".npy", arrays, read_array, contained=True),
    "pth": FileReader(".pth", torch_files, read_torch, contained=True, uses_torch=True),
    "safetensors": FileReader(".safetensors", safetensors, read_safetensors, uses_torch=True),
    "binaryproto": FileReader(".binaryproto", blobs, read_mean_file),
    "prototxt": FileReader(".prototxt", lambda: [NET.encode()], read_net, uses_torch=True),
    "caffemodel": FileReader(".caffemodel", caffemodels, read_model, uses_torch=True),
    "solver": FileReader(".prototxt", lambda: [SOLVER.encode()], read_solver, uses_torch=True),
    "lmdb": FileReader(".mdb", databases, read_database, file_name="data"),
    "tar": FileReader(".tar", tars, read_members("tar"), file_name="train"),
    "shard_index": FileReader(".json", shard_indices, read_shard_index, file_name="shards"),
    "manifest": FileReader(".json", manifests, read_manifest_file, file_name="manifest"),
}
"""All readers by name. A reader that is new gets a row."""
if importlib.util.find_spec("pyarrow") is not None:
    READERS |= {
        "parquet": FileReader(".parquet", parquet_files, read_parquet_rows, contained=True),
        "parquet_images": FileReader(".parquet", parquet_files, read_members("parquet"), file_name="train"),
    }
