"""A Caffe net as a PyTorch module.

Blob is Caffe's term for a named tensor in the net (a bottom or top of layers) and for a layer's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from detpipe.backbone.caffe.built import Built, Shape, check_activations, count
from detpipe.backbone.caffe.caffe_net_pb2 import FillerParameter, LayerParameter, NetParameter, ParamSpec
from detpipe.backbone.caffe.fillers import fill
from detpipe.backbone.caffe.inputs import input_shapes
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS
from detpipe.backbone.caffe.prototxt import unknown_layer
from detpipe.storage.caffe_blob import check_shape

MAX_LAYERS = 4000
MAX_PARAMETERS = 2**29
"""Largest number of parameters: 2 GiB in float32, over three times VGG-19. More is taken for an error or an attack."""


@dataclass(frozen=True)
class Step:
    """A layer in the order of execution. module: its key in `Net.layers`.

    cut: for each bottom, whether the gradient stops here (propagate_down: false). Parameters still get gradients.
    """

    layer: LayerParameter
    module: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    cut: tuple[bool, ...]


class Net(nn.Module):
    """A Caffe net.

    definition: the net, selected for a phase and in the newest format (see `upgrade`, `select_layers`). inputs: the
    shape of each input blob at build time. shapes: the shape of every blob. layers: the modules by layer name; letters
    that torch does not allow are replaced.
    """

    def __init__(
        self, definition: NetParameter, input_shape: Sequence[int] | None, generator: torch.Generator | None, where: str
    ) -> None:
        """Build the net and fill its parameters. Raises ValueError, which begins with `where` and names the layer."""
        super().__init__()
        if len(definition.layer) > MAX_LAYERS:
            raise ValueError(f"{where}: expected at most {MAX_LAYERS} layers, got {len(definition.layer)}")
        for layer in definition.layer:
            if layer.type not in BUILDERS and layer.type not in INPUTS:
                raise unknown_layer(layer.name, layer.type, where)
        self.definition = definition
        self.inputs: dict[str, Shape] = {}
        self.shapes: dict[str, Shape] = {}
        self.layers = nn.ModuleDict()
        self.steps: list[Step] = []
        fillers = {}
        activations = 0
        for layer in definition.layer:
            layer.ClearField("blobs")
            if layer.type in INPUTS:
                self._add_input(layer, None if self.inputs else input_shape, where)
            else:
                step, built = self._add_layer(layer, where)
                fillers[step.module] = built.fillers
            activations += sum(count(self.shapes[top]) for top in layer.top if top not in layer.bottom)
            self._check_activations(activations, layer, where)
        if not self.inputs:
            raise ValueError(f"{where}: expected a net with an input, got one without")
        self._fill(fillers, generator, where)
        self._share(where)

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The output blobs, which no layer uses as a bottom, by name, in the order of execution.

        inputs: in the order of `self.inputs`: images (N, C, H, W) float in Caffe's scale and channel order, then labels
        (N,), if the net has them. Without labels, layers that need them (losses, accuracies) are skipped. N = 0 gives
        empty blobs. Raises ValueError for no inputs or too many.
        """
        blobs = self._named(inputs)
        unused: dict[str, None] = {}
        for step in self._run(blobs, self.steps):
            for bottom in step.bottoms:
                unused.pop(bottom, None)
            unused.update(dict.fromkeys(step.tops))
        return {name: blobs[name] for name in unused}

    def named_blobs(self, names: Collection[str], *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The named blobs, after the last layer that writes each. Layers after the last of these do not run.

        inputs: as in `forward`. Raises ValueError for a name that no layer computes from these inputs.
        """
        last = max((i for i, step in enumerate(self.steps) if set(step.tops) & set(names)), default=-1)
        blobs = self._named(inputs)
        for _ in self._run(blobs, self.steps[: last + 1]):
            pass
        missing = [name for name in names if name not in blobs]
        if missing:
            raise ValueError(f"expected names of blobs such as {list(blobs)[-8:]}, got {missing}")
        return {name: blobs[name] for name in names}

    def loss(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The sum of the losses among the outputs, each times its loss_weight (1 by default).

        Raises ValueError if there is no loss, because the net has none, or because no labels were given.
        """
        losses = [
            weight * outputs[top]
            for step in self.steps
            for top, weight in zip(step.tops, _loss_weights(step.layer), strict=False)
            if weight and top in outputs
        ]
        if not losses:
            raise ValueError(f"expected an output with a loss, got {list(outputs)}; pass the labels too")
        return torch.stack([loss.sum() for loss in losses]).sum()

    def keep_only(self, names: Collection[str], end: int | None = None) -> None:
        """Remove all layers that the named blobs do not depend on, and all steps from `end` on.

        Raises ValueError for a name that is not a blob of the net.
        """
        unknown = [name for name in names if name not in self.shapes]
        if unknown:
            raise ValueError(f"expected blobs of the net, got {unknown}; it has {list(self.shapes)}")
        needed, kept = set(names), list[Step]()
        for step in reversed(self.steps[:end]):
            if needed & set(step.tops):
                kept.append(step)
                needed = needed - set(step.tops) | set(step.bottoms)
        self.steps = kept[::-1]
        used = {step.module for step in self.steps}
        for module in [name for name in self.layers if name not in used]:
            del self.layers[module]
        self.inputs = {name: shape for name, shape in self.inputs.items() if name in needed}

    def layer_blobs(self) -> dict[str, list[npt.NDArray[np.float32]]]:
        """Parameters and statistics by layer name, float32, in Caffe's order. Layers without any are omitted."""
        return {
            step.layer.name: [tensor.detach().cpu().numpy() for tensor in blobs]
            for step in self.steps
            if (blobs := list(blob_tensors(self.layers[step.module]).values()))
        }

    def multipliers(self) -> dict[str, tuple[float, float]]:
        """lr_mult and decay_mult of each parameter, by its name in `named_parameters`; 1 if not stated.

        For a shared parameter the first layer that states a value counts.
        """
        stated: dict[str, ParamSpec] = {}
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        for step in self.steps:
            for i, parameter in enumerate(self.layers[step.module].parameters(recurse=False)):
                found = stated.setdefault(names[id(parameter)], ParamSpec())
                spec = step.layer.param[i] if i < len(step.layer.param) else ParamSpec()
                for field in ("lr_mult", "decay_mult"):
                    if spec.HasField(field) and not found.HasField(field):
                        setattr(found, field, getattr(spec, field))
        return {name: (spec.lr_mult, spec.decay_mult) for name, spec in stated.items()}

    def graph_module(self) -> GraphModule:
        """The net as a torch.fx module with the same parameters; forward(*inputs) needs all inputs."""
        graph = Graph()
        nodes = {name: graph.placeholder(re.sub(r"\W", "_", name)) for name in self.inputs}
        unused: dict[str, None] = {}
        for step in self.steps:
            taken = [
                graph.call_method("detach", (nodes[bottom],)) if cut else nodes[bottom]
                for bottom, cut in zip(step.bottoms, step.cut, strict=True)
            ]
            result = graph.call_module(f"layers.{step.module}", tuple(taken))
            for bottom in step.bottoms:
                unused.pop(bottom, None)
            unused.update(dict.fromkeys(step.tops))
            many = len(step.tops) != 1 or step.layer.type in ("Slice", "Split")
            parts = [graph.call_function(getitem, (result, i)) for i in range(len(step.tops))] if many else [result]
            nodes.update(zip(step.tops, parts, strict=True))
        graph.output({name: nodes[name] for name in unused})
        return GraphModule(self, graph)

    @property
    def code(self) -> str:
        """The forward pass as Python code, one line per layer."""
        return str(self.graph_module().code)

    def _named(self, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        if not 1 <= len(inputs) <= len(self.inputs):
            raise ValueError(f"expected the inputs {self.inputs}, got {len(inputs)} inputs")
        return dict(zip(self.inputs, inputs, strict=False))

    def _run(self, blobs: dict[str, torch.Tensor], steps: Sequence[Step]) -> Iterator[Step]:
        """Run the layers whose bottoms exist, and add their tops to `blobs`. In-place layers overwrite their bottom."""
        for step in steps:
            if all(bottom in blobs for bottom in step.bottoms):
                taken = [
                    blobs[bottom].detach() if cut else blobs[bottom]
                    for bottom, cut in zip(step.bottoms, step.cut, strict=True)
                ]
                result = self.layers[step.module](*taken)
                blobs.update(zip(step.tops, result if isinstance(result, tuple) else (result,), strict=True))
                yield step

    def _add_input(self, layer: LayerParameter, given: Sequence[int] | None, where: str) -> None:
        try:
            shapes = input_shapes(layer, given)
            for top, shape in zip(layer.top, shapes, strict=True):
                check_shape(shape, f"top {top!r}")
                if top in self.shapes:
                    raise ValueError(f"expected tops with new names, got {top!r} again")
                self.inputs[top] = self.shapes[top] = shape
        except ValueError as error:
            raise ValueError(f"{where}: layer {layer.name!r} ({layer.type}): {error}") from error

    def _add_layer(self, layer: LayerParameter, where: str) -> tuple[Step, Built]:
        """Build a layer on the meta device, and compute the shapes of its tops."""
        try:
            missing = [bottom for bottom in layer.bottom if bottom not in self.shapes]
            if missing:
                raise ValueError(f"expected bottoms that are tops of earlier layers, got {missing}")
            if len(layer.propagate_down) not in (0, len(layer.bottom)):
                raise ValueError(
                    f"expected propagate_down for each of {len(layer.bottom)} bottoms, got {len(layer.propagate_down)}"
                )
            bottoms = [self.shapes[bottom] for bottom in layer.bottom]
            with torch.device("meta"):
                built = BUILDERS[layer.type](layer, bottoms)
            tops = _top_shapes(built.module, bottoms)
            again = [top for top in layer.top if top in self.shapes and top not in layer.bottom]
            if again or len(set(layer.top)) != len(layer.top):
                raise ValueError(f"expected tops with new names, or its bottoms, got {again or list(layer.top)} again")
            for top, shape in zip(layer.top, tops, strict=True):
                check_shape(shape, f"top {top!r}")
                self.shapes[top] = shape
        # torch raises these for inconsistent shapes; on the meta device nothing else can fail.
        except (ValueError, RuntimeError, IndexError, TypeError, OverflowError) as error:
            raise ValueError(f"{where}: layer {layer.name!r} ({layer.type}): {error}") from error
        name = _module_name(layer.name, self.layers)
        self.layers[name] = built.module
        cut = tuple(not down for down in layer.propagate_down) or (False,) * len(layer.bottom)
        step = Step(layer, name, tuple(layer.bottom), tuple(layer.top), cut)
        self.steps.append(step)
        return step, built

    def _check_activations(self, total: int, layer: LayerParameter, where: str) -> None:
        """Raise ValueError, which names the layer, if the blobs up to it have too many elements."""
        first = next(iter(self.inputs.values()), ())
        try:
            check_activations(total, first[0] if len(first) == 4 else 1, "blobs up to this layer")
        except ValueError as error:
            raise ValueError(f"{where}: layer {layer.name!r} ({layer.type}): {error}") from error

    def _fill(
        self, fillers: Mapping[str, Sequence[FillerParameter]], generator: torch.Generator | None, where: str
    ) -> None:
        total = sum(tensor.numel() for module in self.layers.values() for tensor in blob_tensors(module).values())
        if total > MAX_PARAMETERS:
            raise ValueError(f"{where}: expected at most {MAX_PARAMETERS} parameters, got {total}")
        for step in self.steps:
            module = self.layers[step.module].to_empty(device="cpu")
            for tensor, filler in zip(blob_tensors(module).values(), fillers[step.module], strict=True):
                try:
                    fill(tensor, filler, generator)
                except ValueError as error:
                    raise ValueError(f"{where}: layer {step.layer.name!r}: {error}") from error

    def _share(self, where: str) -> None:
        """Share parameters with the same name (param { name }): all layers use the first one."""
        owners: dict[str, tuple[str, torch.Tensor]] = {}
        for step in self.steps:
            module = self.layers[step.module]
            for spec, (attribute, tensor) in zip(step.layer.param, blob_tensors(module).items(), strict=False):
                if not spec.name:
                    continue
                owner, shared = owners.setdefault(spec.name, (step.layer.name, tensor))
                if shared.shape != tensor.shape:
                    raise ValueError(
                        f"{where}: {step.layer.name!r} shares {spec.name!r} with {owner!r}: expected "
                        f"{tuple(shared.shape)}, got {tuple(tensor.shape)} (PERMISSIVE sharing is not supported)"
                    )
                setattr(module, attribute, shared)


def blob_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """A layer's blobs by attribute name, in Caffe's order."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _top_shapes(module: nn.Module, bottoms: Sequence[Shape]) -> list[Shape]:
    for i, shape in enumerate(bottoms):
        check_shape(shape, f"bottom {i}")
    with torch.no_grad():
        result = module.eval()(*(torch.empty(shape, device="meta") for shape in bottoms))
    module.train()
    return [tuple(top.shape) for top in (result if isinstance(result, tuple) else (result,))]


def _module_name(name: str, taken: nn.ModuleDict) -> str:
    """A valid module name for the layer: not empty, without dots, and not an attribute of a module."""
    name = name.replace(".", "_") or "layer"
    while name in taken or hasattr(taken, name):
        name += "_"
    return name


def _loss_weights(layer: LayerParameter) -> list[float]:
    """The loss weight of each top: as stated, else 1 for the first top of a loss layer."""
    if layer.loss_weight:
        return list(layer.loss_weight)
    return [1.0] if layer.type.endswith("Loss") else []
