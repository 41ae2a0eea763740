"""`detpipe classes add`: a class that the detector does not know, trained from the stored features."""

from __future__ import annotations

from dataclasses import dataclass, replace

from detpipe.commands.class_change import ClassChange, change_classes, trained


@dataclass(kw_only=True)
class ClassesAdd(ClassChange):
    """Settings of `detpipe classes add`. name: of a class of the data set; null: the one that the detector lacks."""


def run(config: ClassesAdd) -> None:
    """Compute the features of the new class's regions, train its part of the head, and save the classifier.

    Raises ValueError where it isn't clear which class is meant.
    """
    now = trained(config.folder)
    known = replace(config.data_source, classes=None).class_names()
    lacking = [name for name in known if name not in now.spec.classes]
    if config.name is None and len(lacking) != 1:
        raise ValueError(f"classes add: wanted the name of one class, name=..., the detector lacks {lacking or 'none'}")
    name = config.name if config.name is not None else lacking[0]
    if name in now.spec.classes:
        raise ValueError(f"classes add: {name} is known; the detector has {list(now.spec.classes)}, lacks {lacking}")
    change_classes(
        config,
        now,
        [*now.spec.classes, name],
        f"+{name}",
        lambda settings, head, examples, seed: settings.add_class(head, examples, seed=seed),
    )
