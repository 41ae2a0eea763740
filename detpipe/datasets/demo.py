"""The demo data set: objects cut out of photographs and pasted on others (Dwibedi et al. 2017, Cut, Paste and Learn).

The photographs come with the scikit-image package; nothing is downloaded. Authors and licences, as scikit-image states
them: astronaut, shuttle (NASA, public domain), cat (Stefan van der Walt, CC0), cup (Rachel Michetti, CC0), cameraman
(Lav Varshney, CC0), coins (Brooklyn Museum, no known restrictions), motorcycle (Middlebury stereo benchmark, Scharstein
et al. 2014); backgrounds: brick, gravel (CC0Textures), grass (linolafett, CC0), retina (M. Haeggstroem, CC0), rocket
(SpaceX, public domain), hubble (NASA), ihc (CMMI), moon.

Train and test use different parts of the backgrounds, different coins, and different poses of the same seven classes.
A good score shows that the pipeline works, not that the detector generalises to other cats.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from detpipe.datasets.entry import Entry
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import DatasetSource, Split
from detpipe.datasets.voc import VocSource
from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.storage.atomic import write_json
from detpipe.structures import Image

logger = logging.getLogger(__name__)

_BACKGROUNDS = (
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
_VERSION = 1
"""Version of the generator. A folder written by another version is not reused."""
_RECIPE_FILE = "demo.json"


class DemoDataError(ValueError):
    """The demo data can't be generated here."""


@dataclass(kw_only=True)
class DemoSource(DatasetSource):
    """Objects of seven classes pasted on textures, generated on first use as a VOC folder."""

    PATHS: ClassVar[tuple[str, ...]] = ("root",)
    GENERATED: ClassVar[bool] = True

    root: str = "runs/demo_data"
    """Folder of the demo data. It is generated if it does not exist."""
    seed: int = 0
    """Random seed. The same seed gives the same files, byte for byte."""
    train_images: int = 160
    """Number of training images."""
    test_images: int = 40
    """Number of test images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.train_images, self.test_images) < 1 or self.seed < 0:
            numbers = f"{self.train_images}, {self.test_images} and seed {self.seed}"
            raise ValueError(f"train_images, test_images: expected 1 or more, and a seed of 0 or more; got {numbers}")

    def has(self, split: Split) -> bool:
        return split is not Split.val

    def title(self, split: Split) -> str:
        return f"demo {split.value}"

    def entries(self, split: Split) -> Sequence[Entry]:
        return self._voc.entries(split)

    def as_voc(self) -> VocSource:
        """The generated folder as a VOC data set with the same images and objects. Generates it if it is missing."""
        return self._voc

    def known_classes(self) -> list[str]:
        return self._voc.known_classes()

    @functools.cached_property
    def _voc(self) -> VocSource:
        """The folder as a VOC source, generated now if it is missing. Raises DemoDataError."""
        root = Path(self.root)
        recipe = {"version": _VERSION, "seed": self.seed, "train": self.train_images, "test": self.test_images}
        if not _is_made(root, recipe):
            logger.info("making %d + %d demo images in %s", self.train_images, self.test_images, root)
            root.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
            try:
                _make(scratch, recipe)
                _put_in_place(scratch, root, recipe)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return VocSource(root=self.root, classes=self.classes, max_bad=self.max_bad)


def _is_made(root: Path, recipe: dict[str, int]) -> bool:
    """Whether the folder was generated with this recipe. Raises DemoDataError if it contains something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _RECIPE_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DemoDataError(
            f"{root}: expected an empty folder for the demo data, got other files; set another dataset.root"
        ) from error
    if found != recipe:
        raise DemoDataError(f"{root}: expected demo data of {recipe}, got data of {found}; set another dataset.root")
    return True


def _put_in_place(scratch: Path, root: Path, recipe: dict[str, int]) -> None:
    try:
        scratch.chmod(0o755)  # mkdtemp gives access to the owner only
        scratch.rename(root)
    except OSError:
        # Another process was faster. The same recipe gives the same bytes, so its folder is used.
        if not _is_made(root, recipe):
            raise


def _make(folder: Path, recipe: dict[str, int]) -> None:
    """Write the VOC folder."""
    # Imported here, because every command imports the settings above.
    from detpipe.datasets.demo_scenes import Painter, cut_outs, part_of

    photos = _photo_folder()
    backgrounds = [_read_photo(photos, name) for name in _BACKGROUNDS]
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for part, list_name in ((Split.train, "trainval"), (Split.test, "test")):
        scene = Painter(
            cut_outs(functools.partial(_read_photo, photos), part), [part_of(image, part) for image in backgrounds]
        )
        stems = [f"{part.value}_{number:04d}" for number in range(recipe[part.value])]
        for number, stem in enumerate(stems):
            random = np.random.default_rng([recipe["seed"], list(Split).index(part), number])
            image, truth = scene.paint(random)
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(80, 96))]
            _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
            (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(data.tobytes())
            path = folder / "Annotations" / f"{stem}.xml"
            write_voc_annotation(path, f"{stem}.jpg", image.shape[:2], truth, scene.classes)
        lines = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets" / "Main" / f"{list_name}.txt").write_text(lines, encoding="utf-8")
    write_json(folder / _RECIPE_FILE, recipe)


def _photo_folder() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise DemoDataError("expected scikit-image, whose photographs the demo uses; pip install 'detpipe[demo]'")
    return Path(spec.origin).parent / "data"


def _read_photo(folder: Path, name: str) -> Image:
    try:
        return read_image(folder / name)
    except FileNotFoundError as error:
        raise DemoDataError(f"{folder}: expected scikit-image's {name}; pip install 'scikit-image>=0.22'") from error
