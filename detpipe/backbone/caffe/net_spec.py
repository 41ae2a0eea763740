"""Writing Caffe nets in Python, and printing them as prototxt or as Python code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from detpipe.backbone.caffe.caffe_net_pb2 import LayerParameter, NetParameter
from detpipe.backbone.caffe.layers import BUILDERS, INPUTS
from detpipe.backbone.caffe.prototxt import parse_prototxt, to_prototxt, unknown_layer
from detpipe.backbone.caffe.upgrade import upgrade

SETTINGS_OF = {"Deconvolution": "convolution_param", "SoftmaxWithLoss": "softmax_param"}
"""Layers whose settings are not named after their type."""

Setting = object
"""A number, string or bool, a list of these, or a dict with a message's fields."""


class NetSpec:
    """A net to which each call adds a layer. Blobs are identified by name.

    definition: the net so far; `build_net` makes a module from it.
    """

    def __init__(self, name: str = "") -> None:
        self.definition = NetParameter(name=name)

    @classmethod
    def from_prototxt(cls, text: str, where: str = "prototxt") -> NetSpec:
        """The net of a prototxt, upgraded to Caffe's newest format. Raises as `parse_prototxt` and `upgrade`."""
        spec = cls()
        spec.definition = upgrade(parse_prototxt(text, where), where)
        return spec

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Add an input blob, (N, C, H, W) or (N,). Returns its name."""
        return self.add("Input", name=name, shape=[{"dim": list(shape)}])

    def add(self, kind: str, *bottoms: str, name: str, top: str | None = None, **settings: Setting) -> str:
        """Add a layer with one top. Returns the top's name.

        top: by default the layer's name; the name of the bottom for an in-place layer. settings: fields of the layer's
        own message (num_output=20) or of all layers (param, include, loss_param ...); enums by name, messages as dicts.
        Raises ValueError for an unknown type, setting or value.
        """
        return self.add_tops(kind, *bottoms, name=name, tops=[name if top is None else top], **settings)[0]

    def add_tops(
        self, kind: str, *bottoms: str, name: str, tops: Sequence[str], **settings: Setting
    ) -> tuple[str, ...]:
        """As `add`, for a layer with any number of tops. Returns their names."""
        if kind not in BUILDERS and kind not in INPUTS:
            raise unknown_layer(name, kind, "NetSpec")
        layer = LayerParameter(name=name, type=kind, bottom=bottoms, top=tops)
        own = own_settings(kind)
        for key, value in settings.items():
            message: Message = (
                layer if key in LayerParameter.DESCRIPTOR.fields_by_name else getattr(layer, own or "", layer)
            )
            _set(message, key, value, f"NetSpec: layer {name!r} ({kind})")
        self.definition.layer.append(layer)
        return tuple(tops)

    def prototxt(self) -> str:
        """The net as prototxt, which Caffe and `from_prototxt` can read."""
        return to_prototxt(self.definition)

    def python(self) -> str:
        """Python code that builds the same net, one call per layer."""
        lines = [f"net = NetSpec({self.definition.name!r})"]
        lines += [_call(layer) for layer in self.definition.layer]
        return "\n".join(lines) + "\n"


def own_settings(kind: str) -> str | None:
    """The field of LayerParameter with the settings of a type (InnerProduct: inner_product_param); None without."""
    if kind in SETTINGS_OF:
        return SETTINGS_OF[kind]
    names = LayerParameter.DESCRIPTOR.fields_by_name
    return next((name for name in names if name.replace("_", "") == f"{kind.lower()}param"), None)


def _set(message: Message, key: str, value: Setting, where: str) -> None:
    field = message.DESCRIPTOR.fields_by_name.get(key)
    if field is None:
        raise ValueError(f"{where}: expected a setting of {list(message.DESCRIPTOR.fields_by_name)}, got {key!r}")
    plain = list(value) if isinstance(value, tuple) else value
    # The default of a repeated field is an empty list. (The attribute `label` is deprecated in protobuf.)
    if isinstance(field.default_value, list) and not isinstance(plain, list):
        plain = [plain]
    try:
        json_format.ParseDict({key: plain}, message)
    except json_format.ParseError as error:
        raise ValueError(f"{where}: {error}") from error


def _call(layer: LayerParameter) -> str:
    """The call of net.add(...) or net.add_tops(...) that adds this layer."""
    fields = _plain(layer)
    own = own_settings(layer.type)
    settings: dict[str, Any] = {
        key: value for key, value in fields.items() if key not in ("name", "type", "bottom", "top", own)
    }
    settings |= fields.get(own or "", {})
    tops = list(layer.top)
    method = "add" if len(tops) == 1 else "add_tops"
    arguments = [repr(layer.type), *map(repr, layer.bottom), f"name={layer.name!r}"]
    if method == "add_tops":
        arguments.append(f"tops={tops!r}")
    elif tops != [layer.name]:
        arguments.append(f"top={tops[0]!r}")
    arguments += [f"{key}={value!r}" for key, value in settings.items()]
    return f"net.{method}({', '.join(arguments)})"


def _plain(message: Message) -> dict[str, Any]:
    """The message's fields as dicts, lists, numbers and strings. int64, strings in JSON, are converted to numbers."""
    found: Mapping[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {key: _numbers(key, value) for key, value in found.items()}


def _numbers(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(k, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(key, v) for v in value]
    return int(value) if key == "dim" else value
