"""A small VOC folder that tests spoil in one way each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detpipe.datasets.voc_xml import write_voc_annotation
from detpipe.structures import GroundTruth


class VocFolder:
    """Writes images (20 high, 30 wide), annotations and lists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images, self.annotations, self.lists = root / "JPEGImages", root / "Annotations", root / "ImageSets/Main"
        for folder in (self.images, self.annotations, self.lists):
            folder.mkdir(parents=True)
        self._count = 0

    def image(self, name: str) -> Path:
        """An image like no other, so that no two files are identical."""
        self._count += 1
        pixels = np.random.default_rng(self._count).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        suffix = Path(name).suffix.lower()
        (self.images / name).write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
        return self.images / name

    def annotation(self, stem: str, boxes: object = ((2, 3, 12, 13),), name: str = "cat") -> Path:
        truth = GroundTruth.from_boxes(boxes, [1] * len(boxes))
        write_voc_annotation(self.annotations / f"{stem}.xml", f"{stem}.jpg", (20, 30), truth, (name,))
        return self.annotations / f"{stem}.xml"

    def xml(self, stem: str, objects: str, before: str = "") -> Path:
        """An annotation with the text of its objects as given."""
        path = self.annotations / f"{stem}.xml"
        path.write_text(f"<annotation>{before}{objects}</annotation>", encoding="utf-8")
        return path

    def pair(self, stem: str, name: str = "cat") -> None:
        self.image(f"{stem}.jpg")
        self.annotation(stem, name=name)

    def list(self, name: str, text: str) -> None:
        (self.lists / f"{name}.txt").write_bytes(text.encode())


def voc_object(xmin: float, ymin: float, xmax: float, ymax: float, name: str = "cat") -> str:
    """An <object> with the tags that are needed and no other."""
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"


@pytest.fixture
def voc(tmp_path: Path) -> VocFolder:
    return VocFolder(tmp_path / "set")
