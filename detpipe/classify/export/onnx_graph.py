"""A small builder of ONNX graphs: operators by name, arithmetic on values, traced parts of a network, and loops.

A detector's graph has two kinds of parts. Layers of the network are traced by PyTorch's exporter (`traced_part.py`).
What surrounds them (scaling, decoding, NMS, voting) has sizes that depend on the values of the inputs, which tracing
doesn't support, so it is written here operator by operator. Only operators of the standard domain are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 18
"""Version of the operators. Version 18 is in onnxruntime from 1.14 and in OpenVINO from 2023.0."""

IR_VERSION = 8
"""Version of the file format that belongs to the operators."""

Number = bool | int | float


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in a graph. dtype: of its elements; numbers in arithmetic get it."""

    graph: Graph
    name: str
    dtype: np.dtype[Any]

    def _two(self, kind: str, other: Value | Number, dtype: npt.DTypeLike | None = None) -> Value:
        return self.graph.op(kind, self, self.graph.value(other, self.dtype), dtype=dtype)

    def __add__(self, other: Value | Number) -> Value:
        return self._two("Add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._two("Sub", other)

    def __rsub__(self, other: Number) -> Value:
        return self.graph.value(other, self.dtype) - self

    def __mul__(self, other: Value | Number) -> Value:
        return self._two("Mul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        """Division. Of integers: rounded towards 0, which is their floor if they are not negative."""
        return self._two("Div", other)

    def __pow__(self, other: float) -> Value:
        return self._two("Pow", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._two("GreaterOrEqual", other, np.bool_)

    def __gt__(self, other: Value | Number) -> Value:
        return self._two("Greater", other, np.bool_)

    def __le__(self, other: Value | Number) -> Value:
        return self._two("LessOrEqual", other, np.bool_)

    def __lt__(self, other: Value | Number) -> Value:
        return self._two("Less", other, np.bool_)

    def equals(self, other: Value | Number) -> Value:
        """Element-wise comparison."""
        return self._two("Equal", other, np.bool_)

    def __and__(self, other: Value) -> Value:
        return self._two("And", other)

    def at_least(self, other: Value | Number) -> Value:
        """The larger one of each pair."""
        return self._two("Max", other)

    def at_most(self, other: Value | Number) -> Value:
        """The smaller one of each pair."""
        return self._two("Min", other)

    def to(self, dtype: npt.DTypeLike) -> Value:
        """With another type of elements."""
        target = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph.op("Cast", self, to=target, dtype=dtype)

    def reshape(self, *shape: Value | int) -> Value:
        """With another shape; -1: what remains."""
        return self.graph.op("Reshape", self, self.graph.shape(*shape))

    def unsqueeze(self, *axes: int) -> Value:
        """With axes of length 1 at these places of the result."""
        return self.graph.op("Unsqueeze", self, self.graph.value(list(axes), np.int64))

    def squeeze(self, *axes: int) -> Value:
        """Without these axes of length 1."""
        return self.graph.op("Squeeze", self, self.graph.value(list(axes), np.int64))

    def transpose(self, *axes: int) -> Value:
        """With its axes in this order."""
        return self.graph.op("Transpose", self, perm=list(axes))

    def size(self, axis: int) -> Value:
        """The length of an axis, int64, a scalar."""
        return self.graph.op("Shape", self, start=axis, end=axis + 1, dtype=np.int64).squeeze(0)

    def take(self, indices: Value | Sequence[int] | int, axis: int = 0) -> Value:
        """The elements at these indices of an axis."""
        return self.graph.op("Gather", self, self.graph.value(indices, np.int64), axis=axis)

    def part(self, start: Value | int, end: Value | int, axis: int, step: int = 1) -> Value:
        """The elements from start to end of an axis, as a slice in Python."""
        whole = self.graph
        return whole.op(
            "Slice", self, whole.shape(start), whole.shape(end), whole.value([axis], np.int64), whole.shape(step)
        )

    def total(self, *axes: int) -> Value:
        """The sum over axes, which stay with length 1."""
        return self.graph.op("ReduceSum", self, self.graph.value(list(axes), np.int64))

    def maximum(self, axis: int) -> Value:
        """The maximum over an axis, which stays with length 1."""
        return self.graph.op("ReduceMax", self, self.graph.value([axis], np.int64))

    def where(self) -> Value:
        """The indices of the true elements of a vector, int64."""
        return self.graph.op("NonZero", self, dtype=np.int64).squeeze(0)


class Graph:
    """A graph that is being built. outer: the graph around the body of a loop, whose values the body may use."""

    def __init__(self, outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._counter: list[int] = outer._counter if outer is not None else [0]
        self._constants: dict[tuple[object, ...], str] = {}

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str | None]) -> Value:
        """An input. shape: a number is fixed, a name is any length."""
        self.inputs.append(helper.make_tensor_value_info(name, _code(dtype), shape))
        return Value(self, name, np.dtype(dtype))

    def output(self, value: Value, name: str, shape: Sequence[int | str | None] | None) -> None:
        """Make a value an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, _code(value.dtype), shape))

    def op(self, kind: str, *inputs: Value, dtype: npt.DTypeLike | None = None, **attributes: Any) -> Value:
        """The first result of an operator. dtype: of the result; None: as the first input."""
        return self.ops(kind, *inputs, dtypes=[dtype], **attributes)[0]

    def ops(self, kind: str, *inputs: Value, dtypes: Sequence[npt.DTypeLike | None], **attributes: Any) -> list[Value]:
        """The results of an operator, one per dtype."""
        names = [self.fresh(kind) for _ in dtypes]
        self.nodes.append(helper.make_node(kind, [one.name for one in inputs], names, names[0], **attributes))
        types = [inputs[0].dtype if one is None else np.dtype(one) for one in dtypes]
        return [Value(self, name, one) for name, one in zip(names, types, strict=True)]

    def fresh(self, kind: str) -> str:
        """A new name."""
        self._counter[0] += 1
        return f"{kind}_{self._counter[0]}"

    def use(self, outer: Value) -> Value:
        """A value of the graph around this one, to compute with it here."""
        return Value(self, outer.name, outer.dtype)

    def value(self, content: Value | npt.ArrayLike, dtype: npt.DTypeLike) -> Value:
        """A constant; a value as it is. Equal constants are stored once."""
        if isinstance(content, Value):
            return content
        array = np.asarray(content, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh("constant")
            self.weights[name] = numpy_helper.from_array(array, name)
            self._constants[key] = name
        return Value(self, self._constants[key], array.dtype)

    def shape(self, *lengths: Value | int) -> Value:
        """A vector of lengths, int64, from numbers and scalars."""
        if all(isinstance(one, int) for one in lengths):
            return self.value(lengths, np.int64)  # type: ignore[arg-type]
        parts = [one.reshape(1) if isinstance(one, Value) else self.value([one], np.int64) for one in lengths]
        return parts[0] if len(parts) == 1 else self.concat(parts, axis=0)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Joined along an axis."""
        return self.op("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]

    def where(self, condition: Value, chosen: Value, other: Value | Number) -> Value:
        """`chosen` where the condition holds, else `other`."""
        return self.op("Where", condition, chosen, self.value(other, chosen.dtype), dtype=chosen.dtype)

    def range(self, count: Value | int) -> Value:
        """0, 1, ... count - 1, int64."""
        zero, one = self.value(0, np.int64), self.value(1, np.int64)
        return self.op("Range", zero, self.value(count, np.int64), one, dtype=np.int64)

    def matmul(self, a: Value, b: Value) -> Value:
        """The matrix product."""
        return self.op("MatMul", a, b)

    def call(self, part: onnx.ModelProto, inputs: Sequence[Value], name: str) -> list[Value]:
        """Insert a part: a model with as many inputs. Called again with the same name, it shares the weights."""
        given = {info.name: one.name for info, one in zip(part.graph.input, inputs, strict=True)}
        for weight in part.graph.initializer:
            given[weight.name] = f"{name}/{weight.name}"
            if given[weight.name] not in self.weights:
                stored = onnx.TensorProto()
                stored.CopyFrom(weight)
                stored.name = given[weight.name]
                self.weights[stored.name] = stored
        place = self.fresh(name)
        for node in part.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{place}/{node.name}"
            del copy.input[:], copy.output[:]
            copy.input.extend(given.get(one, one) for one in node.input)
            for one in node.output:
                given[one] = f"{place}/{one}" if one else ""
            copy.output.extend(given[one] for one in node.output)
            self.nodes.append(copy)
        return [
            Value(self, given[info.name], helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
            for info in part.graph.output
        ]

    def loop(self, count: Value, body: Callable[[Graph, Value], Sequence[Value]]) -> list[Value]:
        """Run a body `count` times. Its results of all rounds are stacked along a new first axis.

        body: takes its own graph and the number of the round, int64, a scalar. It may use values of this graph.
        """
        inner = Graph(self)
        index = inner.input(inner.fresh("round"), np.int64, [])
        going = inner.input(inner.fresh("going"), np.bool_, [])
        results = body(inner, Value(inner, index.name, index.dtype))
        inner.output(going, inner.fresh("going_on"), [])
        for one in results:
            inner.output(one, inner.fresh("result"), None)
        names = [self.fresh("Loop") for _ in results]
        yes = self.value(True, np.bool_)
        node = helper.make_node("Loop", [count.name, yes.name], names, names[0], body=inner.proto("body"))
        self.nodes.append(node)
        return [Value(self, name, one.dtype) for name, one in zip(names, results, strict=True)]

    def proto(self, name: str) -> onnx.GraphProto:
        """The graph as ONNX stores it."""
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.weights.values()))

    def model(self, description: Mapping[str, str]) -> onnx.ModelProto:
        """The whole model. description: entries of its metadata."""
        model = helper.make_model(
            self.proto("detector"),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="detpipe",
        )
        helper.set_model_props(model, dict(description))
        return model


def _code(dtype: npt.DTypeLike) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
