"""Where values are rounded, and which places share one range."""

from collections.abc import Iterable, Iterator

from pipeline.export.compress.fake_quantize import FakeQuantize
from pipeline.export.compress.graph import Graph, Node, Tensor
from pipeline.export.compress.quantization_rules import Role, fixed_range, role, taken_in

Range = tuple[float, float]
Rounding = list[tuple[FakeQuantize, int]]  # layers and their slots, to call one after the other

_RESCALED = (Role.WEIGHTED, Role.AFFINE, Role.ELEMENTWISE, Role.RELU, Role.OWN_RANGE, Role.FIXED_RANGE)
_ONE_RANGE = (Role.SAME_RANGE, Role.SAME_RANGE_ROUNDED, Role.NOTHING)


def place(graph: Graph, input_range: Range | None, momentum: float) -> dict[Tensor, Rounding]:
    """Return for each tensor that an integer file stores anew what rounds it."""
    placed = {}
    for group in _groups(graph):
        members = [tensor for tensor in group if _is_rounded(graph, tensor)]
        if members:
            placed.update(_share(graph, members, input_range, momentum))
    return placed


def _share(graph: Graph, members: list[Tensor], input_range: Range | None, momentum: float) -> dict[Tensor, Rounding]:
    """Give places that need one scale one layer; where a kernel's own range differs, it comes first."""
    names = {tensor: _name(graph.producer(tensor), tensor) for tensor in members}
    fixed = {tensor: found for tensor in members if (found := _fixed(graph, tensor, input_range))}
    followers = [role(graph.producer(tensor)) is Role.SAME_RANGE_ROUNDED for tensor in members if tensor not in fixed]
    name = f"{names[members[0]]}_range"
    if len(set(fixed.values())) == 1 and all(followers):
        layer = FakeQuantize(fixed=next(iter(fixed.values())), name=name)
        return {tensor: [(layer, 0)] for tensor in members}
    layer = FakeQuantize(slots=len(members), momentum=momentum, name=name)
    own = {tensor: [(FakeQuantize(fixed=fixed[tensor], name=f"{names[tensor]}_kernel_range"), 0)] for tensor in fixed}
    return {tensor: [*own.get(tensor, []), (layer, slot)] for slot, tensor in enumerate(members)}


def _name(node: Node, tensor: Tensor) -> str:
    index = node.outputs.index(tensor)
    return f"{node.scope}.output{index}" if index else node.scope


def _fixed(graph: Graph, tensor: Tensor, input_range: Range | None) -> Range | None:
    node = graph.producer(tensor)
    if role(node) is Role.INPUT:
        return input_range
    return fixed_range(node) if role(node) is Role.FIXED_RANGE else None


def _is_rounded(graph: Graph, tensor: Tensor) -> bool:
    node = graph.producer(tensor)
    readers = graph.consumers(tensor)
    if len(readers) == 1 and taken_in(graph, readers[0]):
        return False
    kind = role(node)
    if kind in (*_RESCALED, Role.SAME_RANGE_ROUNDED) or taken_in(graph, node):
        return True
    if kind is Role.INPUT:
        return tensor.dtype.startswith("float")
    # What comes out of a float layer enters the integers where one of them reads it.
    return kind is Role.FLOAT and any(
        role(reader) not in (Role.FLOAT, Role.NOTHING) for reader in _readers(graph, tensor)
    )


def _readers(graph: Graph, tensor: Tensor) -> Iterator:
    for node in graph.consumers(tensor):
        if role(node) is Role.NOTHING:
            yield from _readers(graph, node.outputs[0])
        else:
            yield node


def _groups(graph: Graph) -> Iterable[list[Tensor]]:
    """Return the tensors that must have one scale, together."""
    group: dict[Tensor, list[Tensor]] = {}
    for node in graph.nodes:
        for tensor in node.outputs:
            group[tensor] = [tensor]
        if role(node) in _ONE_RANGE:
            for tensor in node.inputs:
                _join(group, node.outputs[0], tensor)
    return list({id(members): members for members in group.values()}.values())


def _join(group: dict[Tensor, list[Tensor]], one: Tensor, other: Tensor) -> None:
    if group[one] is not group[other]:
        smaller, larger = sorted((group[one], group[other]), key=len)
        larger.extend(smaller)
        group.update(dict.fromkeys(smaller, larger))
