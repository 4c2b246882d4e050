"""Networks of other libraries, built anew on raw pixels, with their resolutions marked as stages."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from pipeline.models.inspect.calls import calls
from pipeline.models.pretrained import places
from pipeline.models.stages import mark


def on_pixels(
    theirs: keras.Model, inputs: Any, pixels: Any, scales: Mapping[keras.Operation, list[float]] | None = None
) -> Any:
    """Call copies of a network's layers on preprocessed pixels, and return its features, without the weights.

    The last tensor of each resolution is marked, names do not depend on what was built before, and all before the
    first kernel computes in float32.

    Args:
        theirs: a functional network with one input.
        inputs: of the new network: raw pixels.
        pixels: made of them, what the first layer takes.
        scales: a factor for each channel after some of their layers.
    """
    names = {layer: name for name, layer in places(theirs).items()}
    levels = {names[layer]: stride for stride, layer in _last_of_each_stride(theirs).items()}
    scaled = {names[layer]: scale for layer, scale in (scales or {}).items()}
    early = before_first_kernel(theirs)

    def rename(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config() | {"name": names[layer]}
        # bfloat16 would round the pixels before they are centred.
        return type(layer).from_config(config | ({"dtype": "float32"} if layer in early else {}))

    def call(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        y = layer(*(pixels if value is inputs else value for value in args), **kwargs)
        if layer.name in scaled:
            y = keras.layers.Rescaling(scaled[layer.name], dtype="float32", name=f"{layer.name}_scale")(y)
        return mark(y, levels[layer.name]) if layer.name in levels else y

    return keras.models.clone_model(theirs, inputs, clone_function=rename, call_function=call).output


def before_first_kernel(model: keras.Model) -> set[keras.Operation]:
    """Return what a network does to its pixels before it convolves them."""
    early = set()
    for call in calls(model):
        if hasattr(call.operation, "kernel") or isinstance(call.operation, keras.Model):
            break
        early.add(call.operation)
    return early


def _last_of_each_stride(model: keras.Model) -> dict[int, keras.Operation]:
    """Return the layer after which each resolution is done with, by the stride of its output.

    It is the last one that every path goes through, so that a U-Net gets all there is; where there is none, because
    cells look back past their neighbours (NASNet), the widest addition or concatenation, of equal ones the last.
    """
    early, order = before_first_kernel(model), list(calls(model))
    last_use = {id(tensor): index for index, call in enumerate(order) for tensor in call.input_tensors}
    strides: dict[int, int] = {}
    cuts: dict[int, keras.Operation] = {}
    joins: dict[int, keras.Operation] = {}
    open_until = 0
    for index, call in enumerate(order):
        layer, made = call.operation, call.output_tensors
        stride = _own_stride(call) * max((strides[id(x)] for x in call.input_tensors), default=1)
        strides |= {id(y): stride for y in made}
        # Padding is of no resolution: it belongs to the convolution after it. Nor are the parts of a map (CSPNet's).
        if len(made) == 1 and len(made[0].shape) == 4 and layer not in early and not _pads(layer):
            if open_until <= index:
                cuts[stride] = layer
            elif isinstance(layer, keras.layers.Add | keras.layers.Concatenate) and (
                stride not in joins or joins[stride].output.shape[-1] <= made[0].shape[-1]
            ):
                joins[stride] = layer
        open_until = max(open_until, *(last_use.get(id(y), index) for y in made))
    return joins | cuts


def _pads(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.layers.ZeroPadding2D) or type(operation).__name__ == "Pad"  # keras.ops.pad's


def _own_stride(call: Any) -> int:
    layer = call.operation
    if isinstance(layer, keras.Model):  # ConvNeXt's stem
        return round(call.input_tensors[0].shape[1] / call.output_tensors[0].shape[1])
    return np.max(getattr(layer, "strides", 1)).item()
