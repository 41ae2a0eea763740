"""A class or function of the user as a proposer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import json
import logging
import pickle
import reprlib
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detpipe.boxes import area, clip
from detpipe.class_path import load_object
from detpipe.datasets.image_file import AnyImage, as_image, file_digest
from detpipe.proposals.kept_files import keep_files, kept_file
from detpipe.proposals.network_boxes import ANY_NUMBER
from detpipe.proposals.proposer import Proposer, ranked
from detpipe.storage.manifest import digest_of, plain
from detpipe.structures import Dataset, Float32Array, Image, Proposals

logger = logging.getLogger(__name__)


_LARGEST_SHARE = 1.5
"""A box that is given as shares of the image may lie a little outside of it."""


class PythonProposerError(ValueError):
    """A class or function that can't be used as a proposer, or whose result is not boxes and scores."""


@dataclass(kw_only=True)
class PythonProposals(Proposer):
    """The boxes of a class or function of yours: an image in, `Proposals` or (boxes, scores) out.

    The image is (H, W, 3) uint8 RGB. boxes: (N, 4), x1 y1 x2 y2 in pixels; scores: (N,). They may be in any order,
    arrays or torch tensors. An object that pickles runs in worker processes, each of which makes its own; any other
    runs in this process, on one image at a time.
    """

    object: str = ""
    """"package.module:Class", or "package.module:function". The module is also searched in the working directory."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class. A value that is the path of a file is kept with the detector, and its content
    is a part of the key. A function takes none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.arguments = plain(self.arguments)
        try:
            json.dumps(self.arguments)
        except TypeError as error:
            raise TypeError(
                f"proposals.arguments: expected numbers, texts, lists and mappings, got: {error}"
            ) from error

    def check(self, datasets: Sequence[Dataset] = ()) -> None:  # noqa: ARG002
        """Import and make the object. Raises PythonProposerError with its name."""
        self._made()

    @property
    def max_threads(self) -> int:
        """One if the object pickles, so that more workers are processes; else any number, which take turns."""
        return 1 if self._made().pickles else ANY_NUMBER

    def inputs(self) -> Mapping[str, str]:
        """The digests of the module's source file and of the files among the arguments."""
        digests = {f"module {self._module}": file_digest(_source_of(self.object, self._module)).hex()}
        return digests | {f"argument {name}": file_digest(path).hex() for name, path in self._files().items()}

    def keep(self, folder: Path) -> None:
        """Copy the files among the arguments. The module is not copied: a folder that is moved brings no code."""
        for name, path in self._files().items():
            keep_files(folder, path.parent, [path], _part(name))

    def kept_in(self, folder: Path) -> Proposer:
        """The same proposer with the copied files, if there are any."""
        arguments = _with_texts(self.arguments, lambda name, text: kept_file(folder, text, _part(name)))
        return dataclasses.replace(self, arguments=arguments)

    def __call__(self, image: AnyImage) -> Proposals:
        """The object's boxes of an RGB image, clipped, best first. Raises PythonProposerError."""
        image = as_image(image)
        boxes, scores = self._made()(image)
        return ranked(boxes, scores, (image.shape[0], image.shape[1]), self.max_proposals)

    @property
    def _module(self) -> str:
        module, _, name = self.object.partition(":")
        if not module or not name:
            raise PythonProposerError(
                f"proposals.object={self.object}: expected package.module:Class; give the module and a class in it"
            )
        return module

    def _files(self) -> dict[str, Path]:
        """Names and paths of the arguments that are files."""
        files = {}

        def note(name: str, text: str) -> str:
            # A text may be too long for a path, which is an OSError.
            with contextlib.suppress(OSError, ValueError):
                if Path(text).is_file():
                    files[name] = Path(text)
            return text

        _with_texts(self.arguments, note)
        return files

    def _made(self) -> _MadeObject:
        with _making:  # the first of several threads makes it
            return _made(self.object, self._module, json.dumps(self.arguments, sort_keys=True))


class _MadeObject:
    """An object that was imported and made. Threads take turns."""

    def __init__(self, name: str, module: str, arguments: dict[str, Any]) -> None:
        self._name = name
        found: Any = _imported(name, module)
        if not callable(found):
            raise PythonProposerError(
                f"proposals.object={name}: expected a class or function, got {type(found).__name__}"
            )
        if not inspect.isclass(found):
            if arguments:
                raise PythonProposerError(
                    f"proposals.object={name}: expected no proposals.arguments for a function, got "
                    f"{sorted(arguments)}; write a class that takes them"
                )
            propose = found
        else:
            if not any("__call__" in vars(base) for base in found.__mro__):
                raise PythonProposerError(f"proposals.object={name}: expected a class with __call__(image), got none")
            try:
                propose = found(**arguments)
            except Exception as error:
                raise self._failed("could not be made", error) from error
        self._propose: Callable[[Image], Any] = propose
        self.pickles = _pickles(propose)
        self._turn = threading.Lock()
        self._has_found = False

    def __call__(self, image: Image) -> tuple[Float32Array, Float32Array]:
        """Its boxes (N, 4) and scores (N,), checked."""
        with self._turn:
            try:
                # A copy: it may draw on the image, which others use.
                result = self._propose(image.copy())
            except Exception as error:
                raise self._failed("failed", error) from error
            try:
                boxes, scores = _numbers_of(result)
                if not self._has_found and len(boxes):
                    _check_pixels(boxes, (image.shape[0], image.shape[1]))
                    self._has_found = True
            except PythonProposerError as error:
                raise PythonProposerError(f"proposals.object={self._name}: {error}") from error
        return boxes, scores

    def _failed(self, what: str, error: Exception) -> PythonProposerError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = next(iter(str(error).strip().splitlines()), "")[:300]
        where = f"{frame.filename}:{frame.lineno}"
        return PythonProposerError(
            f"proposals.object={self._name}: it {what}: {type(error).__name__}: {text} ({where})"
        )


