"""CPU time of a training step of MultiBox and Fast R-CNN on shared maps, part by part.

    python benchmarks/joint_step.py [--precision bf16 float32] [--steps 20] [--size 512x384] [--classes 3]
        [--threads 1] [--training] [--operators] [key=value ...]

The network, its settings and its optimiser are set by experiment=multibox_fast_rcnn and by key=value, with images
of one size. The parts belong to the first pass; only the row of --training has the second one
(`head.refine_weight`). The images are drawn: coloured rectangles on noise. Rows are milliseconds of the process's CPU
time, medians over the steps after --warm-up. The backward pass runs part by part, from the losses to the backbone.
--training adds a row: a step of a training by the package itself, with its loading of images and its log, as a mean;
and it prints the losses of its first five steps, to compare two versions. --operators prints torch.profiler's table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_module
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from detpipe.backbone.create import map_strides
from detpipe.classify.crops.train import region_losses
from detpipe.classify.multibox_fast_rcnn.network import MultiBoxFastRcnnSpec, build_multibox_fast_rcnn
from detpipe.classify.multibox_fast_rcnn.train import (
    multiple,
    region_generators,
    sampled,
    train_multibox_fast_rcnn,
    views,
)
from detpipe.commands.run_settings import Run
from detpipe.config import register, to_command
from detpipe.heads.fast_rcnn.settings import MultiBoxFastRcnnConfig
from detpipe.heads.multibox.loss import Targets, multibox_loss
from detpipe.heads.multibox.network import pyramid_shapes
from detpipe.heads.multibox.priors import as_numbers
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnn
from detpipe.network.allocator import keep_freed_memory
from detpipe.network.annotated_batches import AnnotatedBatches, AnnotatedImage
from detpipe.network.device import autocast
from detpipe.network.scaled_image import mean_colour
from detpipe.network.train_network import RunContext, freeze
from detpipe.solver.parameter_groups import make_optimizer, parameter_groups
from detpipe.structures import GroundTruth

CPU = torch.device("cpu")
IMAGES, OBJECTS = 16, 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", choices=["bf16", "float32"], default=["bf16", "float32"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--size", default="512x384", help="width x height of the images, in the network")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--training", action="store_true", help="also a training by the package, and its losses")
    parser.add_argument("--operators", action="store_true", help="torch.profiler's table by operator")
    parser.add_argument("overrides", nargs="*", help="settings of the run, as head.refine_weight=0")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    width, height = map(int, options.size.split("x"))
    register()
    words = ["experiment=multibox_fast_rcnn", "dataset=voc", "dataset.root=.", f"head.scales=[{min(width, height)}]"]
    words += options.overrides
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        run: Run = to_command(compose("run", words), words)
    with tempfile.TemporaryDirectory() as folder:
        images = drawn(Path(folder), (height, width), options.classes)
        columns = {}
        for precision in options.precision:
            bf16 = precision == "bf16"
            step = Step(run, images, (height, width), options.classes, bf16)
            columns[precision] = step.parts(options.warm_up, options.steps, operators=options.operators)
            if options.training:
                columns[precision]["training"] = training(step, Path(folder), options.steps)
                print_losses(Path(folder) / "long" / "log.jsonl", precision)
    print(f"2 images of {options.size}, {options.threads} thread(s); ms of CPU time")
    print(f"{'part':<24}" + "".join(f"{name:>10}" for name in columns))
    for part in next(iter(columns.values())):
        print(f"{part:<24}" + "".join(f"{1000 * column[part]:>10.1f}" for column in columns.values()))


def drawn(folder: Path, size: tuple[int, int], classes: int) -> list[AnnotatedImage]:
    """JPEG files of a size (height, width), a quarter larger than the network's, each with OBJECTS rectangles."""
    generator = np.random.default_rng(0)
    height, width = (side * 5 // 4 for side in size)
    images = []
    for number in range(IMAGES):
        noise = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        boxes = np.zeros((OBJECTS, 4), dtype=np.float32)
        labels = generator.integers(1, classes + 1, OBJECTS)
        for box, label in zip(boxes, labels, strict=True):
            sides = np.exp(generator.uniform(np.log(40), np.log(min(height, width) * 0.7), 2))
            corner = generator.uniform(0, np.array([width, height]) - sides)
            box[:] = np.round(np.concatenate([corner, corner + sides]))
            x1, y1, x2, y2 = map(int, box)
            pixels[y1:y2, x1:x2] = np.random.default_rng(label).integers(0, 256, 3)
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), pixels)
        images.append(AnnotatedImage(path, GroundTruth.from_boxes(boxes, labels)))
    return images


