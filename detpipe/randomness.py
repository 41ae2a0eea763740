"""Random number generators that depend only on a seed and an image."""

from __future__ import annotations

import hashlib

import numpy as np

from detpipe.structures import Image, ImageId


def generator_for(seed: int, image_id: ImageId) -> np.random.Generator:
    """The generator for one image. It is the same in every process and doesn't depend on earlier draws."""
    # Python's hash() of a string differs between processes. An id may be a file name that is not valid UTF-8.
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode("utf-8", "surrogateescape"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def generator_for_pixels(seed: int, image: Image) -> np.random.Generator:
    """The generator for an image without an id, from its shape and pixels."""
    return generator_for(seed, hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).hexdigest())
