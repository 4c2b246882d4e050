"""Which channels must go together, found from the graph.

Every channel that a layer makes is an atom with a number of its own. A tensor knows the atoms along its last axis:
activations and pooling hand them on, concatenation joins them, flattening repeats them. An addition ties the atoms
of its operands, one by one. Atoms that are tied form a *class*: it is kept or removed as a whole, wherever it appears.
Because every layer is cut by the atoms of its own inputs and outputs, what is left fits together by construction
(arXiv 2301.12900 calls this a dependency graph).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.export.compress.graph import Graph, Node, Tensor

Ids = np.ndarray  # of integers, one per channel of a tensor
Mask = np.ndarray  # of booleans, one per channel: kept or not


class Spaces:
    """What the rules write down while the graph is walked: new channels, ties between them, and channels to keep."""

    def __init__(self) -> None:
        """Start without channels."""
        self.count = 0
        self.blocks: dict[tuple[keras.Operation, str], Ids] = {}
        self.ties: list[tuple[Ids, Ids]] = []
        self.pins: list[tuple[Ids, str]] = []

    def anonymous(self, count: int, reason: str) -> Ids:
        """Return new channels that must stay, as no layer is known that could make fewer."""
        ids = np.arange(self.count, self.count + count)
        self.count += count
        self.pin(ids, reason)
        return ids

    def block(self, layer: keras.Operation, count: int, role: str = "outputs") -> Ids:
        """Return the channels that a layer makes, the same ones for every call of it."""
        if (layer, role) not in self.blocks:
            self.blocks[layer, role] = np.arange(self.count, self.count + count)
            self.count += count
        return self.blocks[layer, role]

    def tie(self, first: Ids, *others: Ids) -> None:
        """Make channel i of each stay or go together."""
        self.ties += [(first, other) for other in others]

    def tie_rows(self, rows: Ids) -> None:
        """Make the channels of each row (n, m) stay or go together."""
        self.ties += [(rows[:, 0], rows[:, i]) for i in range(1, rows.shape[1])]

    def pin(self, ids: Ids, reason: str) -> None:
        """Keep channels; `reason` says why, as the rest of a sentence that starts with their layer."""
        self.pins.append((ids, reason))


@dataclass(frozen=True)
class Rule:
    """What is known about one kind of layer or operation."""

    # (node, channels of its inputs, spaces) -> channels of its outputs; None where this call is not understood.
    spread: Callable[[Node, list[Ids], Spaces], list[Ids] | None]
    # (node, what is kept of each input, what of each output and then of the layer's other channels, such as heads)
    # -> changed configuration, weights in order; None where nothing has to change.
    shrink: Callable[[Node, list[Mask], list[Mask]], tuple[dict[str, Any], list[np.ndarray]]] | None = None
    # (layer, arrays like its weights) -> for each role of its channels, what belongs to each channel (channels, n).
    rows: Callable[[Any, list[np.ndarray]], dict[str, np.ndarray]] | None = None
    # Whether its outputs are sums over its inputs, so that a channel that is zero there has no effect.
    reads: bool = False
    # Whether it computes statistics over all channels, so that a removed one must not be counted.
    joint: bool = False


@dataclass(frozen=True)
class Group:
    """Classes of channels that the same layers hold, and among which the least important can go."""

    layers: tuple[str, ...]
    classes: np.ndarray  # indices of classes
    width: int  # channels of a layer that go with one class
    heads: bool  # classes are attention heads
    reason: str | None  # why all must stay, or None

    @property
    def channels(self) -> int:
        """Return the number of channels of a layer of this group, or of its part in this group."""
        return len(self.classes) * self.width


@dataclass
class Channels:
    """The channels of a graph: the class of each channel of each tensor, and the groups of classes."""

    graph: Graph
    rules: Mapping[str, Rule]
    blocks: dict[tuple[keras.Operation, str], np.ndarray] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    count: int = 0
    _classes: dict[Tensor, np.ndarray | None] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, rules: Mapping[str, Rule]) -> "Channels":
        """Walk a graph by the rules; what has no rule keeps the channels that it touches."""
        found = cls(graph, rules)
        spaces, ids = found._walk()
        labels = _tied(spaces)
        found.count = int(labels.max(initial=-1)) + 1
        found._classes = {tensor: None if atoms is None else labels[atoms] for tensor, atoms in ids.items()}
        found.blocks = {key: labels[atoms] for key, atoms in spaces.blocks.items()}
        found.groups = _groups(found.blocks, {c: why for atoms, why in reversed(spaces.pins) for c in labels[atoms]})
        return found

    def classes(self, tensor: Tensor) -> np.ndarray | None:
        """Return the class of each channel along a tensor's last axis; None where that axis has no fixed size."""
        return self._classes[tensor]

    def made(self, layer: keras.Operation, role: str) -> np.ndarray | None:
        """Return the classes of what a layer makes: its `outputs` or `heads`, or what it gives by being `handed on`.

        There are none where its calls are not understood.
        """
        if role == "handed on":
            return self._classes[self.graph.calls(layer)[0].outputs[0]]
        return self.blocks.get((layer, role))

    def masks(self, node: Node, kept: Mask) -> tuple[list[Mask], list[Mask]]:
        """Say what stays of each input of a call, and of each output and then the heads, when `kept` (classes,) do."""

        def of(classes: np.ndarray | None) -> Mask:
            return np.ones(1, bool) if classes is None else kept[classes]

        heads = self.blocks.get((node.layer, "heads"))
        made = [of(self._classes[tensor]) for tensor in node.outputs] + ([] if heads is None else [of(heads)])
        return [of(self._classes[tensor]) for tensor in node.inputs], made

    def rule(self, layer: keras.Operation) -> Rule | None:
        """Return what is known about a layer's kind; a subclass of a known kind may do anything."""
        kind = type(layer)
        return self.rules.get(kind.__name__) if kind.__module__.startswith("keras.") else None

    def _walk(self) -> tuple[Spaces, dict[Tensor, Ids | None]]:
        spaces, ids = Spaces(), {}
        first: dict[keras.Operation, list[Ids]] = {}
        for node in self.graph.nodes:
            given = [ids[tensor] for tensor in node.inputs]
            rule = self.rule(node.layer)
            # A call without a fixed number of channels is not understood either.
            known = rule and all(atoms is not None for atoms in given) and rule.spread(node, given, spaces)
            outputs = known or _not_understood(node, given, spaces)
            ids.update(zip(node.outputs, outputs, strict=True))
            if known and rule.shrink:
                for before, now in zip(first.setdefault(node.layer, given), given, strict=True):
                    spaces.tie(before, now)
        for tensor in keras.tree.flatten(self.graph.outputs):
            if ids[tensor] is not None:
                spaces.pin(ids[tensor], "is an output of the model")
        return spaces, ids


