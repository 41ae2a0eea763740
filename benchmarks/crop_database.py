"""How fast crops are written and read: LMDB of JPEG, LMDB raw, and the same crops as image files, side by side.

    python benchmarks/crop_database.py [--crops 8000] [--size 128] [--repeats 3]

One process; crops are cut from smooth noise, which compresses about as photographs do. Files are warm in the page
cache for all. Rates are medians of the repeats; ratios are to the image files.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from detpipe.storage.datum import pack_image, parse_datum, unpack_image
from detpipe.storage.lmdb_store import LmdbReader, LmdbWriter

QUALITY = 95


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=8000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    crops = draw(arguments.crops, arguments.size)
    keys = [f"{index:08d}".encode() for index in range(len(crops))]
    shuffled = [keys[index] for index in np.random.default_rng(1).permutation(len(keys))]
    with tempfile.TemporaryDirectory() as scratch:
        rows = {
            name: store(Path(scratch) / name.replace(" ", "_"), crops, keys, shuffled, arguments.repeats)
            for name, store in (("image files", files), ("LMDB JPEG", lmdb(QUALITY)), ("LMDB raw", lmdb(None)))
        }
    base = rows["image files"]
    print(f"{len(crops)} crops of {arguments.size} px, one process; per second, and the ratio to files")
    for name, rates in rows.items():
        cells = [
            f"{what} {rate:7.0f} (x{rate / base[what]:4.2f})" if what != "MB" else f"{rate:6.1f} MB"
            for what, rate in rates.items()
        ]
        print(f"{name:<12} " + "   ".join(cells))


Rates = dict[str, float]
Store = Callable[[Path, list[np.ndarray], list[bytes], list[bytes], int], Rates]


def draw(count: int, size: int) -> list[np.ndarray]:
    """Crops of smooth noise with some grain."""
    generator = np.random.default_rng(0)
    field = cv2.resize(generator.integers(0, 256, (96, 96, 3), np.uint8), (3072, 3072), interpolation=cv2.INTER_CUBIC)
    field = np.clip(field + generator.normal(0, 4, field.shape), 0, 255).astype(np.uint8)
    corners = generator.integers(0, 3072 - size, (count, 2))
    return [np.ascontiguousarray(field[y : y + size, x : x + size]) for y, x in corners]


def rate(work: Callable[[], None], count: int, repeats: int) -> float:
    """Median of count / seconds."""
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - begun))
    return statistics.median(rates)


def files(folder: Path, crops: list[np.ndarray], keys: list[bytes], shuffled: list[bytes], repeats: int) -> Rates:
    """JPEG files in one folder."""
    folder.mkdir()

    def write() -> None:
        for key, crop in zip(keys, crops, strict=True):
            cv2.imwrite(str(folder / f"{key.decode()}.jpg"), crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])

    def read(order: list[bytes]) -> None:
        for key in order:
            image = cv2.imread(str(folder / f"{key.decode()}.jpg"))
            assert image is not None
            np.ascontiguousarray(image[:, :, ::-1])

    return {
        "write": rate(write, len(crops), 1),
        "in order": rate(lambda: read(keys), len(crops), repeats),
        "shuffled": rate(lambda: read(shuffled), len(crops), repeats),
        "MB": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }


def lmdb(quality: int | None) -> Store:
    """Datums in an LMDB, as JPEG of this quality or raw, with their checksums verified at reading."""

    def store(folder: Path, crops: list[np.ndarray], keys: list[bytes], shuffled: list[bytes], repeats: int) -> Rates:
        def write() -> None:
            with LmdbWriter(folder) as writer:
                for key, crop in zip(keys, crops, strict=True):
                    writer.put(key, pack_image(crop, jpeg_quality=quality).SerializeToString())

        def read_in_order() -> None:
            with LmdbReader(folder) as reader:
                for _, record in reader.items():
                    unpack_image(parse_datum(record, ""), "")

        def read_shuffled() -> None:
            with LmdbReader(folder) as reader:
                for key in shuffled:
                    unpack_image(parse_datum(reader.get(key), ""), "")

        return {
            "write": rate(write, len(crops), 1),
            "in order": rate(read_in_order, len(crops), repeats),
            "shuffled": rate(read_shuffled, len(crops), repeats),
            "MB": (folder / "data.mdb").stat().st_size / 1e6,
        }

    return store


if __name__ == "__main__":
    main()
