"""The kinds of arrays that are taken for an image, and what is made of each."""

from __future__ import annotations

import numpy as np

from detpipe.structures import Image


def as_rgb(image: object) -> Image:
    """An RGB image (H, W, 3) uint8 in one piece of memory, by the rules of `image_file.read_image`:

    (H, W) and (H, W, 1) are grey and repeated into three channels, of (H, W, 4) the alpha channel is dropped, uint16
    keeps its upper eight bits. Raises ValueError for floats, of which one can't tell whether 1 or 255 is white, for
    other dtypes and shapes, and for an image without pixels.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected an RGB image as a numpy array (H, W, 3) uint8, got {type(image).__name__}")
    if image.ndim not in (2, 3) or not image.size or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"expected an RGB image (H, W, 3) uint8 with H, W > 0, got {image.shape} {image.dtype}")
    if image.dtype == np.uint16:
        image = image >> 8
    elif image.dtype != np.uint8:
        mend = "; give (image * 255).astype('uint8') if 1 is white" if image.dtype.kind == "f" else ""
        raise ValueError(f"expected an RGB image (H, W, 3) uint8, got {image.shape} {image.dtype}{mend}")
    if image.ndim == 2:
        image = image[:, :, None]
    channels = image[:, :, :3] if image.shape[2] > 1 else np.repeat(image, 3, axis=2)
    # A read-only array would have the compiled code compiled a second time.
    return np.require(channels, np.uint8, ["C_CONTIGUOUS", "WRITEABLE"])