def _not_understood(node: Node, given: list[Ids | None], spaces: Spaces) -> list[Ids | None]:
    reason = f"meets {node.name!r} ({type(node.layer).__name__}), which has no rule"
    if node.is_input:
        reason = "is an input of the model"
    for ids in given:
        if ids is not None:
            spaces.pin(ids, reason)
    sizes = [tensor.shape[-1] if len(tensor.shape) > 1 else None for tensor in node.outputs]
    return [None if size is None else spaces.anonymous(size, reason) for size in sizes]


def _tied(spaces: Spaces) -> np.ndarray:
    """Return the class of each atom."""
    rows = np.concatenate([np.zeros(0, int), *(first for first, _ in spaces.ties)])
    columns = np.concatenate([np.zeros(0, int), *(second for _, second in spaces.ties)])
    edges = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(spaces.count, spaces.count))
    return connected_components(edges, directed=False)[1]


def _groups(blocks: dict[tuple[keras.Operation, str], np.ndarray], pinned: dict[int, str]) -> list[Group]:
    """Gather the classes that appear equally often in the same blocks and stay for the same reason."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, classes in enumerate(blocks.values()):
        for number, times in zip(*np.unique(classes, return_counts=True), strict=True):
            places[int(number)].append((index, int(times)))
    gathered: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, where in places.items():
        gathered[(*where, pinned.get(number))].append(number)
    keys = list(blocks)
    return [
        Group(
            layers=tuple(dict.fromkeys(keys[index][0].name for index, _ in where)),
            classes=np.array(numbers),
            width=min(times for _, times in where),
            heads=all(keys[index][1] == "heads" for index, _ in where),
            reason=reason,
        )
        for (*where, reason), numbers in gathered.items()
    ]
