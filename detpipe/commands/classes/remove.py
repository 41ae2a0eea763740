"""`detpipe classes remove`: remove one class from a detector; the other classes do not change."""

from __future__ import annotations

from detpipe.commands.classes.change import change_classes, trained
from detpipe.commands.detector_settings import ClassesRemove


def run(config: ClassesRemove) -> None:
    """Remove the class from labels and head, and save the classifier.

    Raises ValueError for a class that the detector does not have, and for its only class.
    """
    now = trained(config.folder)
    if config.name not in now.spec.classes or len(now.spec.classes) == 1:
        raise ValueError(
            f"name: expected one of several classes {list(now.spec.classes)}, got {config.name}; give name=CLASS"
        )
    label = now.spec.classes.index(config.name) + 1
    change_classes(
        config,
        now,
        [name for name in now.spec.classes if name != config.name],
        f"-{config.name}",
        lambda settings, head, examples, seed, bf16: settings.remove_class(head, label, examples, seed=seed, bf16=bf16),
    )
