"""A dataclass in a JSON file beside the classifier that it tells of, as `evaluation.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from detpipe.classify.classifier_folder import DESCRIPTION, ClassifierError
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_dataclass
from detpipe.storage.manifest import plain

T = TypeVar("T")


def keep(classifier: Path, file: str, kind: type[T], value: T | None) -> None:
    """Write a value into a classifier's folder, if it differs. None deletes an earlier one; no classifier: nothing.

    A damaged file is replaced.
    """
    path = classifier / file
    if value is None:
        path.unlink(missing_ok=True)
    elif (classifier / DESCRIPTION).is_file():
        try:
            found = kept(classifier, file, kind)
        except ClassifierError:
            found = None
        if value != found:
            write_json(path, plain(value))


def kept(classifier: Path, file: str, kind: type[T]) -> T | None:
    """The value in a classifier's folder; None without a file.

    Raises ClassifierError, which names the file and the key, for a damaged file.
    """
    path = classifier / file
    if not path.is_file():
        return None
    try:
        return read_dataclass(path, kind)
    except DataclassJsonError as error:
        raise ClassifierError(f"{error}; delete the file and run `detpipe eval` again") from error
