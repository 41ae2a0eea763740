"""`detpipe classes add`: a class that the detector does not know, trained from the stored features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from detpipe.commands.classes.change import Trained, change_classes, head_settings, trained
from detpipe.commands.detector_settings import ClassesAdd
from detpipe.datasets.source import Split
from detpipe.heads.stored.zero_shot import ZeroShotConfig
from detpipe.runs.training_images import taught_classes


def run(config: ClassesAdd) -> None:
    """Compute the features of the new class's regions, train its part of the head, and save the classifier.

    Raises ValueError where it isn't clear which class is meant.
    """
    now = trained(config.folder)
    known = replace(config.data_source, classes=None).class_names()
    lacking = [name for name in known if name not in now.spec.classes]
    if config.name is None and len(lacking) != 1:
        raise ValueError(
            f"classes add: expected the name of one class, name=..., the detector lacks {lacking or 'none'}"
        )
    name = config.name if config.name is not None else lacking[0]
    if name in now.spec.classes:
        raise ValueError(f"classes add: {name} is known; the detector has {list(now.spec.classes)}, lacks {lacking}")
    check_objects(config, now, known, name)
    change_classes(
        config,
        now,
        [*now.spec.classes, name],
        f"+{name}",
        lambda settings, head, examples, seed, bf16: settings.add_class(head, examples, seed=seed, bf16=bf16),
    )


def check_objects(config: ClassesAdd, now: Trained, known: Sequence[str], name: str) -> None:
    """Raise ValueError, before anything is changed, where there is no object to learn the class from.

    A head that takes classes by their vectors needs none.
    """
    if isinstance(head_settings(now.manifest), ZeroShotConfig):
        return
    lacking = [one for one in known if one not in now.spec.classes]
    dataset = replace(config.data_source, classes=[name]).load(Split.train) if name in known else None
    if dataset is None or not taught_classes(dataset):
        raise ValueError(
            f"classes add: expected training images with objects of {name} that are not difficult, found none; the "
            f"detector lacks {lacking or 'none'} of the data set's classes"
        )
