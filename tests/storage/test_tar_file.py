"""The index of a tar: the formats of tar's writers, compared with tarfile; hostile and damaged ones."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detpipe.storage.input_file import InputFileError
from detpipe.storage.tar_file import TarIndex, read_tar_index, safe_name


def tar_of(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def index_of(data: bytes) -> TarIndex:
    return read_tar_index(io.BytesIO(data), Path("a.tar"))


def contents(data: bytes) -> dict[str, bytes]:
    return {name: data[start : start + size] for name, (start, size) in index_of(data).members.items()}


def of_kind(kind: bytes, name: str = "a.jpg", target: str = "/etc/passwd") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_in_the_order_of_the_file(form: int) -> None:
    files = {"b.jpg": b"x" * 700, "a/c.json": b"{}", f"{'d' * 60}/{'e' * 60}.jpg": b"y", "empty.txt": b""}
    assert list(contents(tar_of(files, form)).items()) == list(files.items())


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_in_other_scripts(form: int) -> None:
    files = {f"{'d' * 200}/{'e' * 100}.jpg": b"1", "Bär-熊.jpg": b"2", "short.jpg": b"3"}
    assert contents(tar_of(files, form)) == files


def test_an_empty_tar_has_no_members() -> None:
    assert index_of(tar_of({})) == TarIndex({}, ())


def test_folders_and_devices_are_no_files() -> None:
    for kind in (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        assert index_of(of_kind(kind)) == TarIndex({}, ())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_named_and_not_followed(kind: bytes) -> None:
    index = index_of(of_kind(kind))
    assert index.members == {}
    ((name, reason),) = index.faults
    assert name == "a.jpg"
    assert "link" in reason


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg", "d" * 300 + ".jpg"])
def test_names_that_are_no_path_below_a_folder(name: str) -> None:
    index = index_of(tar_of({name: b"x", "good.jpg": b"y"}))
    assert list(index.members) == ["good.jpg"]
    assert len(index.faults) == 1


def test_the_last_of_two_members_with_one_name_counts() -> None:
    assert contents(tar_of({"./a.jpg": b"old", "a.jpg": b"new"})) == {"a.jpg": b"new"}


def test_a_cut_tar_keeps_what_is_whole() -> None:
    data = tar_of({"a.jpg": b"x" * 600, "b.jpg": b"y" * 600}, tarfile.USTAR_FORMAT)
    for length in (512 + 1024, 512 + 1024 + 100, 512 + 1024 + 512 + 300):
        index = index_of(data[:length])
        assert list(index.members) == ["a.jpg"]
        ((name, reason),) = index.faults
        assert name == ""
        assert "cut off" in reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (slice(124, 136), b"77777777777\0"),  # 8 GB
        (slice(124, 136), b"\x80" + b"\xff" * 11),  # 2^88
        (slice(124, 136), b"\xff" * 12),  # -1
        (slice(124, 136), b"12x45678901\0"),
    ],
)
def test_a_false_size_is_a_fault(field: slice, value: bytes) -> None:
    data = bytearray(tar_of({"a.jpg": b"x"}, tarfile.USTAR_FORMAT))
    data[field] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    index = index_of(bytes(data))
    assert index.members == {}
    assert "a.jpg" in index.faults[0][1]


def test_a_changed_header_is_a_fault() -> None:
    data = bytearray(tar_of({"a.jpg": b"x", "b.jpg": b"y"}, tarfile.USTAR_FORMAT))
    data[1024] ^= 1
    index = index_of(bytes(data))
    assert list(index.members) == ["a.jpg"]
    assert "damaged at byte 1,024" in index.faults[0][1]


def test_other_files_are_named() -> None:
    with pytest.raises(InputFileError, match=r"^a\.tar: .*gunzip"):
        index_of(gzip.compress(tar_of({"a.jpg": b"x"})))
    with pytest.raises(InputFileError, match="make the tar again"):
        index_of(b"\xff\xd8" * 400)
    with pytest.raises(InputFileError, match="expected a tar file"):
        index_of(b"short")


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-zé]{1,120}){0,2}\.jpg", fullmatch=True), st.binary(max_size=1500))
)
def test_every_member_has_its_bytes(files: dict[str, bytes]) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert contents(tar_of(files, form)) == files


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=40))
def test_damage_gives_members_inside_the_file_or_one_sentence(place: int, damage: bytes) -> None:
    data = bytearray(tar_of({"a" * 150 + ".jpg": b"x" * 600, "é.jpg": b"y"}))
    place = min(place, len(data) - len(damage))
    data[place : place + len(damage)] = damage
    try:
        index = index_of(bytes(data))
    except InputFileError:
        return
    assert all(0 <= start <= start + size <= len(data) for start, size in index.members.values())
    assert all(safe_name(name) == (name, None) for name in index.members)
