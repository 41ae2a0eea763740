"""What makes a training step of EfficientNet-Lite0 fast on this machine: settings side by side, as ratios.

    python benchmarks/training_step.py [--batch 64] [--size 128] [--repeats 5] [--threads 1] [--keep-memory]
        [--only float32]

Each row is forward, backward and an SGD step of the backbone with a linear head; crops/s of the fastest repeat, and
the ratio to the first row. The rows take turns, so that another program's load falls on all of them alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from detpipe.backbone.create import create_backbone
from detpipe.backbone.settings import BackboneConfig
from detpipe.network.allocator import keep_freed_memory

CLASSES = 21


@dataclass(frozen=True)
class Setting:
    """One row: batch norm is frozen unless told otherwise."""

    name: str
    channels_last: bool = True
    bf16: bool = True
    fast_backward: bool = True
    stages: int = 0
    depthwise: bool = False
    batch_norm: bool = True
    folded: bool = True


SETTINGS = (
    Setting("float32", channels_last=False, bf16=False, fast_backward=False),
    Setting("float32, channels_last", bf16=False, fast_backward=False),
    Setting("float32, channels_last, fast backward", bf16=False),
    Setting("bf16, channels_last", fast_backward=False),
    Setting("bf16, channels_last, fast backward"),
    Setting("  + running batch norm", batch_norm=False),
    Setting("  + 1 frozen stage (stem)", stages=1),
    Setting("  + 3 frozen stages", stages=3),
    Setting("  + frozen depthwise kernels", depthwise=True),
    Setting("  + 3 frozen stages, frozen depthwise kernels", stages=3, depthwise=True),
    Setting("  + 3 frozen stages, batch norms not folded", stages=3, folded=False),
    Setting("float32, fast backward, 3 frozen stages", bf16=False, stages=3),
    Setting("float32, the same, batch norms not folded", bf16=False, stages=3, folded=False),
    Setting("bf16, 3 frozen stages, frozen depthwise kernels", fast_backward=False, stages=3, depthwise=True),
)


def make_step(setting: Setting, batch: int, size: int) -> Callable[[], None]:
    """One training step on noise, as a function to call again and again."""
    torch.manual_seed(0)
    backbone = create_backbone(BackboneConfig(weights="none", input_size=size))
    head = nn.Linear(backbone.feature_width, CLASSES)
    x = backbone.spec.to_input(torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8))
    labels = torch.randint(0, CLASSES, (batch,))
    if setting.channels_last:
        backbone.to(memory_format=torch.channels_last)
    else:
        x = x.contiguous()
    if setting.fast_backward:
        backbone.use_fast_depthwise_backward()
    backbone.freeze(setting.stages, setting.depthwise, setting.batch_norm)
    backbone.train()
    if not setting.folded:  # a norm that somebody watches is computed by itself
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda *_: None)
    parameters = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    # So small a rate leaves the weights, and with them the work, as they are.
    optimizer = torch.optim.SGD(parameters, lr=1e-9, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
            logits = head(backbone(x))
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="height and width of a crop")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory in the process (glibc)")
    parser.add_argument("--only", default="", help="the rows whose names have this text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    settings = [setting for setting in SETTINGS if arguments.only in setting.name]
    steps = {setting.name: make_step(setting, arguments.batch, arguments.size) for setting in settings}
    seconds = dict.fromkeys(steps, float("inf"))
    for step in steps.values():
        step()
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    first = next(iter(seconds.values()))
    print(f"batch {arguments.batch}, {arguments.size} px, {arguments.threads} thread(s)")
    for name, duration in seconds.items():
        print(f"{name:50s} {arguments.batch / duration:7.1f} crops/s {first / duration:6.2f} x")


if __name__ == "__main__":
    main()
