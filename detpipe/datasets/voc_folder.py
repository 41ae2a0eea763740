"""The layouts of VOC folders: where the annotations, the images and the lists are, and the names of the images.

Read are VOC's own layout (Annotations, JPEGImages, ImageSets/Main), the same with other names or in subfolders,
images and XML files side by side, and a folder for each split (train, valid, test), as Roboflow writes them.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.folder_scan import (
    FolderScan,
    is_hidden,
    is_image,
    real_folders,
    scan,
    suffix_of,
    without_suffix,
)
from detpipe.datasets.image_finder import ImageFinder
from detpipe.datasets.source import Split
from detpipe.datasets.voc_lists import ImageLists
from detpipe.storage.input_file import InputFileError, open_input
from detpipe.storage.stored_file import children, is_existing_folder, walk

_ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "photos")
_LIST_FOLDER = "imagesets"
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), Split.train),
    **dict.fromkeys(("val", "valid", "validation"), Split.val),
    **dict.fromkeys(("test", "testing"), Split.test),
}
"""Names of folders, in lower case, that hold one split."""


@dataclass(frozen=True)
class VocFolder:
    """One folder of annotations with the folder of its images.

    root: the folder that the user named. split: which split the folder is; None if lists or a rule decide.
    annotations: the folder of the XML files; None without XML files. label: distinguishes the folder in ids.
    """

    root: Path
    annotations: Path | None
    images: Path
    split: Split | None
    label: str
    outside: bool
    encoding: str | None

    @functools.cached_property
    def named(self) -> tuple[Path, ...]:
        """The folders that the user named: the root, and the folders of the layout in it, which may be links."""
        return tuple(folder for folder in (self.root, self.annotations, self.images) if folder is not None)

    @functools.cached_property
    def finder(self) -> ImageFinder:
        """Finds the images by their names in XML files."""
        return ImageFinder(self.images, beside=self.annotations, also=self.named, outside=self.outside)

    @functools.cached_property
    def xml_scan(self) -> FolderScan:
        """All files of the folder of annotations."""
        if self.annotations is None:
            return FolderScan(self.root)
        if self.annotations == self.images:
            return self.finder.scan
        return scan(self.annotations, outside=self.outside, real=real_folders(self.named))

    @property
    def scans(self) -> list[FolderScan]:
        """The files of the folder of images, and of the folder of annotations if it is another."""
        return [self.finder.scan, *([self.xml_scan] if self.xml_scan is not self.finder.scan else [])]

    @functools.cached_property
    def xml_files(self) -> dict[str, Path]:
        """The XML files by name: the last part of the path without suffix, or all of it if another file has this."""
        files = {_below(path, self.annotations)[:-4]: path for path in self.xml_scan.files if _is_xml(path)}
        return {name: files[path] for path, name in _shortest(files).items()}

    @functools.cached_property
    def paths(self) -> dict[str, str]:
        """The relative path without suffix of each name: of the XML files, then of the images without XML."""
        xml = {name: _below(path, self.annotations)[:-4] for name, path in self.xml_files.items()}
        return xml | {name: _without_suffix_below(path, self.images) for name, path in self.image_names.items()}

    @functools.cached_property
    def _claimed(self) -> dict[Path, str]:
        """The name of the XML file for each image that has one of the same name."""
        found = ((self._own_images(_below(path, self.annotations)[:-4]), name) for name, path in self.xml_files.items())
        return {path: name for paths, name in found for path in paths}

    @functools.cached_property
    def image_names(self) -> dict[str, Path]:
        """The images without XML file by name; a name that an XML file has is preceded by the folders."""
        bare = {
            _without_suffix_below(path, self.images): path
            for path in self.finder.scan.images
            if path not in self._claimed
        }
        short = {path: name for path, name in _shortest(bare).items() if name not in self.xml_files}
        return {
            short.get(path, path): file for path, file in bare.items() if short.get(path, path) not in self.xml_files
        }

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """The name of each XML file and image by its relative path without suffix, for the entries of lists."""
        images = {_without_suffix_below(path, self.images): name for path, name in self._claimed.items()}
        return images | {path: name for name, path in self.paths.items()}

    def own_images(self, name: str) -> list[Path]:
        """The images with the name of an XML file, in its subfolder or in another; several only if equally good."""
        return self._own_images(self.paths[name])

    def _own_images(self, path: str) -> list[Path]:
        found = self.finder.candidates(path)
        return found or (self.finder.candidates(path.rpartition("/")[2]) if "/" in path else [])

    def lists(self, repeated: set[str]) -> ImageLists:
        """The lists of the root. repeated: see `id_of`."""
        known, encoding = self.names, self.encoding
        return ImageLists(self.root, known, encoding=encoding, id_of=lambda name: self.id_of(name, repeated))

    def id_of(self, name: str, repeated: set[str]) -> str:
        """The id of an image: its name, with the label of the folder if another folder has the name as well."""
        return f"{self.label}/{name}" if name in repeated else name

    @property
    def description(self) -> str:
        """How the folder is read, for the log."""
        xml = "no XML files" if self.annotations is None else f"XML files in {self.annotations}"
        return f"{xml}, images in {self.images}" + (f" ({self.split.value})" if self.split else "")


def find_folders(root: Path, label: str, *, outside: bool, encoding: str | None) -> list[VocFolder]:
    """The folders of annotations below a root that the user named: one, or one for each split.

    Raises FileNotFoundError for a folder without annotations and lists.
    """
    if not is_existing_folder(root):
        raise FileNotFoundError(f"{root}: expected a VOC folder, got no such folder; set dataset.root")
    make = functools.partial(VocFolder, root, label=label, outside=outside, encoding=encoding)
    annotations, images = _named_folder(root, _ANNOTATION_FOLDERS, _has_xml), _image_folder(root)
    if annotations is not None:
        divided = _split_folders(annotations) if not _has_xml(annotations, deep=False) else {}
        if len(divided) > 1:
            return [
                make(folder, _same_named(images, folder) or images, split, label=f"{label}/{folder.name}".lstrip("/"))
                for folder, split in divided.items()
            ]
        return [make(annotations, images, None)]
    if _has_xml(root, deep=False):
        return [make(root, images, None)]
    divided = _split_folders(root)
    if any(_has_xml(folder) for folder in divided):
        return [_split_part(make, folder, split, label) for folder, split in divided.items()]
    inner = [folder for folder in _folders(root) if _named_folder(folder, _ANNOTATION_FOLDERS, _has_xml) is not None]
    if inner:
        # Each of them may have lists of its own, so they are not read as one folder.
        given = str(inner[0]) if len(inner) == 1 else f"[{','.join(map(str, inner))}]"
        raise FileNotFoundError(
            f"{root}: expected a VOC folder with Annotations/*.xml and JPEGImages, got a folder of VOC folders; set "
            f"dataset.root={given}"
        )
    if _has_xml(root):
        return [make(root, images, None)]
    if any(folder.name.lower() == _LIST_FOLDER for folder in _folders(root)) and _has_image(images):
        return [make(None, images, None)]
    there = ", ".join([path.name for path in children(root)][:6]) or "nothing"
    raise FileNotFoundError(
        f"{root}: expected a VOC folder with Annotations/*.xml and JPEGImages, got a folder with {there}; set "
        "dataset.root"
    )


def unwrapped(root: Path) -> Path:
    """The data set in the folder that an unpacked archive puts around it: the only entry of the root, and so on down.

    Hidden files, archives and documents do not count. The root itself if it has other entries, or if its only one is a
    folder of a data set, as train and images are.
    """
    folder = root
    while (only := _only_folder(folder)) is not None:
        folder = only
    return folder


def _only_folder(folder: Path) -> Path | None:
    entries = [path for path in children(folder) if not (is_hidden(path.name) or _is_document(path.name))]
    if len(entries) != 1 or entries[0].is_symlink() or not is_existing_folder(entries[0]):
        return None
    own = (*SPLIT_FOLDERS, *_IMAGE_FOLDERS, *_ANNOTATION_FOLDERS, _LIST_FOLDER)
    return None if entries[0].name.lower() in own else entries[0]


def voc_root(root: Path) -> Path:
    """The folder that `unwrapped` gives, if it has folders of annotations or splits; else the root."""
    if not is_existing_folder(root):
        return root
    only = unwrapped(root)
    has_layout = _named_folder(only, _ANNOTATION_FOLDERS, _has_xml) or any(map(_has_xml, _split_folders(only)))
    return only if has_layout else root


def _is_document(name: str) -> bool:
    return name.lower().startswith(("readme", "license")) or suffix_of(name) in (".md", ".pdf", ".html", ".zip", ".rar")


def describe_voc(root: Path) -> str | None:
    """How a folder is read as a VOC folder, in a phrase; None for any other folder. For `dataset=auto`.

    XML files are VOC's if one of the first has the tag <annotation>: other programs write XML, too.
    """
    if not is_existing_folder(root):
        return None
    root = voc_root(root)
    try:
        folders = find_folders(root, "", outside=False, encoding=None)
    except FileNotFoundError:
        return None
    places = [one.annotations for one in folders if one.annotations is not None]
    paths = sorted(
        path / name for place in places for path, _, names in walk(place) for name in names if suffix_of(name) == ".xml"
    )
    if not paths:
        return f"VOC: lists in ImageSets, no XML files, images in {_place(folders[0].images, root)}"
    if not any(map(_is_annotation, paths[:_MOST_READ])):
        return None
    many = f"VOC: {len(paths)} XML files"
    if folders[0].split is not None:
        names = ", ".join(
            f"{_place(one.annotations or one.root, root)} ({one.split.value})" for one in folders if one.split
        )
        return f"{many} in {names}"
    lists = root / "ImageSets" / "Main"
    with_lists = ", lists in ImageSets/Main" if is_existing_folder(lists) else ""
    return f"{many} in {_place(paths[0].parent, root)}, images in {_place(folders[0].images, root)}{with_lists}"


_MOST_READ = 20
"""XML files that are read to find out whether they are VOC's."""


