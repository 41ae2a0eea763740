"""IDX: images and labels as MNIST has them, packed or not, and files that are none."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from detpipe.datasets.idx import IdxError, read_idx, read_idx_images

IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 250, 251, 252])
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 4])


def write(folder: Path, images: bytes = IMAGES, labels: bytes = LABELS) -> tuple[Path, Path]:
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    return folder / "images", folder / "labels"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_images_and_labels(tmp_path: Path, pack: type[bytes]) -> None:
    found = read_idx_images(*write(tmp_path, pack(IMAGES), pack(LABELS)), classes=None)
    assert [(image.name, image.label) for image in found.images] == [("00000000", 7), ("00000001", 4)]
    assert [image.grey.tolist() for image in found.images if image.grey is not None] == [[[1, 2, 3]], [[250, 251, 252]]]
    assert found.classes is None


def test_no_images(tmp_path: Path) -> None:
    empty = write(tmp_path, IMAGES[:4] + bytes(4) + IMAGES[8:16], LABELS[:4] + bytes(4))
    assert read_idx_images(*empty, classes=None).images == ()


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (b"\0", "begins with 00 00 08 03, got 00"),
        (LABELS, r"images: expected an IDX file .*, got 00 00 08 01"),
        (IMAGES[:9], "3 dimensions, got a file that ends before them"),
        (IMAGES[:-1], r"expected 6 bytes .*\(2, 1, 3\), got 5"),
        (IMAGES + b"a", "got more"),
        (IMAGES[:4] + b"\xff" * 12, "at most 1073741824 bytes"),
        (IMAGES[:11] + b"\x00" + IMAGES[12:], "no side of 0"),
        (gzip.compress(IMAGES, mtime=0)[:-6], "gzip file.*download it again"),
        (gzip.compress(IMAGES, mtime=0)[:12], "gzip file.*download it again"),
        (b"\x1f\x8b" + b"x" * 30, "gzip file.*download it again"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, images: bytes, expected: str) -> None:
    with pytest.raises(IdxError, match=expected):
        read_idx(write(tmp_path, images)[0], 3)


def test_a_large_claim_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that claims a gigabyte over a few bytes: read piece by piece."""
    monkeypatch.setattr("detpipe.datasets.idx.CHUNK", 4)
    head = bytes([0, 0, 8, 3, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0])
    with pytest.raises(IdxError, match=r"expected 1073741824 bytes .* got 9"):
        read_idx(write(tmp_path, gzip.compress(head + b"123456789"))[0], 3)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(IdxError, match=r"expected the labels of the 2 images in .*, got 1"):
        read_idx_images(*write(tmp_path, labels=bytes([0, 0, 8, 1, 0, 0, 0, 1, 7])), classes=None)
    with pytest.raises(IdxError, match="expected labels below the number of classes, 5, got 7"):
        read_idx_images(*write(tmp_path), classes=tuple("abcde"))
    with pytest.raises(FileNotFoundError, match="none: expected an IDX file"):
        read_idx_images(tmp_path / "none", tmp_path / "labels", classes=None)


def test_mnist(shared_data: Path) -> None:
    folder = shared_data / "caffe/mnist_t10k"
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1)
    assert images.shape == (10_000, 28, 28)
    # The published counts of the test set's digits.
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
