"""Proposals from files of other programs, matched with the images of the data set."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detpipe.boxes import clip
from detpipe.datasets.coco_ids import number_of
from detpipe.datasets.image_file import AnyImage
from detpipe.proposals.files.box_table import BoxTable, ProposalFileError, StoredBoxes, path_ends
from detpipe.proposals.files.coco_json import read_json_file
from detpipe.proposals.files.detectron_pkl import read_pickle
from detpipe.proposals.files.rcnn_mat import MatForm, find_form, fits, read_mat, to_boxes
from detpipe.proposals.files.safe_pickle import UnsafePickleError
from detpipe.proposals.proposer import ImportedBoxesError, Proposer, ranked, scores_of_order
from detpipe.storage.reader_process import Arrays, read_in_process
from detpipe.structures import Dataset, Float32Array, GroundTruth, Image, ImageId, ImageRecord, Proposals

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ImportedProposals(Proposer):
    """Boxes from files: .mat of R-CNN, Fast R-CNN, .pkl of Detectron2, MMDetection, .json of COCO, MegaDetector.

    Images are matched by id, the end of their path ("folder/file.jpg"), file name or stem. Boxes without scores keep
    their order. Boxes are clipped to the image. Call `check` with the data sets first: it finds the form of .mat files,
    matches MMDetection's nameless lists and rejects names that match two images. This needs all images.
    """

    path: str = ""
    """A file; a pattern (`voc_2007_*.mat`) for several files with different images; or a folder with one .mat file per
    image (`000004_boxes.mat` or `000004.mat`), which are read one at a time."""
    form: MatForm = MatForm.auto
    """Box format of .mat files: rcnn is [y1 x1 y2 x2] counted from 1, fast_rcnn is [x1 y1 x2 y2] counted from 0; auto
    detects it from the image sizes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.form = MatForm(self.form)
        # Set by `check` and pickled to the workers; each worker reads the files itself.
        self._found_form: MatForm | None = None if self.form is MatForm.auto else self.form
        # By file and id: the ids of two COCO files may be the same for different images.
        self._numbers: dict[tuple[Path, ImageId], tuple[Path, str]] = {}

    def check(self, datasets: Sequence[Dataset] = ()) -> None:
        """Read the files, match them with the images, and detect and log the form of .mat files.

        Raises FileNotFoundError, ProposalFileError or UnsafePickleError for the files, and ImportedBoxesError if a
        data set has no image with boxes, or if images of two data sets would get the same boxes. If some images have
        no boxes, it logs a warning; `propose` then raises for each of them.
        """
        sources = _sources(self.path)
        if not isinstance(sources, Path):
            self._numbers = {}
            for table in _tables(sources):
                if table.nameless and datasets:
                    self._number(table, datasets)
        self._check_unambiguous(datasets)
        for dataset in datasets:
            self._check_images(dataset)
        if datasets and self.form is MatForm.auto:
            self._find_form([record for dataset in datasets for record in dataset.records])

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, sorted; for a folder, its .mat files, one per image. Raises FileNotFoundError."""
        sources = _sources(self.path)
        return tuple(sorted(sources.glob("*.mat"))) if isinstance(sources, Path) else sources

    @property
    def from_pixels(self) -> bool:
        """False: only the images in the files have boxes."""
        return False

    def __call__(self, image: AnyImage) -> Proposals:  # noqa: ARG002
        """Raises ValueError: pixels don't identify the image."""
        raise ValueError("import: expected an image of a data set, with its id and file, got pixels alone")

    def propose(self, image: Image, record: ImageRecord, ground_truth: GroundTruth | None) -> Proposals:  # noqa: ARG002
        """The imported boxes of an image. Raises ImportedBoxesError if they are missing or don't fit the image."""
        image_size = (image.shape[0], image.shape[1])
        stored = self._find(record)
        if stored is None:
            raise ImportedBoxesError(
                f"{self.path}: expected boxes of image {record.image_id} ({record.path}), got none"
            )
        boxes = self._to_boxes(stored, record, image_size)
        if (boxes[:, 2:] < boxes[:, :2]).any():
            wrong = boxes[(boxes[:, 2:] < boxes[:, :2]).any(axis=1)][0]
            raise ImportedBoxesError(
                f"{self.path}: image {record.image_id}: expected x1 <= x2 and y1 <= y2, got {wrong.tolist()}"
            )
        _check_inside(boxes, image_size, f"{self.path}: image {record.image_id}")
        scores = scores_of_order(len(boxes)) if stored.scores is None else stored.scores
        return ranked(boxes, scores, image_size, self.max_proposals)

    def _to_boxes(self, stored: StoredBoxes, record: ImageRecord, image_size: tuple[int, int]) -> Float32Array:
        if stored.are_shares:
            height, width = image_size
            return stored.boxes * np.array([width, height, width, height], np.float32)
        if not stored.is_mat or not len(stored.boxes):
            return stored.boxes
        form = self._found_form or find_form([(str(record.image_id), stored.boxes, image_size)], self.path)
        if not fits(stored.boxes, form, image_size):
            raise ImportedBoxesError(
                f"{self.path}: image {record.image_id}: expected boxes in an image of height and width {image_size} in "
                f"the form {form.value}, got columns from {stored.boxes.min(0).tolist()} "
                f"to {stored.boxes.max(0).tolist()}"
            )
        return to_boxes(stored.boxes, form)

    def _find(self, record: ImageRecord) -> StoredBoxes | None:
        """The boxes of an image; None if no file lists it. A listed image may have zero boxes."""
        sources = _sources(self.path)
        if isinstance(sources, Path):
            return _of_folder(sources, record)
        found = [table.boxes[key] for table in _tables(sources) if (key := self._key_in(table, record)) is not None]
        if len(found) > 1:
            raise ProposalFileError(f"{self.path}: image {record.image_id} has boxes in {len(found)} files")
        return found[0] if found else None

    def _key_in(self, table: BoxTable, record: ImageRecord) -> str | None:
        """The key of an image's boxes in a table; None if it has none."""
        if table.nameless:
            source, number = self._numbers.get((record.path, record.image_id), (None, None))
            return number if source == table.source else None
        image_id, names = str(record.image_id), [*path_ends(record.path), record.path.stem]
        if table.by_id and image_id in table.boxes:
            return image_id
        # The longest end of the path first: the folders of several cameras have files of the same name.
        for name in names:
            key = name if name in table.boxes else table.by_short_name.get(name)
            if key is not None:
                return key
        if image_id in table.boxes:
            return image_id
        image_number = number_of(record.image_id) if table.by_id else None
        return None if image_number is None else table.by_number.get(image_number)

    def _locations(self, record: ImageRecord) -> Iterator[tuple[Path, str]]:
        """The file and the key of an image's boxes in each file that has some."""
        sources = _sources(self.path)
        if isinstance(sources, Path):
            file = _file_of(sources, record)
            if file is not None:
                yield file, file.name
            return
        for table in _tables(sources):
            key = self._key_in(table, record)
            if key is not None:
                yield table.source, key

    def _check_unambiguous(self, datasets: Sequence[Dataset]) -> None:
        """Raise ImportedBoxesError if different images match the same boxes.

        One file in two data sets is the same image and may match the same boxes.
        """
        seen: dict[tuple[Path, str], ImageRecord] = {}
        for dataset in datasets:
            own = [(location, record) for record in dataset.records for location in self._locations(record)]
            for location, record in own:
                other = seen.setdefault(location, record)
                if other.path != record.path and other.path.resolve() != record.path.resolve():
                    source, key = location
                    raise ImportedBoxesError(
                        f"{source}: expected boxes that belong to one image, got {key!r}, which means two: "
                        f"{other.path} (id {other.image_id}) and {record.path} (id {record.image_id}); give "
                        "the images of all splits different ids, or save the boxes with folder/file.jpg as their names "
                        "(MMDetection's .pkl, MegaDetector's .json)"
                    )

    def _number(self, table: BoxTable, datasets: Sequence[Dataset]) -> None:
        """Match a list without names with the only data set of the same length, in order."""
        fitting = [dataset for dataset in datasets if len(dataset) == len(table.boxes)]
        if len(fitting) != 1:
            lengths = ", ".join(f"{dataset.name} has {len(dataset)}" for dataset in datasets)
            raise ProposalFileError(
                f"{table.source}: a list of {len(table.boxes)} images without names needs exactly one data set with as "
                f"many images, but {lengths}; save it as a dict from file names"
            )
        for number, record in enumerate(fitting[0].records):
            self._numbers[record.path, record.image_id] = (table.source, str(number))

    def _check_images(self, dataset: Dataset) -> None:
        missing = [record for record in dataset.records if self._find(record) is None]
        if missing and len(missing) == len(dataset):
            raise ImportedBoxesError(
                f"{self.path}: expected boxes of the images of {dataset.name}, got none of them (the first is "
                f"{missing[0].image_id}, {missing[0].path.name}); is this file for another data set?"
            )
        if missing:
            names = ", ".join(str(record.image_id) for record in missing[:3])
            logger.warning("%s: no boxes of %d images of %s: %s …", self.path, len(missing), dataset.name, names)

    def _find_form(self, records: Sequence[ImageRecord]) -> None:
        self._found_form = None

        def raw() -> Iterator[tuple[str, Float32Array, tuple[int, int]]]:
            for record in records:
                stored = self._find(record)
                if stored is not None and stored.is_mat and len(stored.boxes):
                    yield str(record.image_id), stored.boxes, record.image_size

        images = raw()
        first = next(images, None)
        if first is None:
            return
        self._found_form = find_form((one for some in ([first], images) for one in some), self.path)
        columns = "[y1 x1 y2 x2] from 1" if self._found_form is MatForm.rcnn else "[x1 y1 x2 y2] from 0"
        logger.info(
            "%s: box format %s, %s, detected from the sizes of the images", self.path, self._found_form.value, columns
        )


