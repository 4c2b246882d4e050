"""What a model costs: its parameters and multiply-accumulates, in all and layer by layer."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from pipeline.models.inspect.calls import calls
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS


@dataclass(frozen=True)
class LayerCost:
    """One layer: its weights, trainable or not, and the multiply-accumulates of all its calls for one image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """One model at one input size. `parameters` counts every weight, `trainable` those that training changes."""

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    parameters: int
    trainable: int
    macs: int


_KERNEL_LAYERS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Dense,
)


def summary(name: str) -> Summary:
    """Build a registered model at its reference input and classes, which are its builder's defaults, and sum it up.

    No weight is given values: of a large network they would take most of the time and hundreds of megabytes.
    """
    with without_values():
        return summarize(MODELS.build(name))


def summarize(model: keras.Model) -> Summary:
    """Sum up a model that has one input and a fixed image size."""
    return Summary(
        name=model.name,
        input_shape=tuple(model.input.shape[1:]),
        classes=model.output.shape[-1],
        parameters=model.count_params(),
        trainable=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        macs=sum(cost.macs for cost in layer_costs(model)),
    )


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """Return the cost of each layer in graph order; a model inside the model is one row.

    Counted are the products of convolutions (depthwise and transposed too), dense layers and attention, as the papers
    do; not normalisation, which folds away, and not activations, pooling and additions. Raises TypeError for a layer
    with another kind of kernel.
    """
    found: dict[keras.Operation, list[Any]] = {}
    for node in calls(model):
        if isinstance(node.operation, keras.layers.Layer) or _is_product(node.operation):
            found.setdefault(node.operation, []).append(node)
    return [_cost(layer, nodes) for layer, nodes in found.items()]


def _cost(layer: keras.layers.Layer, nodes: list[Any]) -> LayerCost:
    macs = sum(_macs(layer, node) for node in nodes)
    shape = tuple(nodes[0].output_tensors[0].shape[1:])
    parameters = layer.count_params() if isinstance(layer, keras.layers.Layer) else 0
    return LayerCost(layer.name, type(layer).__name__, shape, parameters, macs)


def _macs(layer: keras.layers.Layer, node: Any) -> int:
    """Count one call: the kernel is applied at every position of the output, or of the input of a transposed one."""
    if isinstance(layer, keras.Model):
        return sum(cost.macs for cost in layer_costs(layer))
    if _is_product(layer):
        return node.input_tensors[0].shape[-1] * math.prod(node.output_tensors[0].shape[1:])
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return _attention_macs(layer, node)
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return kernels * math.prod(node.output_tensors[0].shape[1:-1])
    if not isinstance(layer, _KERNEL_LAYERS):
        # The slopes of a PReLU are no kernel, though they have the rank of a map.
        if any(len(weight.shape) > 1 for weight in layer.weights) and not isinstance(layer, keras.layers.PReLU):
            raise TypeError(f"the multiply-accumulates of {layer.name}, a {type(layer).__name__}, are not known")
        return 0
    transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    positions = (node.input_tensors if transposed else node.output_tensors)[0].shape[1:-1]
    return math.prod(layer.kernel.shape) * math.prod(positions)


def _is_product(operation: Any) -> bool:
    return not isinstance(operation, keras.layers.Layer) and type(operation).__name__ == "Matmul"


def _attention_macs(layer: keras.layers.MultiHeadAttention, node: Any) -> int:
    """Count the projections of queries, keys, values and answers, and the two products between places."""
    query, value, *key = node.input_tensors
    answers, places = (math.prod(tensor.shape[1:-1]) for tensor in (query, value))
    keys, values = layer.num_heads * layer.key_dim, layer.num_heads * layer.value_dim
    projections = answers * (query.shape[-1] * keys + node.output_tensors[0].shape[-1] * values)
    projections += places * ((key or [value])[0].shape[-1] * keys + value.shape[-1] * values)
    return projections + answers * places * (keys + values)
