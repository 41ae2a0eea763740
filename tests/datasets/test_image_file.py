"""image_file: one decoder, one rule for rotation, one for truncation."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.datasets.image_file import (
    FORMAT_SUFFIXES,
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    BrokenImageError,
    TruncatedImageError,
    as_image,
    file_digest,
    from_pillow,
    read_grey,
    read_header,
    read_image,
    unread_reason,
)
from detpipe.structures import ReadOptions

PIXELS = np.zeros((16, 48, 3), np.uint8)
PIXELS[:8, :16], PIXELS[:8, 32:], PIXELS[8:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def saved(path: Path, pixels: np.ndarray = PIXELS, kind: str = "PNG", orientation: int | None = None) -> Path:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    if orientation is not None:
        exif = PIL.Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    PIL.Image.fromarray(pixels).save(path, kind, **options)
    return path


def test_reads_rgb(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.png"))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_is_upright_as_pillow_turns_it(tmp_path: Path, kind: str, orientation: int) -> None:
    path = saved(tmp_path / "a.img", kind=kind, orientation=orientation)
    image = read_image(path)
    with PIL.Image.open(path) as opened:
        expected = np.asarray(PIL.ImageOps.exif_transpose(opened).convert("RGB"))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 3
    assert read_header(path).image_size == image.shape[:2]
    assert read_header(path).orientation == orientation


def test_odd_exif_leaves_the_image_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PIXELS).save(path, exif=b"Exif\x00\x00nonsense")
    assert read_image(path).shape == PIXELS.shape
    assert read_image(saved(path, kind="JPEG", orientation=77)).shape == PIXELS.shape


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", PIXELS[..., 0])
    np.testing.assert_array_equal(read_image(path), np.repeat(PIXELS[..., :1], 3, axis=2))
    assert read_header(path).is_grey
    assert not read_header(saved(tmp_path / "b.png")).is_grey


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = np.full((*PIXELS.shape[:2], 1), 7, np.uint8)
    path = saved(tmp_path / "a.png", np.concatenate([PIXELS, alpha], axis=2))
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert read_header(path).has_alpha


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], deep >> 8)


@pytest.mark.parametrize("mode", ["P", "LA", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.img"
    PIL.Image.fromarray(PIXELS).convert(mode).save(path, "JPEG" if mode == "CMYK" else "PNG")
    assert read_image(path).shape == (16, 48, 3)
    assert read_header(path).image_size == (16, 48)


def test_png_inside_jpg_is_read_by_content(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", kind="PNG")
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert read_header(path).format == "PNG"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("cut", [1, 2, 20, 0.3, 0.6])
def test_truncated_is_broken_for_decoder_and_header(tmp_path: Path, kind: str, cut: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / "a b ü.img", noise, kind)
    data = path.read_bytes()
    path.write_bytes(data[: -int(cut if cut >= 1 else cut * len(data))])
    for read in (read_image, read_header):
        with pytest.raises(TruncatedImageError, match=r"a b ü\.img: expected an image file, got a truncated one"):
            read(path)


def test_end_marker_of_a_thumbnail_is_not_the_end(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(thumbnail, "JPEG")
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PIXELS).save(path, exif=b"Exif\x00\x00" + thumbnail.getvalue())
    assert read_header(path).image_size == (16, 48)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(TruncatedImageError):
        read_header(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", kind="JPEG")
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_image(path).shape == PIXELS.shape


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "TIFF"])
def test_other_truncated_formats_do_not_decode(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "a.img", kind=kind)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BrokenImageError, match=r"a\.img"):
        read_image(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_garbage_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for read in (read_image, read_header):
        with pytest.raises(BrokenImageError, match=r"a\.jpg: expected an image file, got .*download "):
            read(path)


def test_what_is_no_image_is_said_without_pillows_words(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"not found")
    wanted = f"{path}: expected an image file, got something else; export or download it again"
    for read in (read_image, read_header):
        with pytest.raises(BrokenImageError) as caught:
            read(path)
        assert str(caught.value).startswith(wanted)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=80), start=st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"BM", b"II*\0", b"P6 "])
)
def test_any_bytes_give_an_image_or_the_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.jpg"
    path.write_bytes(start + data)
    with contextlib.suppress(BrokenImageError):
        assert read_image(path).shape[:2] == read_header(path).image_size


def test_a_large_header_gives_no_warning_and_a_huge_one_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.new("1", (10_000, 9_500)).save(path)  # above Pillow's warning, 89 megapixels
    assert read_header(path).image_size == (9_500, 10_000)
    PIL.Image.new("1", (10_001, 10_000)).save(path)
    with pytest.raises(BrokenImageError, match="huge"):
        read_header(path)


def test_missing_file(tmp_path: Path) -> None:
    for read in (read_image, read_header, file_digest):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.jpg")


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == hashlib.blake2b(b"abc", digest_size=16).digest()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="got a named pipe"):
        file_digest(tmp_path / "pipe")


def test_header_agrees_with_decoder_on_real_images(shared_data: Path) -> None:
    paths = [*sorted((shared_data / "raccoon/JPEGImages").iterdir())[:40], shared_data / "caffe/datum_lmdb_sujack1"]
    paths[-1] = next(paths[-1].rglob("cr4.jpg"))  # an RGBA PNG inside .jpg
    for path in paths:
        assert read_image(path).shape[:2] == read_header(path).image_size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_grey_is_the_decoders_and_upright(tmp_path: Path, orientation: int) -> None:
    """Compared with cv2.imread, which turns by EXIF itself, as Caffe's tools read."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(pixels).save(path, exif=exif)
    grey = read_grey(path)
    assert grey.shape == ((16, 24) if orientation < 5 else (24, 16))
    wanted = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert wanted is not None
    np.testing.assert_array_equal(grey, wanted)