class Step:
    """A network of the preset with its batches and optimiser, and one step of its training in parts."""

    def __init__(self, run: Run, images: list[AnnotatedImage], size: tuple[int, int], classes: int, bf16: bool) -> None:
        assert isinstance(run.head, MultiBoxFastRcnnConfig)
        self.run, self.head, self.images, self.bf16 = run, run.head, images, bf16
        boxes = np.concatenate([one.truth.boxes for one in images])
        shapes = pyramid_shapes(
            boxes * np.float32(0.8),
            np.tile(np.array(size, dtype=np.float32), (len(boxes), 1)),
            run.head.multibox,
            map_strides(run.backbone, run.head.maps),
            shorter=min(size),
            longest=run.head.max_side,
            seed=0,
        )
        self.spec = MultiBoxFastRcnnSpec(
            classes=tuple(f"class {number}" for number in range(classes)),
            category_ids=tuple(range(1, classes + 1)),
            backbone=run.backbone,
            head=run.head,
            shapes=as_numbers(shapes),
        )
        self.sampling = replace(run.sampling, regions_per_image=run.solver.batch_size // run.head.images_per_batch)

    def network(self) -> MultiBoxFastRcnn:
        """A new network with the pretrained backbone."""
        return build_multibox_fast_rcnn(self.spec, seed=0, pretrained=True)

    def parts(self, warm_up: int, steps: int, *, operators: bool) -> dict[str, float]:
        """Median seconds of CPU time of each part of a step, and of their sum."""
        network = self.network()
        network.to(memory_format=torch.channels_last)
        freeze(network.backbone, self.head, has_weights=False)
        network.backbone.use_fast_depthwise_backward()
        solver = self.run.solver
        groups = parameter_groups(
            network,
            new_modules=network.new_modules,
            new_lr_mult=solver.new_lr_mult,
            weight_decay=solver.weight_decay,
        )
        optimizer = make_optimizer(solver, groups)
        make_batch = AnnotatedBatches(
            self.images,
            views(self.head),
            batch_size=self.head.images_per_batch,
            multiple=multiple(network),
            fill=mean_colour(network.backbone.spec),
            seed=0,
        )
        network.train()
        clock = Clock()
        _, last_frozen = network.backbone.stages[self.head.freeze_stages - 1]
        last_frozen.register_forward_hook(lambda *_: clock.cut("backbone, frozen stages"))
        for number in range(warm_up + steps):
            optimizer.zero_grad(set_to_none=True)
            if operators and number == warm_up + steps - 1:
                with profile(activities=[ProfilerActivity.CPU]) as profiler:
                    self._step(network, optimizer, make_batch, number, clock)
                print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=60))
            else:
                self._step(network, optimizer, make_batch, number, clock)
        medians = {name: float(np.median(seconds[warm_up:])) for name, seconds in clock.seconds.items()}
        return {**medians, "sum": sum(medians.values())}

    def _step(
        self,
        network: MultiBoxFastRcnn,
        optimizer: torch.optim.Optimizer,
        make_batch: AnnotatedBatches,
        number: int,
        clock: Clock,
    ) -> None:
        clock.start()
        batch = make_batch(number)
        clock.cut("load images")
        with autocast(CPU, self.bf16):
            x = network.backbone.spec.to_input(torch.from_numpy(batch.images))
            clock.cut("input")
            raw = network.backbone.forward_maps(x, network.maps)
            clock.cut("backbone, trained stages")
            leaves = {name: one.detach().requires_grad_() for name, one in raw.items()}
            assert network.merge is not None
            merged = list(network.merge(leaves).values())
            clock.cut("neck")
            seen = [one.detach().requires_grad_() for one in merged]
            output = network.predict(seen, (batch.images.shape[1], batch.images.shape[2]))
            clock.cut("predictor")
            generators = region_generators(0, batch)
            with clock.inside("propose", network, "propose"):
                regions = sampled(network, output, batch, self.sampling, self.head.proposals, generators)
            clock.cut("sample regions")
            pooled = network.pool(seen, torch.from_numpy(regions.regions))
            clock.cut("pool")
            flat = pooled.detach().requires_grad_()
            logits, deltas = network.classify(flat)
        clock.cut("classify")
        losses = region_losses(network.box_regressor, logits, deltas, regions, self.head, CPU)
        clock.cut("region losses")
        targets = [Targets.of(*one, CPU) for one in zip(batch.truths, batch.weights, strict=True)]
        guess = output._replace(
            logits=output.logits.detach().requires_grad_(), deltas=output.deltas.detach().requires_grad_()
        )
        multibox = multibox_loss(guess, targets, self.head.multibox)["loss"]
        clock.cut("multibox loss")
        (self.head.multibox_weight * multibox).backward()
        clock.cut("multibox loss, backward")
        losses["loss"].backward()
        clock.cut("classify, backward")
        torch.autograd.backward(pooled, flat.grad)
        clock.cut("pool, backward")
        torch.autograd.backward([output.logits, output.deltas], gradients(guess.logits, guess.deltas))
        clock.cut("predictor, backward")
        torch.autograd.backward(merged, gradients(*seen))
        clock.cut("neck, backward")
        torch.autograd.backward(list(raw.values()), gradients(*leaves.values()))
        clock.cut("backbone, backward")
        optimizer.step()
        clock.cut("optimiser")


