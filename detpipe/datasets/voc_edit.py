"""Changes objects in a VOC annotation. All other bytes of the file stay: tags, order, attributes, comments, spaces.

The text is changed in place, because an XML writer would write the whole file in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from detpipe.datasets.object_edits import Box, ObjectEdit, decimal
from detpipe.datasets.text_file import marked_encoding
from detpipe.datasets.voc_xml import (
    ROTATION,
    DecodedXml,
    box_of_corners,
    corner_texts,
    decode_xml,
    parse_voc_annotation,
)

_SHAPES = ("polygon", "points", "robndbox")
"""Tags of outlines. They are removed with a change of the box, because they are where the object was."""
_START_TAG = re.compile(rb"""<(?:[^"'>]+|"[^"]*"|'[^']*')*>""")
_ENCODING = re.compile(r"""(encoding\s*=\s*)(["'])[^"']*\2""")


@dataclass
class _Element:
    """An element, and where it is in the UTF-8 bytes of the text.

    start, end: with its tags. inner_start, inner_end: its content; for <a/> both are the end.
    """

    tag: str
    start: int
    inner_start: int
    inner_end: int = 0
    end: int = 0
    children: list[_Element] = field(default_factory=list)

    def child(self, tag: str) -> _Element | None:
        """The first child with this tag."""
        return next((one for one in self.children if one.tag == tag), None)


Piece = tuple[int, int, str]
"""From and to which byte, and the text that replaces it."""


def edited_voc_annotation(data: bytes, path: Path, edits: Sequence[ObjectEdit], encoding: str | None = None) -> bytes:
    """The bytes of the annotation with the edits; without edits, the same bytes.

    A new name replaces the text of <name>, a new box the four numbers of <bndbox>. An object that had an outline or a
    rotated box gets a <bndbox>, and the outline is removed; CVAT's attribute "rotation" becomes 0.0. An added object
    stands behind the others, with name, pose, truncated, difficult and bndbox, indented as they are. The file keeps its
    encoding; a letter that the encoding lacks is written as a character reference. path: for messages. encoding: as in
    `read_voc_annotation`.
    Raises BrokenAnnotationError, and ValueError for a box that is not wider and higher than one pixel.
    """
    if not edits:
        return data
    places = parse_voc_annotation(data, path, encoding).places  # checks the file, and refuses entities
    xml = decode_xml(data, encoding)
    text = xml.text.encode()
    root = _parsed(text)
    objects = [one for one in root.children if one.tag == "object"]
    pieces: list[Piece] = []
    try:
        for edit in edits:
            if edit.index is not None:
                pieces += _pieces(text, objects[places[edit.index]], edit)
        added = "".join(_added(text, root, objects, edit) for edit in edits if edit.index is None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if added and root.inner_start == root.end:
        pieces.append((root.end - len("/>"), root.end, f">{added}</{root.tag}>"))
    elif added:
        place = objects[-1].end if objects else _end_of_content(text, root)
        pieces.append((place, place, added))
    return _encoded(data, xml, _replaced(text, pieces, is_ascii=not xml.is_certain))


def _parsed(text: bytes) -> _Element:
    """The elements of a checked XML text without declaration."""
    parser = expat.ParserCreate("utf-8")
    found: list[_Element] = []
    opened: list[_Element] = []

    def begin(tag: str, _: object) -> None:
        start = parser.CurrentByteIndex
        one = _Element(tag, start, _end_of_tag(text, start))
        (opened[-1].children if opened else found).append(one)
        opened.append(one)

    def finish(_: str) -> None:
        one, place = opened.pop(), parser.CurrentByteIndex
        # For <a/>, Expat gives the place of the element itself, or the one behind it.
        is_closed = text[one.inner_start - 2 : one.inner_start] == b"/>"
        one.inner_end = one.inner_start if is_closed else place
        one.end = one.inner_start if is_closed else text.index(b">", place) + 1

    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.Parse(text, True)
    return found[0]


def _end_of_tag(text: bytes, start: int) -> int:
    """The place behind the ">" of a start tag; attributes may contain this sign."""
    match = _START_TAG.match(text, start)
    assert match is not None  # Expat has read it
    return match.end()


def _pieces(text: bytes, one: _Element, edit: ObjectEdit) -> Iterator[Piece]:
    if edit.is_removed:
        yield _start_of_indent(text, one), one.end, ""
        return
    name = one.child("name")
    assert name is not None  # the reader requires it
    if edit.name is not None:
        yield name.inner_start, name.inner_end, escape(edit.name)
    if edit.box is None:
        return
    texts = _corners(edit.box)
    corners = one.child("bndbox")
    if corners is not None and corners.children:
        for tag, value in texts.items():
            number = corners.child(tag)
            assert number is not None
            yield number.inner_start, number.inner_end, value
    else:
        indent = text[_start_of_indent(text, name) : name.start].decode()
        place = corners.start if corners is not None else name.end
        end = corners.end if corners is not None else name.end
        yield place, end, ("" if corners is not None else indent) + _bndbox(texts, indent, _deeper(indent, 2))
    for shape in one.children:
        if shape.tag in _SHAPES:
            yield _start_of_indent(text, shape), shape.end, ""
    attributes = one.child("attributes")
    for attribute in attributes.children if attributes is not None else ():
        word, degrees = attribute.child("name"), attribute.child("value")
        if word is None or degrees is None:
            continue
        if text[word.inner_start : word.inner_end].strip() == ROTATION.encode():
            yield degrees.inner_start, degrees.inner_end, "0.0"


def _corners(box: Box) -> dict[str, str]:
    """The four numbers of a box, with few decimals if the reader then finds the same box in float32."""
    exact = corner_texts(box)
    rounded = {tag: f"{decimal(float(value)):.6f}".rstrip("0").rstrip(".") for tag, value in exact.items()}
    read = box_of_corners([float(value) for value in rounded.values()])
    return rounded if list(map(decimal, read)) == list(map(decimal, box)) else exact


def _added(text: bytes, root: _Element, objects: Sequence[_Element], edit: ObjectEdit) -> str:
    """The text of an added object, indented as the last one."""
    assert edit.name is not None
    assert edit.box is not None
    like = objects[-1] if objects else None
    first = like or (root.children[0] if root.children else None)
    indent = "" if first is None else text[_start_of_indent(text, first) : first.start].decode()
    inner = _deeper(indent, 1)
    if like is not None and like.children:
        inner = text[_start_of_indent(text, like.children[0]) : like.children[0].start].decode()
    tags = {"name": escape(edit.name), "pose": "Unspecified", "truncated": "0", "difficult": "0"}
    lines = [f"{inner}<{tag}>{value}</{tag}>" for tag, value in tags.items()]
    corners = inner + _bndbox(_corners(edit.box), inner, inner + _step(indent, inner))
    return f"{indent}<object>{''.join(lines)}{corners}{indent}</object>"


def _bndbox(texts: dict[str, str], indent: str, inner: str) -> str:
    numbers = "".join(f"{inner}<{tag}>{value}</{tag}>" for tag, value in texts.items())
    return f"<bndbox>{numbers}{indent}</bndbox>"


def _step(indent: str, inner: str) -> str:
    """What one more level adds to the white space before a tag."""
    return inner.removeprefix(indent) if inner.startswith(indent) else ""


def _deeper(indent: str, level: int) -> str:
    """The white space before a tag one level deeper. indent: of a tag at `level`, 1 below the root."""
    line = indent.rpartition("\n")[2]
    return indent + line[: len(line) // level]


def _start_of_indent(text: bytes, one: _Element) -> int:
    """Where the white space before an element begins."""
    place = one.start
    while place and text[place - 1] in b" \t\r\n":
        place -= 1
    return place


def _end_of_content(text: bytes, root: _Element) -> int:
    """Where the content of the root ends, without the white space before its end tag."""
    return root.inner_start + len(text[root.inner_start : root.inner_end].rstrip(b" \t\r\n"))


def _replaced(text: bytes, pieces: Sequence[Piece], *, is_ascii: bool) -> str:
    """The text with the pieces replaced. is_ascii: write other letters as character references."""
    parts: list[bytes] = []
    end = 0
    for start, stop, value in sorted(pieces, key=lambda piece: piece[:2]):
        new = value.encode("ascii", "xmlcharrefreplace") if is_ascii else value.encode()
        parts += [text[end:start], new]
        end = stop
    return b"".join([*parts, text[end:]]).decode()


def _encoded(data: bytes, xml: DecodedXml, text: str) -> bytes:
    """The text in the encoding of the file, or in UTF-8 if the encoding would not give the other bytes back."""
    mark = b""
    marked = marked_encoding(data)
    if marked is not None and (bom := "\ufeff".encode(marked)) == data[: len(bom)]:
        mark = bom
    for codec in (xml.codec, "latin-1"):  # which has the five bytes that cp1252 lacks
        try:
            is_same = mark + (xml.declaration + xml.text).encode(codec) == data
        except UnicodeError:
            continue
        if is_same:
            return mark + (xml.declaration + text).encode(codec, "xmlcharrefreplace")
    return (_ENCODING.sub(r'\1"UTF-8"', xml.declaration) + text).encode()
