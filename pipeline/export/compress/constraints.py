"""Kernels that are held to something while they train, by Keras constraints, which act after every optimizer step.

The layers stay Keras's own, so that everything that trains, copies, quantises or saves a layer keeps its constraint:
gradient accumulation, mixed precision (the constraint acts on the float32 variable), `quantize_aware`, a .keras file.
"""

import base64
import difflib
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipeline.errors import UserError
from pipeline.export.compress.graph import Graph, Node, Tensor
from pipeline.export.compress.rebuild import copy, rebuild

layers = keras.layers

Tensors = Callable[[Node], tuple[Tensor, ...]]

_PLAIN = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense)
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a layer; `place` says where its layer is: "first" or "last" of those with kernels, or "inside"."""

    name: str  # the layer's, and for separable convolutions which of the two
    layer: keras.layers.Layer
    attribute: str
    option: str  # the layer's argument for a constraint on this kernel
    place: str

    @property
    def depthwise(self) -> bool:
        """Say whether each output channel reads one input channel only."""
        return self.option == "depthwise_constraint"

    @property
    def outputs_axis(self) -> int:
        """Return the axis of the output channels, counted from the end."""
        return -2 if isinstance(self.layer, _TRANSPOSED) else -1

    @property
    def values(self) -> np.ndarray:
        """Return the kernel's values."""
        return keras.ops.convert_to_numpy(getattr(self.layer, self.attribute))


def find_kernels(graph: Graph) -> list[Kernel]:
    """List the kernels of a model's convolution and dense layers, in the order of their first calls.

    Layers inside others (attention, wrappers) are not among them.
    """
    places = _places(graph)
    return [
        Kernel(graph.calls(layer)[0].name + suffix, layer, attribute, option, places[layer])
        for layer in graph.layers
        for suffix, attribute, option in _attributes(layer)
    ]


def named(kernels: Collection[Kernel], names: Collection[str]) -> list[Kernel]:
    """Return the kernels of these names, or UserError with the nearest name that there is."""
    known = {kernel.name: kernel for kernel in kernels}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise UserError(f"no layer {name!r} has a kernel; {hint}")
    return [known[name] for name in names]


def constrain(graph: Graph, chosen: Mapping[Kernel, keras.constraints.Constraint | None]) -> keras.Model:
    """Rebuild a model with these constraints on its kernels, which are made to obey them; None takes one off."""
    changes: dict[Any, dict[str, Any]] = {}
    for kernel, constraint in chosen.items():
        changes.setdefault(kernel.layer, {})[kernel.option] = constraint
    model = rebuild(graph, replace=lambda layer: copy(layer, **changes[layer]) if layer in changes else None)
    enforce(model)
    return model


def enforce(model: keras.Model) -> None:
    """Make every weight obey its constraint, as an optimizer step does: after weights were averaged or restored."""
    for variable in model.weights:
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable))


def constrained(model: keras.Model, kind: type) -> list[keras.Variable]:
    """List the weights under a constraint of this kind that training changes."""
    return [variable for variable in model.trainable_variables if isinstance(variable.constraint, kind)]


def strip_constraints(model: keras.Model, kind: type) -> keras.Model:
    """Return the model without its constraints of this kind, its weights as these leave them."""
    graph = Graph.of(model)
    held = [kernel for kernel in find_kernels(graph) if isinstance(getattr(kernel.layer, kernel.option), kind)]
    stripped = constrain(graph, dict.fromkeys(held))
    by_name = {kernel.name: kernel for kernel in find_kernels(Graph.of(stripped))}
    for kernel in held:
        constraint, new = getattr(kernel.layer, kernel.option), by_name[kernel.name]
        getattr(new.layer, new.attribute).assign(constraint(kernel.values))
    return stripped


def free(kernels: Collection[Kernel], allowed: tuple[type, ...]) -> None:
    """Raise UserError where a kernel has a constraint already that is none of `allowed`, which may be replaced."""
    for kernel in kernels:
        found = getattr(kernel.layer, kernel.option)
        if found is not None and not isinstance(found, allowed):
            raise UserError(
                f"the layer {kernel.name!r} has the constraint {type(found).__name__} on its kernel already; take that "
                "off, or name the layers to compress without it"
            )


def packed(array: np.ndarray) -> str:
    """Write an array of bits or small integers as text for a configuration."""
    content = np.packbits(array) if array.dtype == bool else array
    return base64.b64encode(zlib.compress(content.tobytes(), 9)).decode()


def unpacked(text: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Read what `packed` wrote."""
    content = zlib.decompress(base64.b64decode(text))
    if dtype is bool:
        return np.unpackbits(np.frombuffer(content, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


def _attributes(layer: Any) -> list[tuple[str, str, str]]:
    """Return (suffix of the name, attribute, constraint's argument) of each kernel of a layer."""
    if isinstance(layer, _SEPARABLE):
        return [(f"_{kind}", f"{kind}_kernel", f"{kind}_constraint") for kind in ("depthwise", "pointwise")]
    if isinstance(layer, _DEPTHWISE):
        return [("", "kernel", "depthwise_constraint")]
    return [("", "kernel", "kernel_constraint")] if isinstance(layer, _PLAIN + _TRANSPOSED) else []


def _places(graph: Graph) -> dict[Any, str]:
    """Say of each layer whether it is the first or the last one with a kernel on some path."""
    first = _ends(graph.nodes, lambda node: node.inputs, lambda node: node.outputs)
    last = _ends(graph.nodes[::-1], lambda node: node.outputs, lambda node: node.inputs)
    return {layer: "first" if layer in first else "last" if layer in last else "inside" for layer in graph.layers}


def _ends(nodes: Sequence[Node], given: Tensors, made: Tensors) -> set[Any]:
    """Return the layers with kernels that no such layer comes before, in this order of nodes."""
    behind: set[Tensor] = set()
    ends = set()
    for node in nodes:
        weighted, after = bool(_attributes(node.layer)), not behind.isdisjoint(given(node))
        if weighted and not after:
            ends.add(node.layer)
        if weighted or after:
            behind.update(made(node))
    return ends
