"""Reader of PASCAL VOC folders: Annotations/*.xml, JPEGImages, ImageSets/Main."""

import functools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from detpipe.datasets.entry import Entry
from detpipe.datasets.findings import Finding, finding
from detpipe.datasets.folder_scan import without_suffix
from detpipe.datasets.image_file import BrokenImageError, read_header
from detpipe.datasets.image_finder import AmbiguousImageError, ImageNotFoundError, hash_name, normalised
from detpipe.datasets.source import Recognised, Split, StoredSplit, passed_over_findings
from detpipe.datasets.splits import DividedSource
from detpipe.datasets.text_file import known_encoding
from detpipe.datasets.voc_folder import VocFolder, describe_voc, find_folders, labels_of, voc_root
from detpipe.datasets.voc_lists import DEFAULT_TEST, DEFAULT_TRAIN, Division, UnitedLists, divide
from detpipe.datasets.voc_xml import BrokenAnnotationError, VocAnnotation, read_voc_annotation

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class VocSource(DividedSource):
    """A folder in VOC's layout or a similar one (see `voc_folder`), or several such folders as one data set.

    An image's id is the name of its XML file without suffix. If two files have this name, the id begins with their
    subfolder, split folder or root.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("root", *DividedSource.PATHS)

    # OmegaConf has no type for "a text or a list of texts".
    root: Any
    """Folder that contains Annotations and JPEGImages, for example VOCdevkit/VOC2007; a list of folders is one data
    set: [VOC2007,VOC2012]."""
    train: str = DEFAULT_TRAIN
    """Name of the list in ImageSets/Main for training."""
    val: str | None = None
    """Name of the list in ImageSets/Main for validation; null: no validation split."""
    test: str = DEFAULT_TEST
    """Name of the list in ImageSets/Main for testing."""
    encoding: str | None = None
    """Encoding of XML files and lists that are not in UTF-8 and don't say theirs: gb18030, cp932, cp949, ..."""

    def __post_init__(self) -> None:
        super().__post_init__()
        roots = [self.root] if isinstance(self.root, str | Path) else self.root
        if (
            not isinstance(roots, Sequence)
            or not roots
            or not all(isinstance(one, str | Path) and one for one in roots)
        ):
            raise ValueError(f"root: expected a folder or a list of folders, got {self.root!r}")
        self.root = str(self.root) if isinstance(self.root, str | Path) else [str(one) for one in roots]
        if self.encoding is not None and known_encoding(self.encoding) is None:
            raise ValueError(
                f"dataset.encoding: expected the name of an encoding as gb18030 or cp932, got {self.encoding!r}"
            )

    @functools.cached_property
    def roots(self) -> list[Path]:
        """The folders of the data set, without those that an unpacked archive has around them."""
        return [voc_root(Path(one)) for one in ([self.root] if isinstance(self.root, str) else self.root)]

    @classmethod
    def recognise(cls, root: Path) -> Recognised | None:
        why = describe_voc(root)
        return None if why is None else Recognised({"root": str(root)}, why)

    def has(self, split: Split) -> bool:
        return split in self._division.ids

    def title(self, split: Split) -> str:
        return f"{'+'.join(root.name or str(root) for root in self.roots)} {split.value}"

    def entries(self, split: Split) -> list[Entry]:
        return [self._entry(one) for one in self._division.ids.get(split, ())]

    def annotated(self, split: Split) -> bool:
        """False if no image of the list has an XML file, as for VOC's tests. Such a split is only for detection."""
        ids = self._division.ids.get(split, ())
        return any(one in self._xml_files for one in ids) or not any(self._image_of(one)[0] for one in ids)

    def known_classes(self) -> list[str]:
        used = dict.fromkeys(one for ids in self._division.ids.values() for one in ids)
        parsed = (self._annotation(one) for one in used if one in self._xml_files)
        return sorted({one.name for xml in parsed if isinstance(xml, VocAnnotation) for one in xml.objects})

    def named_folders(self) -> list[Path]:
        return [one for folder in self._folders for one in folder.named]

    def automatic_split(self) -> StoredSplit | None:
        division = self._division
        if not division.automatic:
            return None
        names = {split: sorted({self._hash_name(one) for one in ids}) for split, ids in division.ids.items()}
        return StoredSplit(division.rule, tuple(names[Split.train]), tuple(names.get(Split.test, ())))

    def strays(self) -> list[Finding]:
        """Findings for images without XML that no list names, for repeated list entries, and for other pictures."""
        used = {one for ids in self._division.ids.values() for one in ids}
        pictured = {path for one in used if (path := self._image_of(one)[0]) is not None}
        found = []
        for folder in self._folders:
            found += [
                finding("missing_annotation", path, "image without XML; left out of training and testing")
                for name, path in sorted(folder.image_names.items())
                if self._id(folder, name) not in used and path not in pictured
            ]
            for name in filter(None, (self.train, self.val, self.test)):
                lists = folder.lists(self._repeated)
                lines = lists.lines(name) or []
                n_repeated = len(lines) - len(set(lines))
                if n_repeated:
                    detail = f"{n_repeated} repeated names in the list; each name is used once"
                    file = lists.file(name) or lists.folder / f"{name}.txt"
                    found.append(finding("duplicate_list_entry", file, detail))
            for scan in folder.scans:
                found += passed_over_findings(scan)
        return found

    @property
    def folders(self) -> list[VocFolder]:
        """The folders of annotations, in the order of the roots: one or more of each."""
        return self._folders

    @functools.cached_property
    def _folders(self) -> list[VocFolder]:
        roots = self.roots
        return [
            folder
            for root, label in zip(roots, labels_of(roots), strict=True)
            for folder in find_folders(root, label, outside=self.outside, encoding=self.encoding)
        ]

    @functools.cached_property
    def _repeated(self) -> set[str]:
        """The names that two folders have: they are not ids."""
        counts = Counter(name for folder in self._folders for name in folder.paths)
        return {name for name, count in counts.items() if count > 1}

    def _id(self, folder: VocFolder, name: str) -> str:
        return folder.id_of(name, self._repeated)

    @functools.cached_property
    def _places(self) -> dict[str, tuple[VocFolder, str]]:
        """The folder of each id, and the name in it."""
        return {self._id(folder, name): (folder, name) for folder in self._folders for name in folder.paths}

    @functools.cached_property
    def _xml_files(self) -> dict[str, Path]:
        """The XML file of each id that has one, in the order of the ids."""
        files = {self._id(folder, name): path for folder in self._folders for name, path in folder.xml_files.items()}
        return dict(sorted(files.items()))

    @functools.cached_property
    def _division(self) -> Division:
        division = self._divided()
        for folder in self._folders:
            logger.info("%s: %s", folder.root, folder.description)
            for scan in folder.scans:
                if passed_over := scan.passed_over_text():
                    logger.warning("%s: %s", scan.folder, passed_over)
        bare = [split.value for split, ids in division.ids.items() if ids and self._xml_files.keys().isdisjoint(ids)]
        without_xml = "".join(f"; no image of {split} has an XML file, it is a split to detect on" for split in bare)
        logger.info("%s: %s%s", "+".join(map(str, self.roots)), division.rule, without_xml)
        return division

    def _divided(self) -> Division:
        """The ids of each split: by folders that are named after splits, by lists, and by name without either."""
        listed = {folder: folder.lists(self._repeated) for folder in self._folders if folder.split is None}
        names = [self.train, self.test, *([self.val] if self.val else []), "train", "val"]
        with_lists = [folder for folder, lists in listed.items() if any(lists.has(name) for name in names)]
        divisions = []
        if any(folder.split for folder in self._folders):
            divisions.append(self._divided_by_folder())
        without = [folder for folder in listed if folder not in with_lists]
        for group in filter(None, (with_lists, without) if with_lists else (without,)):
            divisions.append(
                divide(
                    UnitedLists([listed[folder] for folder in group]),
                    [one for one in self._xml_files if self._places[one][0] in group],
                    # Folders without lists beside others are divided by name, whatever the lists of these are called.
                    train=self.train if group is with_lists or not with_lists else DEFAULT_TRAIN,
                    val=self.val if group is with_lists or not with_lists else None,
                    test=self.test if group is with_lists or not with_lists else DEFAULT_TEST,
                    by_name=self._divide_ids,
                    by_name_rule=self.rule,
                )
            )
        ids: dict[Split, list[str]] = {}
        for division in divisions:
            for split, some in division.ids.items():
                ids.setdefault(split, []).extend(some)
        automatic = any(division.automatic for division in divisions)
        if automatic and not ids[Split.test] and not self.test_share:
            del ids[Split.test]
        return Division(ids, "; ".join(division.rule for division in divisions), automatic)

    def _divided_by_folder(self) -> Division:
        ids: dict[Split, list[str]] = {}
        for folder in self._folders:
            if folder.split is not None:
                names = folder.xml_files or folder.paths
                ids.setdefault(folder.split, []).extend(self._id(folder, name) for name in sorted(names))
        rule = [f"{split.value} is the folder of this name" for split in Split if split in ids]
        automatic = False
        if Split.test not in ids and Split.val in ids:
            ids[Split.test] = ids.pop(Split.val)
            rule[-1] = "test is the folder of validation images, because there is no folder of test images"
        if Split.test not in ids:
            ids[Split.train], ids[Split.test] = map(list, self._divide_ids(ids[Split.train]))
            rule, automatic = [f"of the folder of training images {self.rule}"], True
        ids.setdefault(Split.train, [])
        return Division(ids, "; ".join(rule), automatic)

    def _divide_ids(self, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        train, test = self.divide_by_name([self._hash_name(one) for one in ids])
        return [ids[number] for number in train], [ids[number] for number in test]

    def _hash_name(self, image_id: str) -> str:
        """The name of an image for the automatic split: its path in its folder, which other folders don't change."""
        folder, name = self._places.get(image_id, (None, image_id))
        return hash_name(name if folder is None else folder.paths[name])

    @functools.cached_property
    def _parsed(self) -> dict[str, VocAnnotation | Finding]:
        return {}

    def _annotation(self, image_id: str) -> VocAnnotation | Finding:
        """The annotation of an id that has one, read once; a Finding if it can't be read."""
        if image_id not in self._parsed:
            path = self._xml_files[image_id]
            try:
                self._parsed[image_id] = read_voc_annotation(path, self.encoding)
            except (BrokenAnnotationError, OSError) as error:
                self._parsed[image_id] = finding("broken_annotation", path, str(error).removeprefix(f"{path}: "))
        return self._parsed[image_id]

    @functools.cached_property
    def _found_images(self) -> dict[str, tuple[Path | None, Finding | None]]:
        return {}

    def _image_of(self, image_id: str) -> tuple[Path | None, Finding | None]:
        """The image of an id, or the reason why it has no image; searched once. Both are None for an unknown id."""
        if image_id not in self._found_images:
            self._found_images[image_id] = self._find_image(image_id)
        return self._found_images[image_id]

    def _find_image(self, image_id: str) -> tuple[Path | None, Finding | None]:
        if image_id not in self._places:
            return None, None
        folder, name = self._places[image_id]
        if image_id not in self._xml_files:
            return folder.image_names[name], None
        annotation = self._annotation(image_id)
        filename = annotation.filename if isinstance(annotation, VocAnnotation) else ""
        stated = annotation.stated_size if isinstance(annotation, VocAnnotation) else None
        try:
            return _choose_image(folder, name, filename, stated), None
        except ImageNotFoundError as error:
            return None, finding(error.KIND, self._xml_files[image_id], str(error))

    def _entry(self, image_id: str) -> Entry:
        image, fault = self._image_of(image_id)
        if image_id not in self._xml_files:
            origin = image or self._folders[0].lists(set()).folder / image_id
            if image is None:
                what = "neither image nor XML for this name in a list"
                return Entry(image_id, None, origin, fault=finding("list_entry_without_files", origin, what))
            if any(image_id in ids and not self.annotated(split) for split, ids in self._division.ids.items()):
                return Entry(image_id, image, origin)
            return Entry(image_id, image, origin, fault=finding("missing_annotation", origin, "image without XML"))
        annotation, origin = self._annotation(image_id), self._xml_files[image_id]
        if isinstance(annotation, Finding):
            return Entry(image_id, image, origin, fault=annotation)
        notes = list(annotation.notes)
        if image is not None and annotation.filename:
            named = normalised(hash_name(annotation.filename).rpartition("/")[2])
            if named not in (normalised(origin.stem), normalised(without_suffix(origin.stem))):
                detail = f"its <filename> is {annotation.filename!r}, another name; the image used is {image.name}"
                notes.append(finding("filename_mismatch", origin, detail))
        return Entry(image_id, image, origin, annotation.objects, annotation.stated_size, fault, tuple(notes))


def _choose_image(folder: VocFolder, name: str, filename: str, stated: tuple[int, int] | None) -> Path:
    """The image with the annotation's own name, else the one in its <filename>. stated: (height, width).

    Renamed or copied files often keep an old <filename>, and tiles keep their source's. So it is used only if no
    image has the annotation's own name, if it is the one of two that has the stated size, or to choose between images
    that differ only in the suffix. Raises the errors of `ImageFinder.find`.
    """
    own = folder.own_images(name)
    if len(own) == 1 and (not filename or normalised(hash_name(filename).rpartition("/")[2]) == normalised(name)):
        return own[0]
    named, reason = None, None
    if filename:
        try:
            named = folder.finder.find(filename)
        except ImageNotFoundError as error:
            reason = error
    if not own:
        missing = folder.finder.not_found(folder.paths[name])
        if named is None:
            raise missing if reason is None else type(reason)(f"{missing}; by <filename>: {reason}")
        if _has_size(named, stated) is False:
            raise ImageNotFoundError(
                f"{missing}; its <filename> {named.name} has another size than the annotation says"
            )
        return named
    if named in own:
        return named
    if len(own) == 1:
        if named is not None and _has_size(own[0], stated) is False and _has_size(named, stated):
            return named
        return own[0]
    sized = [path for path in own if _has_size(path, stated)]
    if len(sized) != 1:
        names = ", ".join(path.name for path in own[:3])
        raise AmbiguousImageError(
            f"{len(own)} images have the name of this annotation: {names}; remove one, or name it in <filename>"
        )
    return sized[0]


def _has_size(image: Path, stated: tuple[int, int] | None) -> bool | None:
    """Whether an image has this (height, width), before or after its rotation by EXIF; None if this is not known."""
    if stated is None or min(stated) <= 0:
        return None
    try:
        size = read_header(image).image_size
    except (BrokenImageError, OSError, ValueError):
        return None
    return stated in (size, size[::-1])