def opened(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return from_pillow(picture)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_an_opened_file_is_upright_as_its_path(tmp_path: Path, kind: str, orientation: int) -> None:
    path = saved(tmp_path / "a.img", kind=kind, orientation=orientation)
    np.testing.assert_array_equal(opened(path), read_image(path))
    with PIL.Image.open(path) as picture:
        picture.load()
        turned = PIL.ImageOps.exif_transpose(picture)
    np.testing.assert_array_equal(from_pillow(turned), read_image(path))  # not turned twice


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bits_of_an_opened_file_are_scaled(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 255, 256], [511, 32768, 65535]], np.uint16)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, deep)[1].tobytes())
    found = opened(path)
    assert found[..., 1].tolist() == [[0, 0, 1], [1, 128, 255]]
    np.testing.assert_array_equal(found, read_image(path))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P with alphas", "1", "L"])
def test_other_modes_of_an_opened_file_are_as_by_path(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    if mode in ("RGBA", "LA"):
        PIL.Image.fromarray(pixels).convert(mode).save(path)
    elif mode.startswith("P"):
        alphas = bytes(range(0, 250, 10)) if "alphas" in mode else 3
        PIL.Image.fromarray(pixels[..., :3]).quantize(25).save(path, transparency=alphas)
    else:
        PIL.Image.fromarray(pixels[..., 0]).convert(mode).save(path)
    np.testing.assert_array_equal(opened(path), read_image(path))


def test_what_pillow_made_and_what_it_cannot_give(tmp_path: Path) -> None:
    np.testing.assert_array_equal(from_pillow(PIL.Image.fromarray(PIXELS)), PIXELS)
    assert from_pillow(PIL.Image.new("RGB", (0, 5))).size == 0
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match=f"8 or 16 bits, got mode {mode}"):
            from_pillow(PIL.Image.new(mode, (4, 5)))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.jpg", noise, kind="JPEG")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BrokenImageError, match=r"a\.jpg: expected an image file, got one that can't be decoded"):
        opened(path)


@pytest.mark.parametrize("kind", FORMAT_SUFFIXES)
def test_every_format_of_the_table_is_read(kind: str, tmp_path: Path) -> None:
    for suffix in FORMAT_SUFFIXES[kind]:
        path = tmp_path / f"a{suffix}"
        PIL.Image.fromarray(PIXELS).save(path, kind)
        assert read_header(path).format == kind
        assert read_image(path).shape == PIXELS.shape
        assert suffix in IMAGE_SUFFIXES
        assert unread_reason(path) is None


def test_pictures_that_are_not_read_say_why_and_what_to_do() -> None:
    assert not set(UNREAD_SUFFIXES) & set(IMAGE_SUFFIXES)
    for suffix in (".heic", ".HEIF", ".avif", ".jxl", ".CR2", ".nef", ".dng", ".psd", ".tga"):
        assert "; " in (unread_reason(Path(f"a{suffix}")) or "")
    assert unread_reason(Path("notes.txt")) is None


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert read_grey(path).shape == read_header(path).image_size == (16, 48)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for read in (read_image, read_grey, read_header):
        for name, got in (
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
            ("folder", "a folder"),
            ("pointer", "a Git LFS pointer"),
        ):
            with pytest.raises(BrokenImageError, match=rf"{name}\.jpg: expected an image file, got {got}"):
                read(tmp_path / f"{name}.jpg")
        with pytest.raises(BrokenImageError, match="got a device"):
            read("/dev/zero")
        with pytest.raises(BrokenImageError, match="expected an image file, got a name with embedded null"):
            read("a\0b.jpg")


