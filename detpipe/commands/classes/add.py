"""`detpipe classes add`: add one class to a detector, trained on stored features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from detpipe.commands.classes.change import Trained, change_classes, head_settings, trained
from detpipe.commands.detector_settings import ClassesAdd
from detpipe.datasets.source import Split
from detpipe.runs.training_images import taught_classes


def run(config: ClassesAdd) -> None:
    """Compute the features of regions of the new class, train its part of the head, and save the classifier.

    Raises ValueError for a class that the detector has, or if `name` is needed to choose one.
    """
    now = trained(config.folder)
    known = replace(config.data_source, classes=None).class_names()
    lacking = [name for name in known if name not in now.spec.classes]
    if config.name is None and len(lacking) != 1:
        raise ValueError(
            f"name: expected the name of the new class, got none; give name=CLASS (new in the data set: {lacking})"
        )
    name = config.name if config.name is not None else lacking[0]
    if name in now.spec.classes:
        raise ValueError(f"name: expected a new class, got {name}, which the detector has; give one of {lacking}")
    check_objects(config, now, known, name)
    change_classes(
        config,
        now,
        [*now.spec.classes, name],
        f"+{name}",
        lambda settings, head, examples, seed, bf16: settings.add_class(head, examples, seed=seed, bf16=bf16),
    )


def check_objects(config: ClassesAdd, now: Trained, known: Sequence[str], name: str) -> None:
    """Raise ValueError, before anything is changed, if the class has no training objects.

    A head that detects classes by their vectors needs no objects.
    """
    if head_settings(now.manifest).USES_CLASS_VECTORS:
        return
    lacking = [other for other in known if other not in now.spec.classes]
    dataset = replace(config.data_source, classes=[name]).load(Split.train) if name in known else None
    if dataset is None or not taught_classes(dataset):
        raise ValueError(
            f"name: expected training images with objects of {name} that are not difficult, got none; annotate some, "
            f"or give another class ({lacking or 'none'} of the data set's classes are new)"
        )
