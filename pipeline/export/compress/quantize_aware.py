"""Quantization-aware training: a model that already rounds while it trains, and its way into an integer file.

aware = quantize_aware(model)            # the weights are the model's
calibrate(aware, batches)                # optional: ranges before the first step
...                                      # train it as any Keras model
convert_quantized(aware, decode)         # .tflite in int8, the same answers; or strip_quantization(aware)
"""

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras

from pipeline.errors import UserError
from pipeline.export.compress.decompose import decompose
from pipeline.export.compress.fake_quantize import QUANTIZED, FakeQuantize, QuantizedSilu
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.quantization_ranges import place
from pipeline.export.compress.quantization_rules import Role, role, taken_in
from pipeline.export.compress.rebuild import rebuild

log = logging.getLogger(__name__)

_WITH_KERNELS = (keras.layers.SeparableConv2D, *QUANTIZED)


def quantize_aware(
    model: keras.Model,
    *,
    weights: Literal[4, 8] = 8,
    per_layer: Mapping[str, int | None] | None = None,
    input_range: tuple[float, float] | None = (0.0, 255.0),
    momentum: float = 0.99,
) -> keras.Model:
    """Return a model with the same weights that rounds kernels and activations as an integer file will.

    Kernels: symmetric, per output channel (dense and transposed convolutions: one scale); depthwise and transposed
    ones always have 8 bits. Activations: 8 bits, one moving range per tensor, after batch norm and ReLU have been
    taken into the layer before. Layers without a rule compute in float, see `float_islands`.

    Args:
        model: a functional model; batch norms stay as they are and go on learning.
        weights: bits of the kernels.
        per_layer: other bits for layers by name, 4 or 8; None leaves the layer in float.
        input_range: of every input; None measures it. Only 0..255 makes integer pixels exact (scale 1).
        momentum: of the moving ranges, per step.

    Raises:
        UserError: the model is quantised already, its graph cannot be read, or `per_layer` names no such layer.
    """
    graph = Graph.of(model)
    if is_quantized(model):
        raise UserError(f"the model {model.name!r} is already quantised; give the float model")
    chosen = _checked(graph, per_layer or {})
    finer = Graph.of(decompose(graph, lambda layer: chosen.get(layer.name, weights)))
    places = place(finer, input_range, momentum)

    def rounded(node: Any, index: int, tensor: Any) -> Any:
        for layer, slot in places.get(node.outputs[index], ()):
            tensor = layer(tensor, slot=slot)
        return tensor

    aware = rebuild(finer, after=rounded)
    islands = float_islands(aware)
    if islands:
        log.info("%d layers have no integer rule and stay float: %s", len(islands), ", ".join(islands))
    return aware


def calibrated(model: keras.Model, bits: int, batches: Iterable[Any], *, wide_ends: bool = False) -> keras.Model:
    """Return a quantisation-aware model whose ranges are those of some batches of images.

    With `wide_ends` the first and the last kernel, which matter most, keep 8 bits (arXiv 1606.06160).
    """
    per_layer = {}
    if wide_ends:
        kernels = [layer.name for layer in Graph.of(model).layers if type(layer) in _WITH_KERNELS]
        per_layer = dict.fromkeys((kernels[0], kernels[-1]), 8)
    aware = quantize_aware(model, weights=bits, per_layer=per_layer)
    calibrate(aware, batches)
    return aware


def is_quantized(model: keras.Model) -> bool:
    """Say whether a model is one that `quantize_aware` made."""
    return any(isinstance(layer, FakeQuantize) for layer in model.layers)


def kernel_bits(model: keras.Model) -> int:
    """Return the fewest bits that a kernel of a quantisation-aware model has."""
    return min((layer.bits for layer in model.layers if hasattr(layer, "rounded_kernel")), default=8)


def calibrate(model: keras.Model, batches: Iterable[Any]) -> None:
    """Set the ranges of a quantisation-aware model from batches of images, without training anything."""
    places = [layer for layer in Graph.of(model).layers if isinstance(layer, FakeQuantize)]
    for layer in places:
        layer.observing = True
    try:
        for images in batches:
            model(images, training=False)
    finally:
        for layer in places:
            layer.observing = False


def float_islands(model: keras.Model) -> list[str]:
    """List the layers of a quantisation-aware model that compute in float, in the order of the graph."""
    graph = Graph.of(model)
    return [node.name for node in graph.nodes if role(node) is Role.FLOAT and not taken_in(graph, node)]


def strip_quantization(model: keras.Model) -> keras.Model:
    """Return the plain float model whose kernels are the rounded ones; the ranges of activations are gone.

    Quantising its float file with the recipe of the same bits finds the same kernels of convolutions and depthwise
    convolutions again, and new ranges from images. Separable convolutions stay apart, as do activations.
    """
    graph = Graph.of(model)
    plain = {rounded: kind for kind, rounded in QUANTIZED.items()}
    kernels = [layer for layer in graph.layers if type(layer) in plain]

    def stripped(layer: Any) -> keras.layers.Layer | None:
        if isinstance(layer, QuantizedSilu):
            return keras.layers.Activation("silu", name=layer.name)
        if type(layer) not in plain:
            return None
        config = layer.get_config()
        del config["bits"]
        return plain[type(layer)].from_config(config)

    return rebuild(
        graph,
        replace=stripped,
        drop=[node for node in graph.nodes if isinstance(node.layer, FakeQuantize)],
        weights={layer: [layer.rounded_kernel(), *([layer.bias] if layer.use_bias else [])] for layer in kernels},
    )


def _checked(graph: Graph, per_layer: Mapping[str, int | None]) -> Mapping[str, int | None]:
    known = [layer.name for layer in graph.layers if type(layer) in _WITH_KERNELS]
    for name, bits in per_layer.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"layers with weights: {', '.join(known)}"
            raise UserError(f"per_layer names {name!r}, which is no layer with weights; {hint}")
        if bits not in (None, 4, 8):
            raise UserError(f"per_layer gives {name!r} {bits} bits; choose 4, 8, or None for float")
    return per_layer
