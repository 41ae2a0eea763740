"""Reads the MATLAB proposal files of R-CNN and Fast R-CNN, and writes R-CNN's.

Both store the pixels of two opposite corners, both inside the box, and no scores, but differ:
- R-CNN (and Fast R-CNN's training data): counted from 1, [y1 x1 y2 x2];
- Fast R-CNN's demo: counted from 0, [x1 y1 x2 y2].
The file doesn't say which. The sizes of the images do: see `find_form`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, StoredBoxes, as_stored
from detpipe.storage.input_file import open_input
from detpipe.structures import Float32Array, ImageRecord, Proposals


class MatForm(Enum):
    """The box format of a MATLAB file."""

    auto = "auto"
    """Detected from the boxes and the image sizes."""
    rcnn = "rcnn"
    """[y1 x1 y2 x2], counted from 1."""
    fast_rcnn = "fast_rcnn"
    """[x1 y1 x2 y2], counted from 0."""


def read_mat(path: Path) -> BoxTable:
    """The boxes of a .mat file: a cell `boxes` and a cell `images` of names, or one array `boxes` for one image.

    The name of a single image is the file's stem without "_boxes". scipy, which reads the file, can be made to crash or
    to take any memory: read files of other people by `ImportedProposals`, in a process of their own.

    Raises ProposalFileError for other content, and what scipy raises for other files.
    """
    content = _load(path)
    boxes = content["boxes"]
    if boxes.dtype != object:
        name = path.stem.removesuffix("_boxes")
        return BoxTable(path, {name: as_stored(path, name, boxes, is_mat=True)})
    if "images" not in content:
        raise ProposalFileError(f"{path}: expected a cell `images` as well as the cell `boxes`, got {_names(content)}")
    names = [_text(path, entry) for entry in content["images"].ravel()]
    if len(names) != boxes.size:
        raise ProposalFileError(f"{path}: expected boxes for each image, got {boxes.size} for {len(names)} images")
    table: dict[str, StoredBoxes] = {}
    for name, one in zip(names, boxes.ravel(), strict=True):
        if name in table:
            raise ProposalFileError(f"{path}: expected each image once, got {name} twice")
        table[name] = as_stored(path, name, one, is_mat=True)
    return BoxTable(path, table)


def find_form(images: Iterable[tuple[str, Float32Array, tuple[int, int]]], source: str) -> MatForm:
    """The form in which all boxes lie inside their images.

    images: (name, raw boxes (N, 4), image_size) of all images. source: the file, for errors. Raises ProposalFileError
    if no form fits, or if both do (few boxes, or square images).
    """
    possible = {MatForm.rcnn, MatForm.fast_rcnn}
    for name, raw, image_size in images:
        fitting = {form for form in possible if fits(raw, form, image_size)}
        if not fitting:
            raise ProposalFileError(
                f"{source}: expected R-CNN's [y1 x1 y2 x2] from 1 or Fast R-CNN's [x1 y1 x2 y2] from 0; image "
                f"{name} of height and width {image_size} fits {_neither(raw, possible, image_size)}. Are these the "
                "images of this file, in their full size?"
            )
        possible = fitting
    if len(possible) > 1:
        raise ProposalFileError(
            f"{source}: its boxes fit R-CNN's [y1 x1 y2 x2] from 1 and Fast R-CNN's [x1 y1 x2 y2] from 0; "
            "choose with proposals.form=rcnn or proposals.form=fast_rcnn"
        )
    return possible.pop()


def fits(raw: Float32Array, form: MatForm, image_size: tuple[int, int]) -> bool:
    """Whether all raw boxes (N, 4), read in this form, lie inside an image of (height, width)."""
    height, width = image_size
    boxes = to_boxes(raw, form)
    ordered = (boxes[:, 2:] > boxes[:, :2]).all()
    return bool(ordered and (boxes >= 0).all() and (boxes <= (width, height, width, height)).all())


def to_boxes(raw: Float32Array, form: MatForm) -> Float32Array:
    """Raw boxes (N, 4) in a form -> (N, 4) x1 y1 x2 y2, half-open. Raises ValueError for `auto`."""
    if form is MatForm.auto:
        raise ValueError("to_boxes: expected the form rcnn or fast_rcnn, got auto; see find_form")
    # The corners are the first and the last pixel of the box. The far edge of pixel i is i + 1 counted from 0, and i
    # counted from 1.
    if form is MatForm.rcnn:
        return raw[:, [1, 0, 3, 2]] - np.array([1, 1, 0, 0], dtype=np.float32)
    return raw + np.array([0, 0, 1, 1], dtype=np.float32)


def write_mat(path: Path, images: Iterable[tuple[ImageRecord, Proposals]]) -> None:
    """Write R-CNN's file: a cell `boxes` (1 x n) of [y1 x1 y2 x2] from 1, a cell `images` (n x 1) of the images' ids.

    Boxes are rounded to whole pixels, at least one wide and high (`to_pixels`). They keep their order but lose their
    scores. The numbers are doubles, as in R-CNN's files, so that MATLAB computes the same with them. Equal proposals
    give equal bytes.
    """
    listed = list(images)
    boxes, names = np.empty((1, len(listed)), dtype=object), np.empty((len(listed), 1), dtype=object)
    for number, (record, proposals) in enumerate(listed):
        boxes[0, number] = to_pixels(proposals.boxes, record.image_size).astype(np.float64)
        names[number, 0] = str(record.image_id)
    scipy.io.savemat(str(path), {"boxes": boxes, "images": names}, do_compression=True, appendmat=False)
    # scipy writes the current time into the 116 bytes of free text at the start.
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, proposals in the form of R-CNN".ljust(116))


def to_pixels(boxes: Float32Array, image_size: tuple[int, int]) -> Float32Array:
    """The inverse of `to_boxes` for R-CNN's form: (N, 4), (height, width) -> (N, 4) whole [y1 x1 y2 x2] from 1.

    Edges are rounded to the nearest pixel border (halves up). A box that would become empty gets the pixel of its
    centre. So an edge moves by at most half a pixel, or by at most one in boxes smaller than a pixel.
    """
    height, width = image_size
    near, far = np.floor(boxes[:, :2] + np.float32(0.5)), np.floor(boxes[:, 2:] + np.float32(0.5))
    last = np.array([width, height], dtype=np.float32) - 1
    middle = np.minimum(np.floor((boxes[:, :2] + boxes[:, 2:]) / 2), last)
    empty = far <= near
    whole = np.concatenate([np.where(empty, middle, near), np.where(empty, middle + 1, far)], axis=1)
    return whole[:, [1, 0, 3, 2]] + np.array([1, 1, 0, 0], dtype=np.float32)


def _neither(raw: Float32Array, possible: set[MatForm], image_size: tuple[int, int]) -> str:
    """Why no form is possible any more, for an error."""
    other = {MatForm.rcnn, MatForm.fast_rcnn} - possible
    if any(fits(raw, form, image_size) for form in other):
        return f"only {other.pop().value}, but earlier images fit only {next(iter(possible)).value}"
    low, high = raw.min(axis=0).tolist(), raw.max(axis=0).tolist()
    return f"neither: its columns go from {low} to {high}"


def _load(path: Path) -> dict[str, Any]:
    try:
        with open_input(path, "a .mat file") as file:
            content = scipy.io.loadmat(file, variable_names=["boxes", "images"])  # type: ignore[arg-type]
    except NotImplementedError as error:
        raise ProposalFileError(
            f"{path}: expected a .mat file of MATLAB 5 to 7, got 7.3 (HDF5); in MATLAB: save(..., '-v7')"
        ) from error
    if not isinstance(content.get("boxes"), np.ndarray):
        raise ProposalFileError(f"{path}: expected a variable `boxes`, got {_names(content)}")
    return content


def _names(content: dict[str, Any]) -> str:
    return ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"


def _text(path: Path, entry: Any) -> str:
    """A name in a cell: an array with one string or number."""
    array = np.asarray(entry)
    if array.size != 1 or array.dtype.kind not in "Uiu":
        raise ProposalFileError(f"{path}: expected the names of images in `images`, got {entry!r:.80}")
    return str(array.ravel()[0])