def _is_annotation(path: Path) -> bool:
    try:
        with open_input(path, "a VOC annotation in XML") as file:
            start = file.read(4096)
    except (InputFileError, OSError):
        return False
    return re.search(rb"<annotation[\s>]", start.replace(b"\0", b"")) is not None  # in UTF-16 every second byte is 0


def _place(path: Path, root: Path) -> str:
    return "the folder" if path == root else path.relative_to(root).as_posix()


def _split_part(make: functools.partial[VocFolder], folder: Path, split: Split, label: str) -> VocFolder:
    annotations = _named_folder(folder, _ANNOTATION_FOLDERS, _has_xml) or (folder if _has_xml(folder) else None)
    return make(annotations, _image_folder(folder), split, label=f"{label}/{folder.name}".lstrip("/"))


def labels_of(roots: Sequence[Path]) -> list[str]:
    """A label for each root: the fewest last parts of its path that distinguish it; "" for a single root."""
    if len(roots) == 1:
        return [""]
    parts = [root.absolute().parts for root in roots]
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(one[-count:]).strip("/") for one in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f"dataset.root: expected different folders, got {', '.join(map(str, roots))}; name each once")


def _image_folder(folder: Path) -> Path:
    return _named_folder(folder, _IMAGE_FOLDERS, _has_image) or folder


