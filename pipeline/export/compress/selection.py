"""Which channels stay: the most important of each group, in counts that the kernels like."""

import difflib
import math
from collections.abc import Mapping

import numpy as np

from pipeline.errors import UserError
from pipeline.export.compress.spaces import Channels, Group

Ratio = float | Mapping[str, float]


def select(channels: Channels, scores: np.ndarray, ratio: Ratio, *, multiple: int, scope: str) -> np.ndarray:
    """Return which classes are kept (classes,): all but about `ratio` of those that may go.

    Args:
        channels: the groups.
        scores: the importance of every class.
        ratio: the part to remove, 0 <= ratio < 1, of every layer; or by layer name, for those layers alone.
        multiple: what is kept of a layer is a multiple of this, at least one, or all where it has no more.
        scope: "layer" takes the same part of every group, "global" the least important channels wherever they are.
    """
    check_ratio(ratio)
    free = [group for group in channels.groups if group.reason is None]
    if not free:
        raise UserError(f"the model {channels.graph.model.name!r} has no channels that can be pruned: {_why(channels)}")
    if isinstance(ratio, Mapping):
        ratios = _by_name(channels, ratio)
    else:
        if scope not in ("layer", "global"):
            raise UserError(f"scope {scope!r} is unknown; give 'layer' or 'global'")
        ratios = _everywhere(free, scores, ratio) if scope == "global" else [(group, ratio) for group in free]
    if multiple < 1:
        raise UserError(f"multiple is {multiple}; give a number of channels of at least 1")
    kept = np.ones(channels.count, bool)
    for group, part in ratios:
        order = np.argsort(-scores[group.classes], kind="stable")
        kept[group.classes[order[_count(group, part, multiple) :]]] = False
    return kept


def check_ratio(ratio: Ratio) -> None:
    """Raise UserError unless 0 <= ratio < 1, for every layer that is named."""
    for name, part in ratio.items() if isinstance(ratio, Mapping) else [("", ratio)]:
        if not 0 <= part < 1:
            where = f" for {name!r}" if name else ""
            emptied = " would leave no channels; it" if part == 1 else ""
            raise UserError(f"a pruning ratio of {part:g}{where}{emptied} must be at least 0 and less than 1")


def _count(group: Group, ratio: float, multiple: int) -> int:
    """Round what is left of a group to the multiple, of the layer's channels."""
    size = len(group.classes)
    step = 1 if group.heads else multiple // math.gcd(multiple, group.width)
    if size <= step:
        return size
    return min(size, max(step, step * math.floor(size * (1 - ratio) / step + 0.5)))


def _everywhere(groups: list[Group], scores: np.ndarray, ratio: float) -> list[tuple[Group, float]]:
    """Turn one bound for all scores, below which `ratio` of all channels lie, into a ratio for each group."""
    every = np.concatenate([scores[group.classes] for group in groups])
    bound = np.quantile(every, ratio)
    return [(group, float(np.mean(scores[group.classes] < bound))) for group in groups]


def _by_name(channels: Channels, ratios: Mapping[str, float]) -> list[tuple[Group, float]]:
    chosen: dict[int, tuple[Group, float, str]] = {}
    known = {name for group in channels.groups for name in group.layers}
    for name, ratio in ratios.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"no layer {name!r} makes channels" + (f"; did you mean {near[0]!r}?" if near else ""))
        groups = [(index, group) for index, group in enumerate(channels.groups) if name in group.layers]
        reasons = [group.reason for _, group in groups if group.reason]
        if len(reasons) == len(groups) and ratio > 0:
            raise UserError(f"the layer {name!r} cannot be pruned: it {reasons[0]}")
        for index, group in groups:
            _, before, other = chosen.get(index, (group, ratio, name))
            if before != ratio:
                raise UserError(f"the layers {other!r} and {name!r} share their channels; give both the same ratio")
            if group.reason is None:
                chosen[index] = group, ratio, name
    return [(group, ratio) for group, ratio, _ in chosen.values()]


def _why(channels: Channels) -> str:
    kept = [group for group in channels.groups if group.reason]
    return f"{kept[0].layers[0]!r} {kept[0].reason}" if kept else "no layer makes any"
