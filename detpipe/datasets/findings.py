"""The kinds of faults of a data set, and their severity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """Severity of a fault.

    ERROR: an image can't be used and is left out, or numbers of the annotations can't be right. WARNING: the image is
    used, but an object is dropped or changed, or results may be misleading. INFO: handled without effect on the
    results.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


SEVERITY: Mapping[str, Severity] = {
    # The image is left out.
    "broken_image": Severity.ERROR,
    "truncated_image": Severity.ERROR,
    "missing_image": Severity.ERROR,
    "ambiguous_image": Severity.ERROR,
    "outside_image": Severity.ERROR,
    "missing_annotation": Severity.ERROR,
    "broken_annotation": Severity.ERROR,
    "list_entry_without_files": Severity.ERROR,
    "too_many_bad": Severity.ERROR,
    # The numbers have another unit than pixels.
    "relative_boxes": Severity.ERROR,
    "corner_boxes": Severity.ERROR,
    "relative_areas": Severity.ERROR,
    "tiny_box": Severity.ERROR,
    "too_many_tiny": Severity.ERROR,
    # Objects are dropped or changed.
    "object_without_box": Severity.WARNING,
    "label_without_box": Severity.WARNING,
    "several_classes": Severity.WARNING,
    "turned_boxes": Severity.WARNING,
    "zero_area_box": Severity.WARNING,
    "box_out_of_bounds": Severity.WARNING,
    "duplicate_object": Severity.WARNING,
    "swapped_corners": Severity.WARNING,
    "zero_based_boxes": Severity.WARNING,
    # Boxes may not fit the pixels, or scores may be misleading.
    "size_mismatch": Severity.WARNING,
    "exif_rotation": Severity.WARNING,
    "filename_mismatch": Severity.WARNING,
    "dark_image": Severity.WARNING,
    "duplicate_image": Severity.WARNING,
    "split_overlap": Severity.WARNING,
    "untrained_class": Severity.WARNING,
    "similar_classes": Severity.WARNING,
    "orphan_annotation": Severity.WARNING,
    "passed_over": Severity.WARNING,
    "read_outside": Severity.WARNING,
    # Handled.
    "other_encoding": Severity.INFO,
    "wrong_extension": Severity.INFO,
    "alpha_channel": Severity.INFO,
    "greyscale": Severity.INFO,
    "empty_image": Severity.INFO,
    "crowd": Severity.INFO,
    "unknown_class": Severity.INFO,
    "duplicate_list_entry": Severity.INFO,
}
"""Every kind of fault and its severity. The docs and `detpipe check` use these names."""


STOPS_RUN = ("relative_boxes", "corner_boxes", "too_many_tiny")
"""With these faults `detpipe run` does not start: it would train on crops of a pixel, or on wrong places."""


@dataclass(frozen=True)
class Finding:
    """One fault. kind: a key of SEVERITY. file: the file that has the fault. detail: a description."""

    kind: str
    severity: Severity
    file: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"


def finding(kind: str, file: object, detail: str) -> Finding:
    """A Finding with the severity of its kind."""
    return Finding(kind, SEVERITY[kind], str(file), detail)