def _named_folder(folder: Path, names: Sequence[str], fits: Callable[[Path], bool]) -> Path | None:
    """The subfolder with the first of the names, in any case, that `fits`."""
    there = _folders(folder)
    found = (one for name in names for one in there if one.name.lower() == name and fits(one))
    return next(found, None)


def _same_named(folder: Path, other: Path) -> Path | None:
    """The subfolder for the same split as `other`."""
    split = SPLIT_FOLDERS[other.name.lower()]
    return next((one for one, found in _split_folders(folder).items() if found is split), None)


def _split_folders(folder: Path) -> dict[Path, Split]:
    """The subfolders that are named after a split and hold images or XML files: the first of each split."""
    found: dict[Split, Path] = {}
    for one in _folders(folder):
        split = SPLIT_FOLDERS.get(one.name.lower())
        if split is not None and (_has_xml(one) or _has_image(one)):
            found.setdefault(split, one)
    return {one: split for split, one in found.items()}


def _folders(folder: Path) -> list[Path]:
    return [path for path in children(folder) if is_existing_folder(path) and not is_hidden(path.name)]


def _has_xml(folder: Path, deep: bool = True) -> bool:
    return any(suffix_of(name) == ".xml" for name in _file_names(folder, deep))


def _has_image(folder: Path) -> bool:
    return any(is_image(name) for name in _file_names(folder, deep=True))


def _file_names(folder: Path, deep: bool) -> Iterator[str]:
    """The names of the visible files in a folder, in no order; links to folders in it are not followed."""
    for _, folders, files in walk(folder):
        yield from (name for name in files if not is_hidden(name))
        folders[:] = [name for name in folders if deep and not is_hidden(name)]


def _shortest(paths: Iterable[str]) -> dict[str, str]:
    """From relative path to its last part, or to itself if two paths have the same last part."""
    last = {path: path.rpartition("/")[2] for path in paths}
    counts = Counter(last.values())
    return {path: name if counts[name] == 1 else path for path, name in last.items()}


def _without_suffix_below(path: Path, folder: Path) -> str:
    return without_suffix(_below(path, folder))


def _below(path: Path, folder: Path | None) -> str:
    assert folder is not None  # only a folder of annotations has XML files
    return path.relative_to(folder).as_posix()


def _is_xml(path: Path) -> bool:
    return suffix_of(path.name) == ".xml"