def gradients(*tensors: Tensor) -> list[Tensor]:
    """Their gradients; zeros where none came."""
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in tensors]


class Clock:
    """CPU time of the process, cut into named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._last = self._taken = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._last, self._taken = time.process_time(), 0.0

    def cut(self, name: str) -> None:
        """The time since the last cut, without parts inside it, belongs to `name`."""
        now = time.process_time()
        self.seconds[name].append(now - self._last - self._taken)
        self._last, self._taken = now, 0.0

    @contextmanager
    def inside(self, name: str, owner: object, method: str) -> Iterator[None]:
        """Count the calls of a method in the block as a part of their own."""
        plain, spent = getattr(owner, method), 0.0

        def timed(*arguments: object) -> object:
            nonlocal spent
            begun = time.process_time()
            result = plain(*arguments)
            spent += time.process_time() - begun
            return result

        object.__setattr__(owner, method, timed)
        try:
            yield
        finally:
            object.__delattr__(owner, method)
            self.seconds[name].append(spent)
            self._taken = spent


def training(step: Step, folder: Path, steps: int) -> float:
    """Seconds of CPU time of a step in the package's own training: the difference of a long and a short one."""
    seconds = {}
    for name, count in (("short", 5), ("long", 5 + steps)):
        solver = replace(step.run.solver, max_iter=count, min_epochs=0.0, snapshot=0, display=1)
        context = RunContext(solver=solver, folder=folder / name, key="", seed=0, device=CPU, bf16=step.bf16)
        network = step.network()
        begun = time.process_time()
        train_multibox_fast_rcnn(network, step.images, [], head=step.head, sampling=step.run.sampling, context=context)
        seconds[name] = time.process_time() - begun
    return (seconds["long"] - seconds["short"]) / steps


def print_losses(log: Path, precision: str) -> None:
    """The losses of the first five iterations."""
    for line in log.read_text().splitlines()[:5]:
        row = json.loads(line)
        names = ("loss", "class_loss", "box_loss", "confidence_loss", "location_loss")
        print(f"{precision} {row['iteration']}: " + ", ".join(f"{name} {row[name]:.6f}" for name in names))


if __name__ == "__main__":
    main()