def test_the_limit_on_pixels_can_be_set(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    for read in (read_image, read_grey, read_header):
        assert read(path, ReadOptions(max_pixels=16 * 48)) is not None
        with pytest.raises(
            BrokenImageError,
            match=r"at most 767 pixels, got a huge one of 48 x 16; .*\(dataset\.max_pixels",
        ):
            read(path, ReadOptions(max_pixels=16 * 48 - 1))
    with PIL.Image.open(path) as picture, pytest.raises(BrokenImageError, match="at most 767 pixels"):
        from_pillow(picture, ReadOptions(max_pixels=767))


def test_a_file_that_is_too_large_for_its_pixels_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file of a terabyte
    for read in (read_image, read_header):
        with pytest.raises(BrokenImageError, match="expected an image file of at most"):
            read(path)


# Images in any form


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_an_image_stays_as_it_is() -> None:
    image = noise()
    assert np.array_equal(as_image(image), image)
    assert np.shares_memory(as_image(image), image)


def test_grey_arrays_are_repeated_and_alpha_is_dropped() -> None:
    grey = np.array([[0, 7], [255, 9]], np.uint8)
    wanted = [[[0] * 3, [7] * 3], [[255] * 3, [9] * 3]]
    assert as_image(grey).tolist() == wanted
    assert as_image(grey[:, :, None]).tolist() == wanted
    image = noise()
    assert np.array_equal(as_image(np.dstack([image, image[:, :, 0]])), image)


def test_uint16_arrays_keep_its_upper_bits() -> None:
    deep = np.array([[[0, 255, 256], [65535, 0x1234, 0xFF00]]], np.uint16)
    assert as_image(deep).tolist() == [[[0, 0, 1], [255, 0x12, 255]]]
    assert as_image(deep[:, :, 0]).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("view", [np.s_[::2, ::-1], np.s_[:, ::3], np.s_[5:, 7:]])
def test_views_become_whole_arrays_that_may_be_written(view: tuple[slice, slice]) -> None:
    image = noise()
    taken = as_image(image[view])
    assert np.array_equal(taken, image[view])
    assert taken.flags.c_contiguous
    image.flags.writeable = False
    taken = as_image(image)
    assert np.array_equal(taken, image)
    assert taken.flags.writeable


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32; give \(image \* 255\)"),
        (np.zeros((4, 4), np.float64), "float64; give"),
        (np.zeros((4, 4, 3), bool), r"got \(4, 4, 3\) bool$"),
        (np.zeros((4, 4, 3), np.int64), r"got \(4, 4, 3\) int64$"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), r"got \(3, 4, 4, 3\)"),
        (np.zeros(12, np.uint8), r"got \(12,\)"),
        (np.zeros((0, 5, 3), np.uint8), r"H, W > 0, got \(0, 5, 3\)"),
        (np.zeros((5, 0), np.uint8), r"H, W > 0, got \(5, 0\)"),
        ([[1, 2], [3, 4]], "got list"),
        (None, "got NoneType"),
        (b"JPEG", "got bytes"),
        (3, "got int"),
        (np.full((4, 4, 3), np.nan), "got .* float64"),
        (np.zeros((4, 4, 3), "U1"), r"got \(4, 4, 3\) <U1"),
        (np.zeros((4, 4, 3), complex), r"got \(4, 4, 3\) complex128"),
        (np.zeros((), np.uint8), r"got \(\) uint8"),
        (PIL.Image.new("RGB", (0, 5)), "got a PIL image of 0 x 5 pixels"),
    ],
)
def test_what_is_no_image_names_the_argument(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^image: expected a path, .*{message}"):
        as_image(wrong)  # type: ignore[arg-type]


def test_a_path_and_an_opened_file_are_images(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise())
    with PIL.Image.open(path) as picture:
        for image in (path, str(path), picture):
            np.testing.assert_array_equal(as_image(image), noise())


@pytest.mark.parametrize("kind", ["text", "path"])
def test_a_path_to_nothing_names_the_argument(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "none.jpg"
    for error in (ValueError, FileNotFoundError):
        with pytest.raises(error, match=r"^image: expected the path of an image file, got .*none\.jpg, which does not"):
            as_image(str(path) if kind == "text" else path)
