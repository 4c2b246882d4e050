"""The functional graph as nodes with shapes.

    graph = Graph.of(model)               # UserError names what cannot be handled
    for node in graph.nodes:              # in topological order
        node.layer, node.args, node.kwargs, node.inputs, node.outputs
    rebuild(graph, replace=..., drop=..., before=..., after=..., weights=...)      # see rebuild.py

Models inside the model are inlined: their layers become nodes of the outer graph, so that every stage sees through
them, and a layer shared by several calls stays shared. keras.ops calls (`x + y`, `keras.ops.reshape`) are nodes too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from pipeline.errors import UserError


@dataclass(frozen=True, eq=False)
class Tensor:
    """One value in the graph: what one call gives and others take; `shape` starts with the batch, None is open."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Node:
    """One call of a layer or of a keras.ops operation; an input of the model is a node without inputs.

    `args` and `kwargs` are those of the call, nested as they were, with a Tensor wherever a tensor was given.
    """

    name: str  # the layer's, made unique among inlined models; later calls of a shared layer end in @1, @2, ...
    layer: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return the tensors among the arguments, in the order that `keras.tree.flatten((args, kwargs))` has."""
        return tuple(x for x in keras.tree.flatten((self.args, self.kwargs)) if isinstance(x, Tensor))

    @property
    def scope(self) -> str:
        """Return the name as a scope of a TensorFlow graph can have it, which no @, and as Keras makes none."""
        return self.name.replace("@", ".")

    @property
    def is_input(self) -> bool:
        """Say whether this is an input of the model."""
        return isinstance(self.layer, keras.layers.InputLayer)


class Graph:
    """The nodes of a functional model in topological order, its nested inputs and outputs, and who reads what."""

    def __init__(self, model: keras.Model, nodes: Sequence[Node], inputs: Any, outputs: Any) -> None:
        """Take what `Graph.of` found; `inputs` and `outputs` are nested as the model's, with Tensors as leaves."""
        self.model, self.nodes, self.inputs, self.outputs = model, nodes, inputs, outputs
        self._producers = {tensor: node for node in nodes for tensor in node.outputs}
        self._consumers: dict[Tensor, list[Node]] = {tensor: [] for tensor in self._producers}
        self._calls: dict[keras.Operation, list[Node]] = {}
        for node in nodes:
            self._calls.setdefault(node.layer, []).append(node)
            for tensor in dict.fromkeys(node.inputs):
                self._consumers[tensor].append(node)

    @classmethod
    def of(cls, model: keras.Model) -> "Graph":
        """Read the graph of a functional or built sequential model.

        Raises:
            UserError: naming the model or layer that cannot be handled: a subclassed model, a Lambda layer, a layer
                that keeps state between calls, one that is already quantised, an operation that takes code.
        """
        return _Tracer().graph(model)

    def producer(self, tensor: Tensor) -> Node:
        """Return the node that gives a tensor."""
        return self._producers[tensor]

    def consumers(self, tensor: Tensor) -> list[Node]:
        """Return the nodes that take a tensor; being an output of the model does not count, see `is_output`."""
        return self._consumers[tensor]

    def is_output(self, tensor: Tensor) -> bool:
        """Say whether the model gives this tensor out."""
        return any(tensor is output for output in keras.tree.flatten(self.outputs))

    @property
    def layers(self) -> list[keras.Operation]:
        """Return every layer and operation once, in the order of their first calls."""
        return list(self._calls)

    def calls(self, layer: keras.Operation) -> list[Node]:
        """Return the nodes that call a layer: several where it is shared."""
        return self._calls[layer]


class _Tracer:
    """Walks a model and the models inside it, and gives each call its node."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._names: dict[keras.Operation, str] = {}
        self._calls: dict[keras.Operation, int] = {}

    def graph(self, given_model: keras.Model) -> Graph:
        model = _functional(given_model)
        values: dict[int, Tensor] = {}
        for given in model.inputs:
            layer = given._keras_history.operation
            values[id(given)] = self._add(layer, (), {}, [given], "")[0]
        outputs = self._walk(model, values, "")
        inputs = keras.tree.map_structure(lambda x: values[id(x)], model.input)
        return Graph(given_model, self._nodes, inputs, outputs)

    def _walk(self, model: Any, values: dict[int, Tensor], scope: str) -> Any:
        """Add the calls of a model, given what its inputs are, and return its outputs."""
        for call in _calls_in_order(model):
            args, kwargs = keras.tree.map_structure(
                lambda x: values[id(x)] if isinstance(x, keras.KerasTensor) else x,
                (call.arguments.args, call.arguments.kwargs),
            )
            layer = call.operation
            if isinstance(layer, keras.Model | keras.Function):
                inner = _functional(layer)
                given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Tensor)]
                inside = dict(zip(map(id, inner.inputs), given, strict=True))
                results = keras.tree.flatten(self._walk(inner, inside, layer.name))
            else:
                _refuse(call)
                results = self._add(layer, tuple(args), kwargs, call.outputs, scope)
            values.update(zip(map(id, call.outputs), results, strict=True))
        return keras.tree.map_structure(lambda x: values[id(x)], model._outputs_struct)

    def _add(self, layer: Any, args: tuple, kwargs: dict, outputs: list[Any], scope: str) -> tuple[Tensor, ...]:
        name = self._names.setdefault(layer, self._unique(layer.name, scope))
        count = self._calls[layer] = self._calls.get(layer, -1) + 1
        tensors = tuple(Tensor(tuple(x.shape), x.dtype) for x in outputs)
        self._nodes.append(Node(f"{name}@{count}" if count else name, layer, args, kwargs, tensors))
        return tensors

    def _unique(self, name: str, scope: str) -> str:
        taken = set(self._names.values())
        wanted = name if name not in taken or not scope else f"{scope}_{name}"
        candidates = (f"{wanted}_{i}" if i else wanted for i in range(len(taken) + 1))
        return next(candidate for candidate in candidates if candidate not in taken)


def _calls_in_order(model: Any) -> Iterator[Any]:
    for _, calls in sorted(model._nodes_by_depth.items(), reverse=True):
        for call in calls:
            if not call.is_input:
                yield call


def _called(layer: keras.Operation) -> str:
    return f"{layer.name!r} ({type(layer).__name__})"


def _functional(model: Any) -> Any:
    """Return the functional model that a model is, or UserError."""
    if isinstance(model, keras.Sequential):
        if getattr(model, "_functional", None) is None:
            raise UserError(f"the model {model.name!r} is not built; give its input shape before compressing it")
        return model._functional
    plain = isinstance(model, keras.Function) and type(model).call.__qualname__ in ("Functional.call", "Function.call")
    if not plain:
        raise UserError(
            f"the model {_called(model)} is subclassed, so its graph cannot be read; build it with the functional API"
        )
    return model


def _refuse(call: Any) -> None:
    """Raise UserError for a call that cannot be repeated in another model or that a stage could not understand."""
    layer = call.operation
    if any(callable(x) for x in keras.tree.flatten((call.arguments.args, call.arguments.kwargs))):
        raise UserError(f"the operation {_called(layer)} takes Python code; write what it does as a layer")
    if isinstance(layer, keras.layers.Lambda):
        raise UserError(f"the layer {_called(layer)} holds Python code; replace it by a layer or a keras.ops call")
    if getattr(layer, "stateful", False):
        raise UserError(f"the layer {_called(layer)} keeps state between calls; build it with stateful=False")
    if getattr(layer, "quantization_mode", None):
        raise UserError(f"the layer {_called(layer)} is already quantised; compress the float model instead")
