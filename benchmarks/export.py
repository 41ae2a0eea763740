"""A detector in PyTorch and its exported files under onnxruntime and OpenVINO: milliseconds per image, mAP, agreement.

    python benchmarks/export.py RUN VOC_FOLDER FILE [FILE ...] [--images 50] [--threads 1]

RUN is the run folder, VOC_FOLDER its data set, and each FILE a detector.onnx of it (float32 first, then INT8). Test
images that an INT8 file was calibrated on are left out, by the file names in the manifest.json beside it. The ways take
turns on each image in one process, so that other work on the machine slows all of them. Without the time of proposing.
mAP is VOC10's on these test images. Same: the share of detections with the same class, box (IoU 0.95) and score (0.001)
as PyTorch's, beside the largest difference of their scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from detpipe import Detector, evaluate
from detpipe.classify.export.graph_file import compare, session
from detpipe.datasets import load_dataset
from detpipe.storage.manifest import read_manifest
from detpipe.structures import Dataset, Detections, Float32Array, Image

Way = Callable[[Image, Float32Array], Detections]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    detector = Detector.from_run(arguments.run, device="cpu", precision="float32")
    ways: dict[str, Way] = {"PyTorch": lambda image, boxes: next(detector.predict_many([(image, boxes)]))}
    for number, file in enumerate(arguments.files):
        name = "float32" if not number else f"INT8 {number}"
        ways[f"onnxruntime {name}"] = session(file, threads=arguments.threads)
        ways[f"OpenVINO {name}"] = in_openvino(file, arguments.threads)
    calibrated = set().union(*(calibrated_on(file) for file in arguments.files))
    dataset = some_of(load_dataset("voc", "test", root=str(arguments.data)), arguments.images, calibrated)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[Detections]] = {name: [] for name in ways}
    for number, record in enumerate(dataset.records):
        image, boxes = detector.with_regions(record.path)
        for name, way in ways.items():
            if not number:
                way(image, boxes)  # warm-up
            begun = time.perf_counter()
            found[name].append(way(image, boxes))
            seconds[name].append(time.perf_counter() - begun)
    print(f"{arguments.run}: {len(dataset)} images, {arguments.threads} threads")
    print("way                        ms per image  ratio    mAP   same %  largest difference")
    first = statistics.median(seconds["PyTorch"])
    for name in ways:
        middle = statistics.median(seconds[name])
        by_id = {record.image_id: one for record, one in zip(dataset.records, found[name], strict=True)}
        agreement = compare(zip(found["PyTorch"], found[name], strict=True))
        print(
            f"{name:<26} {middle * 1e3:12.1f} {middle / first:6.2f} {evaluate(dataset, by_id).voc10.map:6.3f} "
            f"{agreement.share * 100:8.2f}  {agreement.scores:.1e}",
            flush=True,
        )


def in_openvino(file: Path, threads: int) -> Way:
    """A file in OpenVINO on the CPU, in float32 (INT8 layers stay INT8)."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(file, "CPU", settings)
    names = [one.any_name for one in model.inputs]

    def run(image: Image, boxes: Float32Array) -> Detections:
        given = {"image": image, "proposals": boxes}
        results = model({name: given[name] for name in names})
        return Detections(*(np.array(results[name]) for name in ("boxes", "scores", "labels")))

    return run


def calibrated_on(file: Path) -> list[str]:
    """The file names of the images that an exported detector was calibrated on; [] for float32.

    Raises KeyError for an export of an earlier version, which does not say it.
    """
    summary = read_manifest(file.parent).summary
    names: list[str] = summary["calibrated_on"]
    return names


def some_of(dataset: Dataset, count: int, without: set[str]) -> Dataset:
    """The first images of a data set, without the images that have one of these file names."""
    records = tuple(record for record in dataset.records if record.path.name not in without)
    left_out = len(dataset) - len(records)
    print(f"calibrated on {len(without)} images, of which {left_out} are test images and left out")
    records = records[:count]
    truth = dataset.ground_truth
    assert truth is not None
    kept = {record.image_id for record in records}
    return dataclasses.replace(
        dataset, records=records, ground_truth={name: one for name, one in truth.items() if name in kept}
    )


if __name__ == "__main__":
    main()
