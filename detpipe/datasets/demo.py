"""The demo data: objects cut out of photographs and pasted on others (Dwibedi et al. 2017, Cut, Paste and Learn).

The photographs are those inside the scikit-image package; nothing is downloaded. Their makers, as scikit-image states
them: astronaut, shuttle (NASA, public domain), cat (Stefan van der Walt, CC0), cup (Rachel Michetti, CC0), cameraman
(Lav Varshney, CC0), coins (Brooklyn Museum, no known restrictions), motorcycle (Middlebury stereo benchmark, Scharstein
et al. 2014); backgrounds: brick, gravel (CC0Textures), grass (linolafett, CC0), retina (M. Haeggstroem, CC0), rocket
(SpaceX, public domain), hubble (NASA), ihc (CMMI), moon.

Train and test show other parts of the backgrounds, other coins, and other poses of the same seven kinds of things: the
score says that the pipeline works, not that it knows cats.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter

from detpipe.datasets.demo_outlines import COIN_PHOTO, COINS, OUTLINES
from detpipe.datasets.image_file import read_image
from detpipe.datasets.source import DatasetSource, Entry, Split
from detpipe.datasets.voc import VocSource, write_voc_annotation
from detpipe.storage.atomic import write_json
from detpipe.structures import BoolArray, GroundTruth, Image

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
_TRAIN_PART = 0.55
"""The share of each background's longer side that train sees; test sees the rest."""
_VERSION = 1
"""Of the recipe; folders that another one made are not taken for this one's."""
_RECIPE_FILE = "demo.json"


class DemoDataError(ValueError):
    """The demo data can't be made here."""