def _sources(path: str) -> Path | tuple[Path, ...]:
    """A folder, or the files that match the path. Raises FileNotFoundError."""
    if not path:
        raise FileNotFoundError("import: expected a file or folder of proposals, got none; give proposals.path=FILE")
    if Path(path).is_dir():
        return Path(path)
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).parent.glob(Path(path).name))
    if not files:
        raise FileNotFoundError(f"{path}: expected a file or folder of proposals, found none; correct proposals.path")
    return tuple(files)


def _tables(files: tuple[Path, ...]) -> list[BoxTable]:
    # The modification time is a part of the key, so that a changed file is read again.
    return _read_tables(tuple((file, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=1)
def _read_tables(files: tuple[tuple[Path, int], ...]) -> list[BoxTable]:
    """The content of the files, read once per process."""
    return [_read(file) for file, _ in files]


def _read(file: Path) -> BoxTable:
    """The boxes of a file, which is read in a process of its own."""
    if file.suffix.lower() not in _READERS:
        raise ProposalFileError(f"{file}: expected a file of proposals ({', '.join(_READERS)}), got {file.suffix!r}")
    form, arrays = read_in_process(
        _read_arrays, file, "a file of proposals", errors=[ProposalFileError, UnsafePickleError], expansion=32
    )
    return BoxTable.from_arrays(file, form, arrays)


def _read_arrays(file: Path) -> tuple[Any, Arrays]:
    return _READERS[file.suffix.lower()](file).to_arrays()


_READERS: Mapping[str, Callable[[Path], BoxTable]] = {
    ".mat": read_mat,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
    ".json": read_json_file,
}


def _file_of(folder: Path, record: ImageRecord) -> Path | None:
    """The .mat file of an image in a folder; None if it has none."""
    files = (
        folder / f"{name}{suffix}"
        for name in (record.path.stem, str(record.image_id))
        for suffix in ("_boxes.mat", ".mat")
    )
    return next((file for file in files if file.is_file()), None)


def _of_folder(folder: Path, record: ImageRecord) -> StoredBoxes | None:
    """The boxes of an image from its .mat file; None if it has none."""
    file = _file_of(folder, record)
    if file is None:
        return None
    table = _read(file)
    if len(table.boxes) != 1:
        raise ProposalFileError(f"{file}: expected the boxes of one image, got {len(table.boxes)}")
    return next(iter(table.boxes.values()))


def _check_inside(boxes: Float32Array, image_size: tuple[int, int], where: str) -> None:
    """Raise ImportedBoxesError if a non-empty box lies outside the image."""
    inside = clip(boxes, image_size)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    outside = has_area & (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    if outside.any():
        raise ImportedBoxesError(
            f"{where} of height and width {image_size}: box {boxes[np.argmax(outside)].tolist()} lies outside; "
            "were the boxes made for another size of this image?"
        )
