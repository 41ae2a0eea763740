"""Images a second of detection, by its parts: Fast R-CNN in float32, bf16 and compiled, and R-CNN beside it.

    python benchmarks/detect_rate.py IMAGES --fast RUN [--rcnn RUN] [--count 24] [--size 640x480] [--proposals 1000]

IMAGES is a folder of images, brought to one size. RUN are folders of finished runs (`detpipe run experiment=fast_rcnn`,
and of the same data with the defaults). Parts are timed one after the other, medians over the images; the last column
is the whole, proposing in a side thread, as `detpipe detect source=IMAGES` does it. R-CNN classifies the same proposals
of --rcnn-count images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from detpipe.classify.detect import select_detections
from detpipe.classify.fast_rcnn.scorer import FastRcnnScorer
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import read_image
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.device import autocast
from detpipe.network.scaled_image import Scaling
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.detector import Detector
from detpipe.structures import Float32Array, Image


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--fast", type=Path, required=True)
    parser.add_argument("--rcnn", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--rcnn-count", type=int, default=4)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--proposals", type=int, default=1000)
    arguments = parser.parse_args()
    keep_freed_memory()
    width, height = map(int, arguments.size.split("x"))
    files = sorted(path for path in arguments.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [cv2.resize(read_image(path), (width, height)).astype(np.uint8) for path in files[: arguments.count]]
    proposer = SelectiveSearch(max_proposals=arguments.proposals)
    regions = [proposer(image).boxes for image in images]
    print(f"{len(images)} images of {arguments.size}, {np.mean([len(one) for one in regions]):.0f} proposals each, "
          f"{torch.get_num_threads()} threads; ms an image")  # fmt: skip
    print(
        f"{'setting':<22}{'propose':>9}{'scale':>7}{'maps':>7}{'pool':>7}{'head':>7}{'select':>8}{'images/s, all':>15}"
    )
    settings = {
        "float32": ("float32", False),
        "bf16": ("bf16", False),
        "bf16, compiled": ("bf16", True),
    }
    rates = {}
    for name, (precision, compiled) in settings.items():
        config = DetectConfig(max_proposals=arguments.proposals, compile=compiled)
        detector = Detector.from_run(arguments.fast, config=config, precision=precision, proposer=proposer)
        parts = parts_of(detector, images, regions)
        rates[name] = rate(detector, images, proposer)
        row = "".join(f"{value:>{width}.1f}" for value, width in zip(parts, (9, 7, 7, 7, 7, 8), strict=True))
        print(f"{name:<22}{row}{rates[name]:>15.2f}", flush=True)
    if arguments.rcnn is not None:
        of_crops = Detector.from_run(arguments.rcnn, config=DetectConfig(max_proposals=arguments.proposals))
        some = list(zip(images, regions, strict=True))[: arguments.rcnn_count]
        fast = Detector.from_run(arguments.fast, config=DetectConfig(max_proposals=arguments.proposals))
        slow, quick = seconds(of_crops, some), seconds(fast, some)
        print(
            f"R-CNN, the same proposals: {1000 * slow:.0f} ms an image; Fast R-CNN {1000 * quick:.0f}: "
            f"x{slow / quick:.1f}"
        )


def parts_of(detector: Detector, images: list[Image], regions: list[Float32Array]) -> list[float]:
    """Median milliseconds of proposing, scaling, maps, pooling, the head, and selection with NMS."""
    scorer = detector.scorer
    assert isinstance(scorer, FastRcnnScorer)
    network, side = scorer.network, scorer.scales[0]
    rows = []
    for turn, (image, boxes) in enumerate([(images[0], regions[0]), *zip(images, regions, strict=True)]):
        clock = [time.perf_counter()]
        detector.proposer(image)
        clock.append(time.perf_counter())
        scaling = Scaling.to_side((image.shape[0], image.shape[1]), side, scorer.max_side)
        pixels = scaling.pixels(image)
        clock.append(time.perf_counter())
        with torch.inference_mode(), autocast(torch.device("cpu"), scorer.bf16):
            maps = scorer.maps_of(torch.from_numpy(scorer.padded(pixels)))
            clock.append(time.perf_counter())
            pooled = network.pool(maps, functional.pad(torch.from_numpy(scaling.to_input(boxes)), (1, 0)))
            clock.append(time.perf_counter())
            network.classify(pooled)
            clock.append(time.perf_counter())
        (scored,) = scorer.score([(image, boxes)])
        begun = time.perf_counter()
        select_detections(boxes, scored, (image.shape[0], image.shape[1]), detector.config)
        if turn:  # the first is for warming up
            rows.append([*np.diff(clock), time.perf_counter() - begun])
    return [float(one) for one in 1000 * np.median(rows, axis=0)]


def rate(detector: Detector, images: list[Image], proposer: SelectiveSearch) -> float:
    """Images a second of the whole: proposing in the side thread, the network in this one."""

    def stream() -> Iterator[tuple[Image, Float32Array]]:
        for image in images:
            yield image, proposer(image).boxes

    begun = time.perf_counter()
    for _ in detector.predict_many(stream()):
        pass
    return len(images) / (time.perf_counter() - begun)


def seconds(detector: Detector, pairs: list[tuple[Image, Float32Array]]) -> float:
    """Seconds an image of all after the proposals, the first image, which warms up, left out."""
    list(detector.predict_many(pairs[:1]))
    begun = time.perf_counter()
    list(detector.predict_many(pairs))
    return (time.perf_counter() - begun) / len(pairs)


if __name__ == "__main__":
    main()
