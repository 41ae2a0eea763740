"""`detpipe inspect time`: time and memory of each layer, like `caffe time` -> inspect_time.json, .png, .html."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from detpipe.commands.inspect.network import images_and_labels, studied_network
from detpipe.commands.inspect.settings import InspectTime
from detpipe.console import RESULT
from detpipe.inspect.step_cost import measure_cost
from detpipe.inspect.step_time import Clock
from detpipe.network.device import autocast, resolve_bf16, resolve_device
from detpipe.report.curves import to_png
from detpipe.report.time_page import TimePage, time_figure, time_text, write_time_page
from detpipe.storage.atomic import write_bytes, write_json

logger = logging.getLogger(__name__)


def run(config: InspectTime) -> None:
    """Measure some steps on the same images, and write the results."""
    studied = studied_network(config)
    images, labels, source = images_and_labels(config, studied)
    device = resolve_device(config.device)
    bf16 = resolve_bf16(config.precision, device)

    def step() -> Tensor:
        with autocast(device, bf16):
            return studied.loss(images, labels)

    cost = measure_cost(
        studied.network,
        step,
        iterations=config.iterations,
        warm_up=config.warm_up,
        backward=config.backward,
        clock=clock_of(device),
    )
    machine = f"{device}, {'bf16' if bf16 else 'float32'}, {torch.get_num_threads()} threads"
    subtitle = f"{studied.title}; {source}, {len(images)} x {images.shape[1]} x {images.shape[2]}"
    data = TimePage(subtitle=subtitle, machine=f"{machine}; {config.iterations} steps", cost=cost)
    json_file, png_file, html_file = (config.folder.path / f"inspect_time.{kind}" for kind in ("json", "png", "html"))
    write_json(json_file, {"network": data.subtitle, "machine": data.machine, **cost.to_json()})
    write_bytes(png_file, to_png(time_figure(cost)))
    write_time_page(html_file, data)
    logger.log(RESULT, "%s; %s\n\n%s", data.subtitle, data.machine, time_text(data))
    logger.log(RESULT, "time: %d layers -> %s, %s, %s", len(cost.layers), json_file, png_file, html_file)


def clock_of(device: torch.device) -> Clock:
    """Return a clock in seconds. On CUDA it waits until the queued work is done."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock
