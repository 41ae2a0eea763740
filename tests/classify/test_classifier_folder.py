"""The classes of a classifier are held against those of a data set. See test_kinds for what is saved and loaded."""

from __future__ import annotations

import pytest

from detpipe.backbone.settings import BackboneConfig
from detpipe.classify.classifier_folder import ClassifierError, ClassifierSpec, check_classes

SPEC = ClassifierSpec(classes=("cat", "dog", "guinea pig"), backbone=BackboneConfig())


def test_the_same_classes_pass() -> None:
    check_classes(SPEC, ["cat", "dog", "guinea pig"], "my set")


@pytest.mark.parametrize("classes", [["cat", "dog", "emu"], ["cat", "guinea pig", "dog"], ["cat", "dog"], []])
def test_other_classes_are_refused(classes: list[str]) -> None:
    with pytest.raises(ClassifierError, match=r"my set.*dataset\.classes=\[\.\.\.\]") as raised:
        check_classes(SPEC, classes, "my set")
    assert ("emu" in str(raised.value).partition("know")[2]) == ("emu" in classes)
