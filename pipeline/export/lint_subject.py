"""A model as the lint looks at it: its graph, the finer graph of integer operations, and ways through them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np

from pipeline.export.compress.decompose import decompose
from pipeline.export.compress.graph import Graph, Node, Tensor
from pipeline.export.compress.quantization_rules import Role, role
from pipeline.export.compress.rebuild import rebuild
from pipeline.export.lint_ranges import Spread, measure_spreads

_PASSING = (Role.SAME_RANGE, Role.SAME_RANGE_ROUNDED, Role.NOTHING)


@dataclass(frozen=True)
class Subject:
    """A float model under the lint, as its graph, and as the finer graph of integer operations."""

    model: keras.Model
    images: np.ndarray | None = None

    @cached_property
    def graph(self) -> Graph:
        return Graph.of(self.model)

    @cached_property
    def finer(self) -> Graph:
        inside = Graph.of(decompose(self.graph, lambda layer: 8))
        return Graph.of(rebuild(inside))  # flat, so that each operation has an output to look at

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        return measure_spreads(self.finer, self.images)

    @property
    def is_hidden(self) -> bool:
        """Say whether Python code inside the model keeps its graph from being read."""
        return any(isinstance(layer, keras.layers.Lambda) for layer in inner_layers(self.model))

    def outputs(self) -> Iterator[Node]:
        """Yield what gives the outputs, behind layers that only move values."""
        for tensor in keras.tree.flatten(self.finer.outputs):
            yield from givers(self.finer, tensor)

    def own_name(self, node: Node) -> str:
        """Return the layer of the model that an operation is a part of."""
        names = {each.name for each in self.graph.nodes}
        start = node.name.rpartition("_")[0]
        return start if node.name not in names and start in names else node.name


def inner_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, and those of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from inner_layers(layer)


def chain_back(graph: Graph, tensor: Tensor) -> Iterator[Node]:
    """Yield the nodes before a tensor, nearest first, up to and with the first that changes values."""
    waiting = [graph.producer(tensor)]
    for node in waiting:
        yield node
        if role(node) in _PASSING:
            before = (graph.producer(given) for given in node.inputs)
            waiting += [each for each in before if each not in waiting]


def givers(graph: Graph, tensor: Tensor) -> list[Node]:
    """Return the nodes whose values a tensor has, behind those that only move values."""
    return [node for node in chain_back(graph, tensor) if role(node) not in _PASSING]


def reaches_a_kernel(graph: Graph, node: Node) -> bool:
    """Say whether a kernel reads what a node gives, unchanged."""
    return any(
        role(reader) is Role.WEIGHTED or (role(reader) in _PASSING and reaches_a_kernel(graph, reader))
        for reader in graph.consumers(node.outputs[0])
    )


def last_kernels(subject: Subject) -> Iterator[Node]:
    """Yield the kernels that no other kernel follows."""
    waiting, seen = [subject.finer.producer(x) for x in keras.tree.flatten(subject.finer.outputs)], set()
    for node in waiting:
        if role(node) is Role.WEIGHTED:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting += [subject.finer.producer(tensor) for tensor in node.inputs]
