"""Magnitude pruning: single weights become zero and stay so; the file zips smaller, and its speed stays as it is.

    sparse = sparsify(model, 0.8)                       # the smallest 80 % of each kernel are zero from now on
    ...                                                 # train it as any Keras model: the zeros stay
    plain = strip_sparsity(sparse)

or little by little while training, which loses less (arXiv 1710.01878):

    sparse = sparsify(model, 0.8, initial=0.0)
    ...                                                 # with callbacks=[SparsitySchedule(begin=0, end=2000)]
"""

import logging
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.errors import UserError
from pipeline.export.compress.constraints import (
    Kernel,
    constrain,
    constrained,
    find_kernels,
    free,
    named,
    packed,
    strip_constraints,
    unpacked,
)
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.patterns import Pattern, read_pattern

log = logging.getLogger(__name__)

Target = float | Mapping[str, float]

_ROUNDING = 0.05  # of a target, to whole blocks


@keras.saving.register_keras_serializable(package="pipeline")
class KeepZeros(keras.constraints.Constraint):
    """Hold the weights outside of a mask at zero.

    The mask goes into the configuration, so that it survives saving and every copy of the layer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        target: float,
        *,
        pattern: str = "unstructured",
        initial: float | None = None,
        outputs_axis: int = -1,
        mask: str | None = None,
    ) -> None:
        """Take the kernel's shape, the sparsity to reach and to begin with (None: the target), and a packed mask."""
        self.shape, self.target, self.pattern, self.outputs_axis = tuple(shape), target, pattern, outputs_axis
        self.initial = target if initial is None else initial
        kept = np.ones(self.shape, bool) if mask is None else unpacked(mask, self.shape, bool)
        self.mask = keras.Variable(kept, dtype="bool", trainable=False, name="mask")

    def __call__(self, weights: Any) -> Any:
        """Return the weights with zeros outside of the mask."""
        if tuple(weights.shape) != self.shape:
            raise UserError(
                f"zeros were chosen for a kernel of {self.shape}, but it is {tuple(weights.shape)} now; prune channels "
                "before single weights"
            )
        return ops.where(self.mask, weights, ops.zeros_like(weights))

    def prune(self, weights: Any, sparsity: float) -> None:
        """Choose the mask anew, from what the weights are now."""
        self.mask.assign(self._kept(weights, sparsity))

    def grown(self, weights: Any) -> bool:
        """Say whether as many weights are held at zero as the pattern can make of the target."""
        zeros, wanted = np.sum(~ops.convert_to_numpy(self.mask)), np.sum(~self._kept(weights, self.target))
        return bool(zeros >= (1 - _ROUNDING) * wanted)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the mask as it is now."""
        return {
            "shape": self.shape,
            "target": self.target,
            "pattern": self.pattern,
            "initial": self.initial,
            "outputs_axis": self.outputs_axis,
            "mask": packed(ops.convert_to_numpy(self.mask)),
        }

    def _kept(self, weights: Any, sparsity: float) -> np.ndarray:
        values = np.moveaxis(ops.convert_to_numpy(weights), self.outputs_axis, 0)
        return np.moveaxis(read_pattern(self.pattern).keep(values, sparsity), 0, self.outputs_axis)


class SparsitySchedule(keras.callbacks.Callback):
    """Raise the sparsity of a model from `sparsify(initial=...)` to its target, along a polynomial (arXiv 1710.01878).

    It works with `fit` and with the pipeline's loop, where masks change between the calls of several steps. The masks
    depend on the weights and the step alone, so that a resumed training has the same ones. End it well before the
    training ends, so that the weights that are left can make up for the others; and keep the last weights, as the
    best may be those of an epoch with fewer zeros. With `begin` = `end` all are pruned at that step.
    """

    def __init__(self, begin: int, end: int, *, power: float = 3.0, every: int = 100) -> None:
        """Take the optimizer steps where it begins and ends, and how many lie between two changes."""
        if not 0 <= begin <= end or power <= 0 or every < 1:
            raise UserError(
                "a sparsity schedule needs 0 <= begin <= end, power above 0 and every of at least 1, not "
                f"begin={begin}, end={end}, power={power:g}, every={every}"
            )
        super().__init__()
        self.begin, self.end, self.power, self.every = begin, end, power, every
        self._share: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget what an earlier training reached."""
        self._share = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Choose the masks of this step."""
        # `fit` counts batches from 0 in each epoch; the loop, which compiles nothing, counts steps.
        compiled = getattr(self.model, "optimizer", None)
        step = int(compiled.iterations) if compiled else batch
        share = decay(step, self.begin, self.end, power=self.power, every=self.every)
        if share == self._share:
            return
        self._share = share
        for weights in constrained(self.model, KeepZeros):
            constraint = weights.constraint
            constraint.prune(weights, constraint.target + (constraint.initial - constraint.target) * share)
            weights.assign(constraint(weights))


def decay(step: int, begin: int, end: int, *, power: float = 3.0, every: int = 1) -> float:
    """Return the part of the way to the target that is left: 1 until `begin`, (1 - progress) ** power, 0 from `end`."""
    if step >= end:
        return 0.0
    progress = max(0, step - begin) // every * every / max(1, end - begin)
    return (1.0 - progress) ** power


def sparsify(
    model: keras.Model, target: Target | None = None, *, pattern: str = "unstructured", initial: float | None = None
) -> keras.Model:
    """Return a model whose smallest weights are zero and stay zero under optimizers, averages, saving and quantising.

    Left dense, unless named: depthwise kernels, which are small and sensitive, and the first and the last layers with
    kernels.

    Args:
        model: a functional model, which is left as it is. Prune its channels before.
        target: the part of each kernel that becomes zero, 0 <= target < 1; or by layer name, for those layers alone.
            N:M patterns need none, their sparsity is 1 - N/M.
        pattern: "unstructured"; blocks of outputs x inputs, such as "1x16" or "4x1"; or N:M, such as "2:4": at most N
            of each M consecutive inputs. Kernels whose inputs are no multiple of M stay dense.
        initial: the sparsity to begin with, which a `SparsitySchedule` raises; the target if None.

    Raises:
        UserError: a model that cannot be read (see `Graph.of`), a target out of range, an unknown pattern or layer.
    """
    form = read_pattern(pattern)
    graph = Graph.of(model)
    targets = _targets(find_kernels(graph), target, form)
    free(list(targets), (KeepZeros,))
    lowest = min(targets.values())
    if initial is not None and not 0 <= initial <= lowest:
        raise UserError(f"initial is {initial:g}; give a sparsity from 0 to the target, {lowest:g}")
    chosen = {}
    for kernel, sparsity in targets.items():
        keep = KeepZeros(
            kernel.values.shape, sparsity, pattern=pattern, initial=initial, outputs_axis=kernel.outputs_axis
        )
        keep.prune(kernel.values, keep.initial)
        chosen[kernel] = keep
    sparse = constrain(graph, chosen)
    count, total = sum(k.values.size for k in targets), model.count_params()
    log.info("sparsity: %d kernels (%.0f%% of the weights), pattern %s", len(targets), 100 * count / total, pattern)
    return sparse


def strip_sparsity(model: keras.Model) -> keras.Model:
    """Return the plain model with the same zeros, no longer held; tell where the target was not reached."""
    for weights in constrained(model, KeepZeros):
        found, target = 1 - float(np.mean(ops.convert_to_numpy(weights.constraint.mask))), weights.constraint.target
        if found < target - _ROUNDING:
            log.warning(
                "%s has %.0f%% zeros, not %.0f%%; train it to the end of its SparsitySchedule",
                *(weights.path, 100 * found, 100 * target),
            )
    return strip_constraints(model, KeepZeros)


def sparsity_of(model: keras.Model) -> dict[str, float]:
    """Return the share of zeros in each kernel, by layer name."""
    return {kernel.name: float(np.mean(kernel.values == 0)) for kernel in find_kernels(Graph.of(model))}


def keep_zeros(model: keras.Model) -> keras.Model:
    """Return the model with every zero of its kernels held at zero, whichever pattern they lie in."""
    graph = Graph.of(model)
    kernels = [kernel for kernel in find_kernels(graph) if (kernel.values == 0).any()]
    free(kernels, (KeepZeros,))
    masks = {kernel: kernel.values != 0 for kernel in kernels}
    return constrain(
        graph,
        {kernel: KeepZeros(mask.shape, float(1 - mask.mean()), mask=packed(mask)) for kernel, mask in masks.items()},
    )


def _targets(kernels: list[Kernel], target: Target | None, form: Pattern) -> dict[Kernel, float]:
    """Return the sparsity of each kernel that gets one."""
    if isinstance(target, Mapping):
        chosen = dict(zip(named(kernels, target), target.values(), strict=True))
        for kernel, sparsity in chosen.items():
            if not _fits(kernel, form):
                raise UserError(f"the layer {kernel.name!r} has no groups of inputs for the pattern {form.text!r}")
            _check(sparsity, form)
        return chosen
    if target is None and form.sparsity is None:
        raise UserError(f"the pattern {form.text!r} needs a target, the part of the weights to make zero, such as 0.8")
    sparsity = form.sparsity if target is None else target
    _check(sparsity, form)
    usual = [kernel for kernel in kernels if kernel.place == "inside" and not kernel.depthwise]
    fitting = [kernel for kernel in usual if _fits(kernel, form)]
    if not fitting:
        raise UserError(
            f"no kernel is left to make sparse in the pattern {form.text!r}: depthwise, first and last layers are left "
            "dense unless you name them, as in {'dense': 0.8}"
        )
    for kernel in usual:
        if kernel not in fitting:
            log.info("sparsity: %s stays dense, its inputs are no multiple of %d", kernel.name, form.group)
    return dict.fromkeys(fitting, sparsity)


def _fits(kernel: Kernel, form: Pattern) -> bool:
    inputs = np.moveaxis(kernel.values, kernel.outputs_axis, 0).shape[-1]
    return not form.structured or (not kernel.depthwise and inputs % form.group == 0)


def _check(sparsity: float, form: Pattern) -> None:
    if not 0 <= sparsity < 1:
        emptied = " would leave no weights; it" if sparsity == 1 else ""
        raise UserError(f"a sparsity of {sparsity:g}{emptied} must be at least 0 and less than 1")
    if form.sparsity is not None and abs(sparsity - form.sparsity) > 1e-6:
        raise UserError(
            f"the pattern {form.text!r} has a sparsity of {form.sparsity:g}, not {sparsity:g}; leave target out"
        )
