"""Images a second of the network that proposes and classifies in one pass, by its parts.

    python benchmarks/one_pass_rate.py IMAGES --run RUN [--count 24] [--sizes 384x384 512x384] [--proposals 100 50]

IMAGES is a folder of images, brought to each size in turn; RUN the folder of a finished run (`detpipe run
experiment=multibox_fast_rcnn`). Parts are timed one after the other, medians over the images, milliseconds; the last
column is the whole, as `detpipe detect` does it, images a second.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from detpipe.classify.detect import select_detections
from detpipe.classify.fast_rcnn.scorer import FastRcnnScorer
from detpipe.classify.settings import DetectConfig
from detpipe.datasets.image_file import read_image
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.device import autocast
from detpipe.network.scaled_image import Scaling
from detpipe.runs.detector import Detector
from detpipe.structures import Image

NOTHING = np.zeros((0, 4), dtype=np.float32)
SETTINGS = {
    "float32": ("float32", False),
    "bf16": ("bf16", False),
    "bf16, compiled": ("bf16", True),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--sizes", nargs="+", default=["384x384", "512x384"])
    parser.add_argument("--proposals", nargs="+", type=int, default=[100, 50])
    options = parser.parse_args()
    keep_freed_memory()
    files = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photographs = [read_image(path) for path in files[: options.count]]
    heads = ("scale", "maps", "propose", "pool", "head", "refine", "select", "images/s")
    print(f"{torch.get_num_threads()} threads; ms an image")
    print(f"{'size':<9} {'boxes':>5}  {'setting':<15}" + "".join(f"{head:>9}" for head in heads))
    for size in options.sizes:
        width, height = map(int, size.split("x"))
        images = [cv2.resize(image, (width, height)).astype(np.uint8) for image in photographs]
        for boxes in options.proposals:
            for name, (precision, compiled) in SETTINGS.items():
                config = DetectConfig(max_proposals=boxes, compile=compiled)
                detector = Detector.from_run(options.run, config=config, precision=precision)
                numbers = [*parts_of(detector, images), rate(detector, images)]
                print(f"{size:<9} {boxes:>5}  {name:<15}" + "".join(f"{one:>9.1f}" for one in numbers), flush=True)


def parts_of(detector: Detector, images: list[Image]) -> list[float]:
    """Median milliseconds of scaling, maps, proposing, pooling, the head, all of refining, and selection with NMS."""
    scorer = detector.scorer
    assert isinstance(scorer, FastRcnnScorer)
    network, count = scorer.network, detector.config.max_proposals
    assert isinstance(network, MultiBoxFastRcnn)
    rows = []
    for turn, image in enumerate([images[0], *images]):
        clock = [time.perf_counter()]
        scaling = Scaling.to_side((image.shape[0], image.shape[1]), scorer.scales[0], scorer.max_side)
        canvas = scorer.padded(scaling.pixels(image))
        clock.append(time.perf_counter())
        with torch.inference_mode(), autocast(torch.device("cpu"), scorer.bf16):
            maps = scorer.maps_of(torch.from_numpy(canvas))
            clock.append(time.perf_counter())
            output = network.predict(maps, (canvas.shape[1], canvas.shape[2]))
            boxes, _ = network.propose(output, 0, scaling.input_size, count)
            clock.append(time.perf_counter())
            pooled = network.pool(maps, functional.pad(boxes, (1, 0)))
            clock.append(time.perf_counter())
            network.classify(pooled)
            clock.append(time.perf_counter())
        begun = time.perf_counter()
        (scored,) = scorer.score([(image, NOTHING)])
        rest = max(time.perf_counter() - begun - (clock[-1] - clock[0]), 0.0)
        begun = time.perf_counter()
        regions = scored.boxes if scored.boxes is not None else NOTHING
        select_detections(regions, scored, (image.shape[0], image.shape[1]), detector.config)
        if turn:  # the first is for warming up
            rows.append([*np.diff(clock), rest, time.perf_counter() - begun])
    return [float(one) for one in 1000 * np.median(rows, axis=0)]


def rate(detector: Detector, images: list[Image]) -> float:
    """Images a second of the whole: scaling in the side thread, the network in this one."""
    list(detector.predict_many((image, NOTHING) for image in images[:2]))
    begun = time.perf_counter()
    list(detector.predict_many((image, NOTHING) for image in images))
    return len(images) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
