"""How much of the image each unit of a layer can see: the theoretical receptive field, from the graph alone.

The arithmetic of Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks", Distill,
carried through whole graphs, forwards. Fields count the pixels of the padding too, so a field can exceed its image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from pipeline.models.inspect.calls import calls, functional
from pipeline.models.layers import DropBlock2D, GeneralizedMeanPooling2D, ShakeShake, StochasticPooling2D
from pipeline.ops.reference.windows import Windows, pair


@dataclass(frozen=True)
class Field:
    """What units of one tensor see, in pixels of the image, as (rows, columns).

    Unit (i, j) sees `size` pixels around `centre` + `stride` * (i, j); the first pixel of the image is at 0. `folded`:
    the rows and columns that lie in one axis for now, as in a channel shuffle.
    """

    size: tuple[float, float] = (1.0, 1.0)
    stride: tuple[float, float] = (1.0, 1.0)
    centre: tuple[float, float] = (0.0, 0.0)
    folded: tuple[int, int] | None = None

    def grown(self, extent: Sequence[float], step: Sequence[float], shift: Sequence[float]) -> "Field":
        """Return the field of units that see `extent` units of this one, `step` apart, the first centred at `shift`."""
        return Field(
            tuple(r + (e - 1) * s for r, e, s in zip(self.size, extent, self.stride, strict=True)),
            tuple(s * k for s, k in zip(self.stride, step, strict=True)),
            tuple(c + s * m for c, s, m in zip(self.centre, self.stride, shift, strict=True)),
        )

    def edges(self) -> list[tuple[float, float]]:
        """Return the centres of the first and last pixel that unit (0, 0) sees, for rows and for columns."""
        return [(c - (r - 1) / 2, c + (r - 1) / 2) for c, r in zip(self.centre, self.size, strict=True)]


def receptive_fields(model: keras.Model) -> dict[str, Field | None]:
    """Return the receptive field of each layer's output, by name, of a functional model with one image input.

    Branches that meet are seen together: the field is the smallest that holds all of theirs. What is computed from the
    whole map (global pooling, a gate, the statistics of a group norm) sees the whole map. None stands for what has no
    place in the image or is not known, such as attention over tokens, and for everything computed from it. Of a layer
    that is called several times the last call counts; a model inside the model is one layer.
    """
    named: dict[str, Field | None] = {}
    _walk(model, [Field()], named)
    return named


def _walk(model: keras.Model, given: list[Field | None], named: dict[str, Field | None]) -> list[Field | None]:
    model = functional(model)
    fields = {id(tensor): field for tensor, field in zip(model.inputs, given, strict=True)}
    for node in calls(model):
        seen = [fields[id(tensor)] for tensor in node.input_tensors]
        if isinstance(node.operation, keras.Model):
            found = _walk(node.operation, seen, {})
        elif node.is_input:
            found = [fields[id(tensor)] for tensor in node.output_tensors]
        else:
            found = [_through(node, seen)] * len(node.output_tensors)
        named[node.operation.name] = found[0]
        fields |= {id(tensor): field for tensor, field in zip(node.output_tensors, found, strict=True)}
    return [fields[id(tensor)] for tensor in model.outputs]


def _through(node: Any, seen: list[Field | None]) -> Field | None:
    """Return the field behind one call."""
    places = [_place(tensor) for tensor in node.input_tensors]
    after, layer = _place(node.output_tensors[0]), node.operation
    if not seen or None in (*seen, *places, after):
        return None
    if any(field.folded for field in seen) and not isinstance(layer, _L.Reshape | _L.Permute):
        return None
    if isinstance(layer, _L.Concatenate) and set(places) == {(1, 1)} != {after}:
        # Summaries of one map, laid side by side: wherever one looks, all of it is seen.
        return replace(_together(seen, places, (1, 1)), stride=(0.0, 0.0))
    for kinds, rule in _RULES:
        if isinstance(layer, kinds):
            return rule(layer, seen[0], places[0], after)
    if isinstance(layer, keras.layers.Layer):
        pointwise = isinstance(layer, _POINTWISE) and _along_channels(layer, node.input_tensors[0])
    else:
        if type(layer).__name__ in _REDUCTIONS and after == (1, 1):
            return _pooled(layer, seen[0], places[0], after)
        pointwise = type(layer).__name__ in _OPERATIONS
    return _together(seen, places, after) if pointwise else None


def _place(tensor: Any) -> tuple[int, int] | None:
    """Return the rows and columns of a tensor: features without place count as one pixel, tokens have none."""
    if len(tensor.shape) == 2:
        return 1, 1
    place = tuple(tensor.shape[1:3])
    return place if len(tensor.shape) > 3 and None not in place else None


def _along_channels(layer: Any, tensor: Any) -> bool:
    """Say whether a layer with an `axis`, such as a norm or a concatenation, leaves rows and columns alone."""
    axis = getattr(layer, "axis", -1)
    axes = [axis] if isinstance(axis, int) else axis or []
    return all(one % len(tensor.shape) not in (1, 2) or len(tensor.shape) == 2 for one in axes)


def _together(seen: list[Field], places: list[tuple[int, int]], after: tuple[int, int]) -> Field | None:
    """Hold all branches in one field; one that is broadcast over the map, such as a gate, only adds its size."""
    whole = [field for field, place in zip(seen, places, strict=True) if place == after]
    if not whole:
        return None
    largest = max(whole, key=lambda field: math.prod(field.size))
    edges = [field.edges() for field in whole if field.stride == largest.stride]
    low, high = ([pick(edge[axis][side] for edge in edges) for axis in (0, 1)] for side, pick in ((0, min), (1, max)))
    size = [max(high[axis] - low[axis] + 1, *(field.size[axis] for field in seen)) for axis in (0, 1)]
    return Field(tuple(size), largest.stride, tuple((a + b) / 2 for a, b in zip(low, high, strict=True)))


def _window(layer: Any, field: Field, before: Any, after: Any) -> Field:
    size = pair(getattr(layer, "kernel_size", None) or layer.pool_size)
    dilation, padding = pair(getattr(layer, "dilation_rate", 1)), getattr(layer, "padding", "valid")
    stride = pair(layer.strides)
    windows = Windows.over(before, size, stride=stride, padding=padding, dilation=dilation)
    span = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    return field.grown(span, stride, [(n - 1) / 2 - p for n, p in zip(span, windows.before, strict=True)])


def _transposed(layer: Any, field: Field, before: Any, after: Any) -> Field:
    """Look back from each pixel to the units whose windows hold it: the most there are, and their mean place."""
    extent, shift = [], []
    for k, s in zip(layer.kernel_size, layer.strides, strict=True):
        cut = max(k - s, 0) // 2 if layer.padding == "same" else 0
        reached = [(-(-(v + cut - k + 1) // s), (v + cut) // s) for v in range(s)]
        reached = [(first, last, v) for v, (first, last) in enumerate(reached) if first <= last]
        extent.append(max(last - first + 1 for first, last, _ in reached))
        shift.append(sum((first + last) / 2 - v / s for first, last, v in reached) / len(reached))
    return field.grown(extent, [1 / s for s in layer.strides], shift)


def _resized(layer: Any, field: Field, before: Any, after: Any) -> Field:
    ratio = [n / m for n, m in zip(before, after, strict=True)]
    taps = {"nearest": 1, "bilinear": 2, "bicubic": 4}[layer.interpolation]
    return field.grown([taps if r != 1 else 1 for r in ratio], ratio, [(r - 1) / 2 for r in ratio])


def _adaptive(layer: Any, field: Field, before: Any, after: Any) -> Field:
    ratio = [n / m for n, m in zip(before, after, strict=True)]
    longest = [max(-(-(i + 1) * n // m) - i * n // m for i in range(m)) for n, m in zip(before, after, strict=True)]
    return field.grown(longest, ratio, [(r - 1) / 2 for r in ratio])


def _pooled(layer: Any, field: Field, before: Any, after: Any) -> Field:
    return field.grown(before, before, [(n - 1) / 2 for n in before])


def _statistics(layer: Any, field: Field, before: Any, after: Any) -> Field:
    return field.grown(before, (1, 1), (0, 0))


def _padded(layer: Any, field: Field, before: Any, after: Any) -> Field:
    return field.grown((1, 1), (1, 1), [-first for first, _ in layer.padding])


def _cropped(layer: Any, field: Field, before: Any, after: Any) -> Field:
    return field.grown((1, 1), (1, 1), [first for first, _ in layer.cropping])


def _reshaped(layer: Any, field: Field, before: Any, after: Any) -> Field | None:
    if field.folded:
        return replace(field, folded=None) if after == field.folded else None
    if after == before or before == (1, 1):
        return field
    if after[0] == math.prod(before):
        return replace(field, folded=before)
    return _pooled(layer, field, before, after) if after == (1, 1) else None


def _permuted(layer: Any, field: Field, before: Any, after: Any) -> Field | None:
    kept = 1 if field.folded else 2
    return field if tuple(layer.dims[:kept]) == (1, 2)[:kept] else None


_L = keras.layers
_Rule = Callable[[Any, Field, Any, Any], Field | None]
_RULES: tuple[tuple[tuple[type, ...], _Rule], ...] = (
    ((_L.Conv2DTranspose,), _transposed),
    ((_L.Conv2D, _L.DepthwiseConv2D, _L.SeparableConv2D), _window),
    ((_L.MaxPooling2D, _L.AveragePooling2D, StochasticPooling2D), _window),
    ((_L.GlobalAveragePooling2D, _L.GlobalMaxPooling2D, GeneralizedMeanPooling2D), _pooled),
    ((_L.AdaptiveAveragePooling2D, _L.AdaptiveMaxPooling2D), _adaptive),
    ((_L.UpSampling2D, _L.Resizing), _resized),
    ((_L.ZeroPadding2D,), _padded),
    ((_L.Cropping2D,), _cropped),
    ((_L.GroupNormalization,), _statistics),
    ((_L.Reshape, _L.Flatten), _reshaped),
    ((_L.Permute,), _permuted),
)
_POINTWISE = (
    *(_L.Activation, _L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU, _L.Softmax, _L.Dense, _L.Rescaling, _L.Normalization),
    *(_L.BatchNormalization, _L.LayerNormalization, _L.RMSNormalization, _L.Identity),
    *(_L.Dropout, _L.SpatialDropout2D, _L.GaussianNoise, _L.GaussianDropout, _L.AlphaDropout, DropBlock2D, ShakeShake),
    *(_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate),
)
# Calls of keras.ops, by the names of their classes; a slice or a split counts only where the map stays whole.
_REDUCTIONS = frozenset({"Mean", "Max", "Sum"})
_OPERATIONS = _REDUCTIONS | {
    *("Absolute", "Add", "Cast", "Clip", "Divide", "Exp", "Gelu", "GetItem", "HardSigmoid", "HardSilu", "Maximum"),
    *("Minimum", "Multiply", "Negative", "Power", "Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Split", "Sqrt"),
    *("Square", "Subtract", "Tanh"),
}
