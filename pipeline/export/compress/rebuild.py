"""A model rebuilt from its graph, with layers exchanged, dropped or inserted and the weights carried over."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.errors import UserError
from pipeline.export.compress.graph import Graph, Node, Tensor
from pipeline.models.weights import derive

Replace = Callable[[keras.Operation], keras.Operation | None]
Insert = Callable[[Node, int, Any], Any]
Weights = Mapping[keras.Operation, Sequence[np.ndarray]]


def rebuild(
    graph: Graph,
    *,
    replace: Replace | None = None,
    drop: Collection[Node] = (),
    before: Insert | None = None,
    after: Insert | None = None,
    weights: Weights | None = None,
) -> keras.Model:
    """Build a new, uncompiled model with layers of its own; without options it is an equal copy.

    Names, dtype policies, regularisers, trainable flags and weights are kept, and the nesting of inputs and outputs.

    Args:
        graph: where the model is read from.
        replace: gives the new, unbuilt layer for one of the graph, called once per layer; None to copy it as it is.
            `copy(layer, filters=8)` makes a changed copy; a keras.Sequential stands for several layers.
        drop: nodes to leave out: others see their first input instead.
        before: `before(node, index, tensor)` gives what `node` takes as `node.inputs[index]`; return `tensor` for no
            change. It may call layers on the tensor.
        after: `after(node, index, tensor)` gives what others see as `node.outputs[index]`, for inputs of the model too.
        weights: arrays for the new layer in the order of its `weights`, by the layer of the graph. A layer that is
            not named here gets from its original the variables that have the same name and shape.
    """
    return _Builder(graph, replace, set(drop), before, after).model(weights or {})


def copy(layer: keras.Operation, **changes: Any) -> keras.Operation:
    """Return an unbuilt copy of a layer with some of its configuration changed, or of an operation's attributes."""
    if isinstance(layer, keras.layers.Layer):
        try:
            return type(layer).from_config({**layer.get_config(), **changes})
        except NotImplementedError:
            described = f"{layer.name!r} ({type(layer).__name__})"
            raise UserError(f"the layer {described} has no get_config; give it one so that it can be copied") from None
    # Not from_config: an operation cannot always say how it was made. And not copy.copy, which would save it.
    clone = object.__new__(type(layer))
    clone.__dict__.update(layer.__dict__, _inbound_nodes=[], _outbound_nodes=[], **changes)
    return clone


def copy_weights(old: keras.Operation, new: keras.Operation) -> None:
    """Copy every variable of a layer to the one of the same name and shape in its successor, random states too."""
    if not isinstance(old, keras.layers.Layer):
        return
    if type(old) is type(new):
        pairs = list(zip(old.variables, new.variables, strict=True))
    else:
        targets = {_path_inside(new, variable): variable for variable in new.variables}
        sources = {_path_inside(old, variable): variable for variable in old.variables}
        pairs = [(sources[path], targets[path]) for path in sources.keys() & targets.keys()]
    for source, target in pairs:
        if source.shape == target.shape:
            target.assign(source)
    derive(new)


class _Builder:
    """Calls the new layers in the order of the graph."""

    def __init__(
        self, graph: Graph, replace: Replace | None, drop: set[Node], before: Insert | None, after: Insert | None
    ) -> None:
        self._graph, self._replace, self._drop, self._before, self._after = graph, replace, drop, before, after
        self._made: dict[keras.Operation, keras.Operation] = {}
        self._values: dict[Tensor, Any] = {}

    def model(self, weights: Weights) -> keras.Model:
        graph = self._graph
        inputs = {node.outputs[0]: _input_like(node) for node in graph.nodes if node.is_input}
        for node in graph.nodes:
            results = [inputs[node.outputs[0]]] if node.is_input else self._results(node)
            for index, (tensor, result) in enumerate(zip(node.outputs, results, strict=True)):
                self._values[tensor] = self._after(node, index, result) if self._after else result
        model = keras.Model(
            keras.tree.map_structure(inputs.get, graph.inputs),
            keras.tree.map_structure(self._values.get, graph.outputs),
            name=graph.model.name,
        )
        if not graph.model.trainable:
            model.trainable = False
        for old, new in self._made.items():
            if old in weights:
                new.set_weights(weights[old])
            else:
                copy_weights(old, new)
        return model

    def _results(self, node: Node) -> list[Any]:
        if node in self._drop:
            return [self._values[node.inputs[0]]]
        places = iter(range(len(node.inputs)))

        def value(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            index, tensor = next(places), self._values[x]
            return self._before(node, index, tensor) if self._before else tensor

        args, kwargs = keras.tree.map_structure(value, (node.args, node.kwargs))
        return keras.tree.flatten(self._layer(node)(*args, **kwargs))

    def _layer(self, node: Node) -> keras.Operation:
        if node.layer not in self._made:
            new = self._replace(node.layer) if self._replace else None
            new = copy(node.layer) if new is None else new
            if new.name == node.layer.name:
                new.name = node.name  # another one where a model was inlined whose names were taken
            self._made[node.layer] = new
        return self._made[node.layer]


def _input_like(node: Node) -> Any:
    layer = node.layer
    return keras.Input(
        batch_shape=layer.batch_shape,
        dtype=layer.dtype,
        sparse=layer.sparse,
        name=node.name,
        optional=layer.optional,
    )


def _path_inside(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    return variable.path.rpartition(f"{layer.name}/")[2]
