"""Batch normalisation folded into the layer before it, as converters do: the same function with fewer layers."""

from typing import Any

import keras
import numpy as np

from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.rebuild import copy, rebuild

# The kernel's output axes: those that the scale of one channel multiplies.
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_PLAIN = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
FOLDABLE = (*_SEPARABLE, *_DEPTHWISE, *_TRANSPOSED, *_PLAIN)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold each batch normalisation into the convolution or dense layer whose only reader it is.

    The layer gets a bias; the normalisation's node is gone. Left as it is: a normalisation before its convolution
    (DenseNet's), after a layer that is shared, has an activation, or is read by others too, and one that is always
    in training mode. In inference the answers are those of `model` to float32 rounding.
    """
    graph = Graph.of(model)
    folds = {before.layer: norm for norm in graph.nodes if (before := layer_to_fold_into(graph, norm))}

    def with_bias(layer: keras.Operation) -> keras.Operation | None:
        return copy(layer, use_bias=True) if layer in folds else None

    weights = {layer: folded_weights(layer, norm.layer) for layer, norm in folds.items()}
    return rebuild(graph, replace=with_bias, drop=list(folds.values()), weights=weights)


def folded_weights(layer: Any, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return the weights, bias last, that make `layer` do what layer and normalisation did.

    Computed in float64: gamma / sqrt(variance + epsilon) spans many magnitudes in trained depthwise layers.
    """
    scale, offset = scale_and_offset(norm)
    *kernels, last = (np.asarray(weight, np.float64) for weight in _kernels(layer))
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    return [*kernels, last * _along_outputs(layer, scale), bias * scale + offset]


def scale_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """Return what a normalisation multiplies each channel by at inference, and what it adds; float64."""
    gamma, beta = _parameter(norm.gamma, 1.0), _parameter(norm.beta, 0.0)
    scale = gamma / np.sqrt(_parameter(norm.moving_variance, 1.0) + norm.epsilon)
    return scale, beta - _parameter(norm.moving_mean, 0.0) * scale


def layer_to_fold_into(graph: Graph, norm: Node) -> Node | None:
    """Return the layer that takes a batch normalisation in, or None where it has to stay."""
    if not isinstance(norm.layer, keras.layers.BatchNormalization) or norm.kwargs.get("training"):
        return None
    (tensor,) = norm.inputs
    before = graph.producer(tensor)
    foldable = (
        type(before.layer) in FOLDABLE  # a subclass may do anything
        and getattr(before.layer, "data_format", "channels_last") == "channels_last"
        and before.layer.activation is keras.activations.linear
        and norm.layer.axis in (-1, len(tensor.shape) - 1)
        and graph.consumers(tensor) == [norm]
        and not graph.is_output(tensor)
        and len(graph.calls(before.layer)) == len(graph.calls(norm.layer)) == 1
    )
    return before if foldable else None


def _kernels(layer: Any) -> list[Any]:
    if isinstance(layer, _SEPARABLE):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]


def _along_outputs(layer: Any, scale: np.ndarray) -> np.ndarray:
    """Shape the scale of each output channel to multiply the last kernel."""
    if isinstance(layer, _DEPTHWISE):
        return scale.reshape(-1, layer.depth_multiplier)  # kernel: (..., C, multiplier)
    return scale[:, None] if isinstance(layer, _TRANSPOSED) else scale  # kernel: (..., out, in) or (..., in, out)


def _parameter(weight: Any, default: float) -> np.ndarray:
    return np.asarray(default if weight is None else weight, np.float64)
