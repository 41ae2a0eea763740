"""The settings of `detpipe labels apply`. This file and what it imports do not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detpipe.datasets.corrected_copy import CopiedImages
from detpipe.runs.command import Command


@dataclass(kw_only=True)
class LabelsApply(Command):
    """Settings of `detpipe labels apply`."""

    corrections: str | None = None
    """corrections.json, as the page of `detpipe labels audit` saves it."""
    out: str | None = None
    """The folder of the corrected data set, which must not exist. It also gets changes.json, and run/ with the results
    of run_dir that the corrections do not change."""
    source: str | None = None
    """The folder of `detpipe labels next`. Its images that the corrections name become training images of the copy."""
    allow_new_classes: bool = False
    """Accept classes that the data set does not have. Without it, an unknown class is taken for a spelling mistake."""
    images: CopiedImages = CopiedImages.link
    """link: hard links of the images, which take no space, and copies where the disk has none. copy: copies."""

    @property
    def corrections_file(self) -> Path:
        """Raises ValueError if it is not given."""
        if not self.corrections:
            raise ValueError("corrections: expected the path of corrections.json, got none; give corrections=FILE")
        return Path(self.corrections)

    @property
    def out_folder(self) -> Path:
        """The folder of the corrected data set. Raises ValueError if it is not given."""
        if not self.out:
            raise ValueError("out: expected a new folder for the corrected data set, got none; give out=DIR")
        return Path(self.out)
