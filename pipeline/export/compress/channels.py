"""Structured pruning: whole channels leave the model, which becomes physically smaller and faster."""

import logging
from collections.abc import Callable
from typing import Any

import keras

from pipeline.errors import UserError
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.importance import Importance, score
from pipeline.export.compress.masking import mask
from pipeline.export.compress.rebuild import copy, rebuild
from pipeline.export.compress.rules import RULES
from pipeline.export.compress.selection import Ratio, check_ratio, select
from pipeline.export.compress.spaces import Channels, Mask

log = logging.getLogger(__name__)


class Pruner:
    """The channels of a model and how much each matters, from which smaller models of several ratios can be made."""

    def __init__(
        self, model: keras.Model, *, importance: str | Importance = "l1", multiple: int = 8, scope: str = "layer"
    ) -> None:
        """Read the graph and measure the importance, once; the options are those of `prune_channels`."""
        self.model, self.multiple, self.scope = model, multiple, scope
        self.channels = find_channels(model)
        self.scores = score(self.channels, importance)

    def prune(self, ratio: Ratio) -> keras.Model:
        """Return the model without the channels that a ratio removes."""
        return _shrink(self.channels, self.select(ratio))

    def mask(self, ratio: Ratio) -> keras.Model:
        """Return the model with the same channels zeroed."""
        return mask(self.channels, self.select(ratio))

    def select(self, ratio: Ratio) -> Mask:
        """Return which classes of channels are kept."""
        return select(self.channels, self.scores, ratio, multiple=self.multiple, scope=self.scope)


def prune_channels(
    model: keras.Model,
    ratio: Ratio,
    *,
    importance: str | Importance = "l1",
    multiple: int = 8,
    scope: str = "layer",
) -> keras.Model:
    """Return a smaller model without the least important channels: equal to the original with those channels masked.

    Channels that are tied (by a residual addition, a depthwise convolution, squeeze-and-excitation, ...) leave
    together; those of the model's inputs and outputs stay, and those whose ties are not known. The accuracy falls with
    the channels and comes back with fine-tuning.

    Args:
        model: a functional model, which is left as it is.
        ratio: the part of the channels to remove, 0 <= ratio < 1; or by layer name, for those layers alone.
        importance: "l1", "l2", "geometric_median", "batch_norm", or `importance.taylor(loss, batches)`.
        multiple: keep multiples of this many channels of a layer, at least one; a layer with fewer keeps all.
        scope: "layer" takes `ratio` of every layer, "global" the least important channels of all.

    Raises:
        UserError: a model that cannot be read (see `Graph.of`), a ratio that is out of range or empties a layer, a
            name that is unknown, or a model without channels that could go.
    """
    check_ratio(ratio)  # before the importance is measured, which may take minutes
    pruner = Pruner(model, importance=importance, multiple=multiple, scope=scope)
    pruned = pruner.prune(ratio)
    _tell(pruner, ratio, pruned)
    return pruned


def mask_channels(
    model: keras.Model,
    ratio: Ratio,
    *,
    importance: str | Importance = "l1",
    multiple: int = 8,
    scope: str = "layer",
) -> keras.Model:
    """Return the model at its full size with the channels zeroed that `prune_channels` would remove.

    They are zero where a convolution, dense or attention layer reads them, after biases and normalisation, and they
    are not counted in the statistics of a layer normalisation or in a mean or maximum over channels.
    """
    check_ratio(ratio)
    return Pruner(model, importance=importance, multiple=multiple, scope=scope).mask(ratio)


def prune_iteratively(
    model: keras.Model,
    ratio: float,
    steps: int,
    finetune: Callable[[keras.Model], keras.Model],
    **options: Any,
) -> keras.Model:
    """Reach a ratio in steps that each remove the same part of what is left, with fine-tuning after each.

    `options` are those of `prune_channels`; importance is measured anew at each step.
    """
    check_ratio(ratio)
    if steps < 1:
        raise UserError(f"steps is {steps}; give at least 1")
    for _ in range(steps):
        model = finetune(prune_channels(model, part_of_each(steps, ratio), **options))
    return model


def part_of_each(steps: int, ratio: float) -> float:
    """Return the part that each of some equal steps removes of what is left, to remove `ratio` together."""
    return 1 - (1 - ratio) ** (1 / steps)


def find_channels(model: keras.Model) -> Channels:
    """Return the channels of a model; `.groups` says what can be pruned, and why the rest cannot."""
    return Channels.of(Graph.of(model), RULES)


def _shrink(channels: Channels, kept: Mask) -> keras.Model:
    changes, weights = {}, {}
    for layer in channels.graph.layers:
        node, rule = channels.graph.calls(layer)[0], channels.rule(layer)
        given, made = channels.masks(node, kept)
        if rule and rule.shrink and not all(mask.all() for mask in (*given, *made)):
            changes[layer], arrays = rule.shrink(node, given, made)
            if arrays:
                weights[layer] = arrays

    def smaller(layer: keras.Operation) -> keras.Operation | None:
        return copy(layer, **changes[layer]) if layer in changes else None

    return rebuild(channels.graph, replace=smaller, weights=weights)


def _tell(pruner: Pruner, ratio: Ratio, pruned: keras.Model) -> None:
    groups, kept = pruner.channels.groups, pruner.select(ratio)
    free = [group for group in groups if group.reason is None]
    before = sum(group.channels for group in free)
    after = sum(int(kept[group.classes].sum()) * group.width for group in free)
    sizes = pruner.model.count_params(), pruned.count_params()
    log.info("channels: kept %d of %d in %d groups; parameters %d → %d", after, before, len(free), *sizes)
    for group in groups:
        if group.reason:
            log.info("channels: kept all of %s, which %s", ", ".join(group.layers), group.reason)