_making = threading.Lock()


@functools.lru_cache(maxsize=4)
def _made(name: str, module: str, arguments: str) -> _MadeObject:
    """The object, made once per process: a worker gets the settings again with each image."""
    return _MadeObject(name, module, json.loads(arguments))


def _imported(name: str, module: str) -> Any:
    _source_of(name, module)
    try:
        return load_object(name)
    except AttributeError as error:
        raise PythonProposerError(f"proposals.object={name}: expected a class or function there, got none") from error
    except Exception as error:
        raise PythonProposerError(
            f"proposals.object={name}: its module could not be imported: {type(error).__name__}: {str(error)[:300]}"
        ) from error


def _source_of(name: str, module: str) -> Path:
    """The source file of a module, which is not run. Raises PythonProposerError if there is none.

    The standard library is refused: none of its functions proposes boxes. Whether the user has named the class is
    checked where files are read (`plugins.check_objects`).
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise PythonProposerError(f"proposals.object={name}: expected a module of yours, got one of Python's own")
    try:
        importlib.invalidate_caches()  # for a file that is new
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    except Exception as error:  # what the code of a package above it raises
        raise PythonProposerError(f"proposals.object={name}: {type(error).__name__}: {str(error)[:300]}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise PythonProposerError(
            f"proposals.object={name}: expected a module {module} in the working directory {folder} or among the "
            "installed packages, found none"
        )
    return Path(spec.origin)


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception as error:
        logger.debug("python: it runs in this process: %s", error)
        return False
    return True


def _numbers_of(result: Any) -> tuple[Float32Array, Float32Array]:
    """Boxes (N, 4) and scores (N,) of a result, in any order. Raises PythonProposerError for other results."""
    if isinstance(result, Proposals):
        return result.boxes, result.scores
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise PythonProposerError(
            f"expected Proposals or (boxes, scores) from __call__(image), got {type(result).__name__} "
            f"{reprlib.repr(result)}"
        )
    boxes, scores = _array("boxes (N, 4)", result[0]), _array("scores (N,)", result[1])
    if not boxes.size and not scores.size:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),):
        raise PythonProposerError(
            f"expected boxes (N, 4) and scores (N,), got boxes {boxes.shape} and scores {scores.shape}"
        )
    wrong = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(wrong):
        raise PythonProposerError(
            f"expected boxes as x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got {boxes[wrong[0]].tolist()}; if it is "
            "x y width height, return x, y, x + width, y + height"
        )
    return boxes, scores


def _array(what: str, value: Any) -> Float32Array:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().float().numpy()
    try:
        array: npt.NDArray[Any] = np.asarray(value)
    except ValueError as error:  # rows of several lengths
        raise PythonProposerError(f"expected {what}, got rows of different lengths") from error
    if array.size and array.dtype.kind not in "iuf":
        raise PythonProposerError(f"expected {what} of numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # infinity is refused
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise PythonProposerError(f"expected {what} of finite numbers, got NaN or infinity")
    return array


def _check_pixels(boxes: Float32Array, image_size: tuple[int, int]) -> None:
    """Raise PythonProposerError for shares of the image in place of pixels, and for boxes of another image size."""
    if 0 < np.abs(boxes).max() <= _LARGEST_SHARE < min(image_size):
        raise PythonProposerError(
            f"expected boxes in pixels of the image of height and width {image_size}, got shares from 0 to 1 (the "
            f"first is {boxes[0].tolist()}); multiply x by the width and y by the height"
        )
    if not (area(clip(boxes, image_size)) > 0).any():
        raise PythonProposerError(
            f"expected boxes inside the image of height and width {image_size}, got none (the first is "
            f"{boxes[0].tolist()}); are they in pixels of another size?"
        )


def _with_texts(value: Any, change: Callable[[str, str], str], name: str = "") -> Any:
    """A value of JSON with each text changed. change: gets the name of the text, as "weights" or "models.0"."""
    if isinstance(value, dict):
        return {key: _with_texts(one, change, f"{name}.{key}".lstrip(".")) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_texts(one, change, f"{name}.{index}".lstrip(".")) for index, one in enumerate(value)]
    return change(name, value) if isinstance(value, str) else value


def _part(name: str) -> str:
    """The folder of an argument's file among the copies: two arguments may have files of one name."""
    return f"arguments/{digest_of(name)[:12]}"
