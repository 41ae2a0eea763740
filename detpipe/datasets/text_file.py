"""Reads text files of other people: lists and class names in UTF-8, UTF-16 or an encoding that the user names."""

from __future__ import annotations

import codecs
from pathlib import Path

from detpipe.storage.input_file import read_input

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks. UTF-32's little-endian mark begins with UTF-16's, so it comes first."""
_PREFIXES = (
    "utf_",
    "ascii",
    "latin_",
    "iso8859_",
    "iso2022_",
    "cp",
    "koi8_",
    "gb",
    "big5",
    "shift_j",
    "euc_",
    "mac_",
    "tis_",
)
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859_1": "cp1252"}
"""Encodings that programs write under the name of a smaller one."""
_ODD = frozenset({"utf_7", "cp65001"})

LARGEST_TEXT = 1 << 26
"""Bytes of the largest list or file of class names that is read."""


class TextFileError(ValueError):
    """A text file has another encoding than expected."""


def read_text(path: Path, expected: str, encoding: str | None = None) -> str:
    """The text of a file by its byte-order mark, else in UTF-8, else in `encoding`, without the mark.

    Raises TextFileError, InputFileError and OSErrors.
    """
    return text_and_encoding(read_input(path, expected, LARGEST_TEXT), path, expected, encoding)[0]


def text_and_encoding(data: bytes, path: Path, expected: str, encoding: str | None = None) -> tuple[str, str]:
    """The text of a file's bytes, as `read_text`, and the name of its encoding."""
    found = marked_encoding(data)
    for name in (found,) if found else ("utf-8", encoding):
        text = None if name is None else decoded(data, name)
        if name is not None and text is not None:
            return text, name
    raise TextFileError(
        f"{path}: expected {expected} in UTF-8{f' or {encoding}' if encoding else ''}, got other bytes; save it in "
        "UTF-8" + ("" if encoding else ", or name its encoding, as in dataset.encoding=gb18030")
    )


def encoded_alike(text: str, data: bytes, encoding: str, path: Path) -> bytes:
    """The bytes of a changed text, with the byte-order mark of the file's own bytes `data`, if they have one.

    encoding: as `text_and_encoding` found it. Raises TextFileError for a letter that the encoding lacks.
    """
    mark = next((mark for mark, name in _MARKS if name == encoding and data.startswith(mark)), b"")
    try:
        return mark + text.encode(known_encoding(encoding) or encoding)
    except UnicodeEncodeError as error:
        raise TextFileError(
            f"{path}: expected letters of its encoding, {encoding}, got {text[error.start]!r}; save the file in UTF-8"
        ) from error


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte-order mark shows, or a "<" in UTF-16; None without one."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    return {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(data[:2])


def known_encoding(name: str) -> str | None:
    """Python's name of an encoding of texts, the larger one of two that are confused; None for any other name.

    Python also has "encodings" that decompress or are slow on hostile input. They are not known here.
    """
    try:
        canonical = codecs.lookup(name).name.lower().replace("-", "_")
    except (LookupError, ValueError, UnicodeError):
        return None
    if canonical in _ODD or not canonical.startswith(_PREFIXES):
        return None
    return _WIDER.get(canonical, canonical)


def decoded(data: bytes, name: str) -> str | None:
    """The text of the bytes, without a byte-order mark; None if they are not in this encoding."""
    known = known_encoding(name)
    if known is None:
        return None
    try:
        return data.decode(known).removeprefix("\ufeff")
    except UnicodeError:
        if known != "cp1252":
            return None
    return data.decode("latin-1")  # which has the five bytes that cp1252 lacks
