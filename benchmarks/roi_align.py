"""RoIAlign of this package and torchvision's, forward and backward: milliseconds of CPU time in one thread.

    python benchmarks/roi_align.py [--repeats 15] [--channels 96]

Two images of 384x512 with 256 regions each, as in a training step, and one image of 384x512 with 1,000, as in
detection. The maps have strides 8, 16 and 32; regions have sides of 16 to 400 pixels, evenly in the logarithm, and a
region is pooled from the map for its size, to 7x7. torchvision's gets maps in float32 with contiguous channels, which
is its faster layout, each map once per call. The two take turns, so that another program's load falls on both alike.
The table has the fastest repeat of each, and the largest difference of the results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import roi_align

from detpipe.heads.fast_rcnn.roi_align import SAMPLES, align
from detpipe.heads.fast_rcnn.roi_pooling import level_of

STRIDES, HEIGHT, WIDTH, SIZE = (8, 16, 32), 384, 512, 7

Pool = Callable[[list[Tensor], Tensor, Tensor], Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--channels", type=int, default=96)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'regions':<16}{'maps':<10}{'pass':<10}{'torchvision':>12}{'own':>8}{'ratio':>8}{'difference':>12}")
    for images, each in ((2, 256), (1, 1000)):
        regions = regions_of(images, each)
        levels = level_of(regions[:, 1:], STRIDES)
        maps = maps_of(images, options.channels)
        plain = [one.contiguous() for one in maps]
        for name, own in (("float32", maps), ("bf16", [one.bfloat16() for one in maps])):
            peer = plain if name == "float32" else [one.bfloat16().float().contiguous() for one in maps]
            sides: list[tuple[Pool, list[Tensor]]] = [(torchvision_align, peer), (own_align, own)]
            seconds, results = in_turn(sides, regions, levels, options.repeats)
            for which, label in enumerate(("forward", "backward")):
                theirs, ours = 1000 * seconds[0][which], 1000 * seconds[1][which]
                difference = max(
                    float((a.float() - b.float()).abs().max()) for a, b in zip(*results[which], strict=True)
                )
                print(
                    f"{f'{images} x {each}':<16}{name:<10}{label:<10}{theirs:>12.2f}{ours:>8.2f}{theirs / ours:>8.1f}"
                    f"{difference:>12.1e}",
                    flush=True,
                )


def regions_of(images: int, each: int) -> Tensor:
    """Regions (R, 5) of all images, inside the image, in no order of size."""
    generator = torch.Generator().manual_seed(0)
    sides = 16 * 25 ** torch.rand((images * each, 2), generator=generator)
    sides = torch.minimum(sides, torch.tensor([WIDTH, HEIGHT]))
    corners = torch.rand((images * each, 2), generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    index = torch.arange(images).repeat_interleave(each).float()[:, None]
    return torch.cat([index, corners, corners + sides], dim=1)


def maps_of(images: int, channels: int) -> list[Tensor]:
    """Maps (N, C, H / stride, W / stride), float32, channels last."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(images, channels, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
    return [torch.randn(one, generator=generator).to(memory_format=torch.channels_last) for one in shapes]


def own_align(maps: list[Tensor], regions: Tensor, levels: Tensor) -> Tensor:
    """All maps in one call."""
    return align(maps, STRIDES, regions, levels, SIZE)


def torchvision_align(maps: list[Tensor], regions: Tensor, levels: Tensor) -> Tensor:
    """One call for each map."""
    pooled = torch.zeros((len(regions), maps[0].shape[1], SIZE, SIZE))
    for number, (one, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        rows = torch.nonzero(levels == number).squeeze(1)
        pooled = pooled.index_copy(0, rows, roi_align(one, regions[rows], SIZE, 1 / stride, SAMPLES, aligned=True))
    return pooled


def in_turn(
    sides: list[tuple[Pool, list[Tensor]]], regions: Tensor, levels: Tensor, repeats: int
) -> tuple[list[list[float]], list[list[list[Tensor]]]]:
    """Least seconds [side][pass], and the results [pass][side]: the pooled regions, and the gradients of the maps."""
    least = [[float("inf")] * 2 for _ in sides]
    forward: list[list[Tensor]] = [[] for _ in sides]
    backward: list[list[Tensor]] = [[] for _ in sides]
    upstream = torch.randn((len(regions), sides[0][1][0].shape[1], SIZE, SIZE)).bfloat16().float()
    for _ in range(repeats):
        for side, (pool, maps) in enumerate(sides):
            leaves = [one.detach().requires_grad_() for one in maps]
            begun = time.process_time()
            pooled = pool(leaves, regions, levels)
            middle = time.process_time()
            gradients = torch.autograd.grad(pooled, leaves, upstream.to(pooled.dtype))
            ended = time.process_time()
            least[side] = [min(least[side][0], middle - begun), min(least[side][1], ended - middle)]
            forward[side], backward[side] = [pooled.detach()], list(gradients)
    return least, [forward, backward]


if __name__ == "__main__":
    main()