@dataclass(kw_only=True)
class DemoSource(DatasetSource):
    """Seven kinds of things pasted on textures, made on first use: a VOC folder that any tool can read."""

    root: str = "runs/demo_data"
    """The folder to make them in; made already, they are only read."""
    seed: int = 0
    """The same seed gives the same bytes."""
    train_images: int = 160
    """Number of images to train on."""
    test_images: int = 40
    """Number of images to test on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.train_images, self.test_images) < 1 or self.seed < 0:
            numbers = f"{self.train_images}, {self.test_images} and seed {self.seed}"
            raise ValueError(f"train_images, test_images: expected 1 or more, and a seed from 0 up; got {numbers}")

    def has(self, split: Split) -> bool:
        return split is not Split.val

    def title(self, split: Split) -> str:
        return f"demo {split.value}"

    def entries(self, split: Split) -> Sequence[Entry]:
        return self._voc.entries(split)

    def known_classes(self) -> list[str]:
        return self._voc.known_classes()

    @functools.cached_property
    def _voc(self) -> VocSource:
        """The folder as a VOC source, made now if it isn't there. Raises DemoDataError."""
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
    """Whether the folder has been made by this recipe. Raises DemoDataError where something else is there."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _RECIPE_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DemoDataError(f"{root}: expected a free place for the demo data, something else is there") from error
    if found != recipe:
        raise DemoDataError(
            f"{root}: expected demo data of {recipe}, it has those of {found}; take another dataset.root"
        )
    return True


def _put_in_place(scratch: Path, root: Path, recipe: dict[str, int]) -> None:
    try:
        scratch.chmod(0o755)  # mkdtemp lets only the owner in
        scratch.rename(root)
    except OSError:
        # Another process was faster; the same recipe gives the same bytes.
        if not _is_made(root, recipe):
            raise


def _make(folder: Path, recipe: dict[str, int]) -> None:
    """Write the VOC folder."""
    photos = _photo_folder()
    backgrounds = [_read_photo(photos, name) for name in _BACKGROUNDS]
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for part, list_name in ((Split.train, "trainval"), (Split.test, "test")):
        scene = _Painter(_cut_outs(photos, part), [_part_of(image, part) for image in backgrounds])
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
        raise DemoDataError("expected scikit-image, whose photographs the demo uses: pip install 'detpipe[demo]'")
    return Path(spec.origin).parent / "data"


def _read_photo(folder: Path, name: str) -> Image:
    try:
        return read_image(folder / name)
    except FileNotFoundError as error:
        raise DemoDataError(f"{folder}: expected scikit-image's {name}; pip install 'scikit-image>=0.22'") from error


def _part_of(image: Image, part: Split) -> Image:
    """The part of a background that a split sees, cut across its longer side."""
    axis = 1 if image.shape[1] > image.shape[0] else 0
    border = round(_TRAIN_PART * image.shape[axis])
    sides = np.split(image, [border], axis=axis)
    return sides[0] if part is Split.train else sides[1]


@dataclass(frozen=True)
class _CutOut:
    """An object on a transparent ground (RGBA, tight) and its class."""

    name: str
    picture: PIL.Image.Image


def _cut_outs(photos: Path, part: Split) -> list[_CutOut]:
    """All objects; every third coin is for test only."""
    cut_outs = []
    for outline in OUTLINES:
        points = [tuple(map(int, point.split(","))) for point in outline.points.split()]
        photo = _read_photo(photos, outline.photo)
        mask = PIL.Image.new("L", photo.shape[1::-1])
        PIL.ImageDraw.Draw(mask).polygon(points, fill=255)
        cut_outs.append(_CutOut(outline.name, _cut(photo, mask)))
    coins = _read_photo(photos, COIN_PHOTO)
    for number, (x, y, half_width, half_height) in enumerate(COINS):
        if (number % 3 == 2) == (part is Split.test):
            mask = PIL.Image.new("L", coins.shape[1::-1])
            corners = (x - half_width, y - half_height, x + half_width, y + half_height)
            PIL.ImageDraw.Draw(mask).ellipse(corners, fill=255)
            cut_outs.append(_CutOut("coin", _cut(coins, mask)))
    return cut_outs


def _cut(photo: Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    picture = PIL.Image.fromarray(photo)
    picture.putalpha(mask)
    picture = picture.crop(mask.getbbox())
    # A pixel less all around: the outermost one is half background.
    picture.putalpha(picture.getchannel("A").filter(PIL.ImageFilter.MinFilter(3)))
    return picture.crop(picture.getchannel("A").getbbox())


class _Painter:
    """Paints scenes of one split."""

    def __init__(self, cut_outs: Sequence[_CutOut], backgrounds: Sequence[Image]) -> None:
        self.classes = tuple(sorted({one.name for one in cut_outs}))
        self._labels = {name: label for label, name in enumerate(self.classes, start=1)}
        self._by_class = {name: [one for one in cut_outs if one.name == name] for name in self.classes}
        self._backgrounds = backgrounds

    def paint(self, random: np.random.Generator) -> tuple[Image, GroundTruth]:
        """One scene: a lit background, perhaps a patch of another that is no object, and one to five objects on it.

        The boxes are tight around what can be seen of each object: at least 60 % of it.
        """
        size = (int(random.integers(240, 301)), int(random.integers(320, 401)))
        canvas = _light(self._background(random, size), random)
        if random.random() < 0.5:
            canvas = _blend(canvas, self._patch(random, size))
        seen: list[_Seen] = []
        for name in self._pick_classes(random):
            choices = self._by_class[name]
            picture = choices[int(random.integers(len(choices)))].picture
            layer = _place(_pose(picture, random, size[0]), random, seen, size)
            if layer is None:
                continue
            covered = layer[..., 3] > 127
            seen = [replace(other, visible=other.visible & ~covered) for other in seen]
            seen.append(_Seen(self._labels[name], covered, int(covered.sum())))
            canvas = _blend(canvas, layer)
        boxes = [_tight_box(one.visible) for one in seen]
        return _add_noise(canvas, random), GroundTruth.from_boxes(boxes, [one.label for one in seen])

    def _pick_classes(self, random: np.random.Generator) -> list[str]:
        count = int(random.choice([1, 2, 3, 4, 5], p=[0.2, 0.3, 0.25, 0.15, 0.1]))
        names = [self.classes[index] for index in random.permutation(len(self.classes))[:count]]
        # Coins come in heaps.
        return names + ["coin"] * int(random.integers(0, 3)) if "coin" in names else names

    def _background(self, random: np.random.Generator, size: tuple[int, int]) -> Image:
        source = self._backgrounds[int(random.integers(len(self._backgrounds)))]
        height, width = source.shape[:2]
        scale = min(height / size[0], width / size[1]) * random.uniform(0.6, 1.0)
        crop_height, crop_width = int(size[0] * scale), int(size[1] * scale)
        top = int(random.integers(0, height - crop_height, endpoint=True))
        left = int(random.integers(0, width - crop_width, endpoint=True))
        crop = PIL.Image.fromarray(source[top : top + crop_height, left : left + crop_width])
        image = np.asarray(crop.resize(size[::-1], PIL.Image.Resampling.BICUBIC))
        return image[:, ::-1] if random.random() < 0.5 else image

    def _patch(self, random: np.random.Generator, size: tuple[int, int]) -> Image:
        """An ellipse of background as a layer: something with an edge that is no object."""
        height, width = size
        x, y = random.uniform(0, width), random.uniform(0, height)
        half_width, half_height = random.uniform(15, 60), random.uniform(15, 60)
        mask = PIL.Image.new("L", (width, height))
        PIL.ImageDraw.Draw(mask).ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=255)
        alpha = np.asarray(mask.filter(PIL.ImageFilter.BoxBlur(1)))
        return np.dstack([_light(self._background(random, size), random), alpha])


def _light(image: Image, random: np.random.Generator) -> Image:
    """Another brightness, contrast and colour of the light."""
    gain = random.uniform(0.75, 1.2) * random.uniform(0.92, 1.08, size=3)
    contrast = random.uniform(0.8, 1.15)
    mean = float(image.mean())
    return np.clip(np.rint(((image - mean) * contrast + mean) * gain), 0, 255).astype(np.uint8)


def _pose(picture: PIL.Image.Image, random: np.random.Generator, canvas_height: int) -> Image:
    """The cut-out scaled, flipped, turned and lit: (H, W, 4) uint8, its edge one pixel soft."""
    longest = canvas_height * math.exp(random.uniform(math.log(0.22), math.log(0.8)))
    is_small = max(picture.size) < 100  # a coin: enlarged much, it would be a blur
    scale = min(longest, 1.6 * max(picture.size)) / max(picture.size)
    size = (max(8, round(picture.width * scale)), max(8, round(picture.height * scale)))
    picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    angle = random.uniform(-180, 180) if is_small else random.uniform(-15, 15)
    picture = picture.rotate(angle, PIL.Image.Resampling.BICUBIC, expand=True)
    pixels = np.asarray(picture)
    lit = _light(pixels[..., :3], random)
    alpha = np.asarray(picture.getchannel("A").filter(PIL.ImageFilter.BoxBlur(0.5)))
    return np.dstack([lit, alpha])


@dataclass(frozen=True)
class _Seen:
    """An object on the canvas: its visible pixels (H, W), and how many it had when it was pasted."""

    label: int
    visible: BoolArray
    pasted: int


def _place(posed: Image, random: np.random.Generator, seen: Sequence[_Seen], size: tuple[int, int]) -> Image | None:
    """A layer as large as the canvas (H, W, 4) with the object in a place where all can be seen well enough.

    Well enough: 85 % of the object lies in the image, and 60 % of each object below stays visible. None where twenty
    tries find no such place.
    """
    height, width = posed.shape[:2]
    whole = int((posed[..., 3] > 127).sum())
    for _ in range(20):
        left = int(random.integers(-width // 6, max(1, size[1] - width + width // 6)))
        top = int(random.integers(-height // 6, max(1, size[0] - height + height // 6)))
        layer = np.zeros((*size, 4), np.uint8)
        y, x = max(0, top), max(0, left)
        inside = posed[y - top : size[0] - top, x - left : size[1] - left]
        layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        covered = layer[..., 3] > 127
        if covered.sum() < 0.85 * whole:
            continue
        if all((one.visible & ~covered).sum() >= 0.6 * one.pasted for one in seen):
            return layer
    return None


def _blend(canvas: Image, layer: Image) -> Image:
    """The layer (H, W, 4) over the canvas, in whole numbers: the same on every machine."""
    bounds = PIL.Image.fromarray(layer[..., 3]).getbbox()
    if bounds is None:
        return canvas
    left, top, right, bottom = bounds
    above = layer[top:bottom, left:right].astype(np.int32)
    below = canvas[top:bottom, left:right].astype(np.int32)
    mixed = below * (255 - above[..., 3:]) + above[..., :3] * above[..., 3:]
    blended = canvas.copy()
    blended[top:bottom, left:right] = (mixed + 127) // 255
    return blended


def _tight_box(mask: BoolArray) -> tuple[int, int, int, int]:
    bounds = PIL.Image.fromarray(mask).getbbox()
    assert bounds is not None  # `_place` leaves 60 % of each object to be seen
    return bounds


def _add_noise(image: Image, random: np.random.Generator) -> Image:
    strength = int(random.integers(0, 7))
    noise = random.integers(-strength, strength, size=image.shape, endpoint=True, dtype=np.int16)
    noisy: Image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return noisy
