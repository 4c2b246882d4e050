"""Weight sharing: each kernel has a few distinct values, so that the zipped file is smaller (arXiv 1510.00149).

    shared = cluster(model, 16)          # batch norms are folded first: folding afterwards would tell values apart
    ...                                  # train it as any Keras model: equal weights stay equal
    plain = strip_clustering(shared)

Shared values move by the mean of what the optimizer does to their weights: with SGD that is the gradient with respect
to the value, divided by how many weights share it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.errors import UserError
from pipeline.export.compress.constraints import (
    constrain,
    find_kernels,
    free,
    named,
    packed,
    strip_constraints,
    unpacked,
)
from pipeline.export.compress.folding import fold_batch_norm
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.sparsity import KeepZeros
from pipeline.export.compress.zipped import zipped_size
from pipeline.export.convert import convert
from pipeline.registry import RECIPES

log = logging.getLogger(__name__)

_SWEEPS = 100
_NO_GAIN = 0.02  # of the zipped file


@keras.saving.register_keras_serializable(package="pipeline")
class ShareValues(keras.constraints.Constraint):
    """Hold weights of the same cluster at one value, and those of cluster 0 at zero.

    Which cluster each weight belongs to never changes, and goes into the configuration.
    """

    def __init__(self, shape: tuple[int, ...], clusters: int, members: str) -> None:
        """Take the kernel's shape, how many clusters there are with cluster 0, and the packed cluster numbers."""
        self.shape, self.clusters, self.members = tuple(shape), clusters, members
        numbers = unpacked(members, self.shape, np.uint16).astype(np.int32).ravel()
        found, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        firsts, scale = np.zeros(clusters, np.int32), np.zeros(clusters, np.float32)
        firsts[found], scale[found] = first, 1.0 / counts
        # Variables, as constants would be copied into every graph that trains the model.
        self._numbers, self._firsts, self._scale, self._alive = (
            keras.Variable(values, dtype=values.dtype.name, trainable=False, name=name)
            for name, values in (
                ("numbers", numbers),
                ("firsts", firsts),
                ("scale", scale),
                ("alive", (np.arange(clusters) > 0).astype(np.float32)),
            )
        )

    @classmethod
    def of(cls, weights: np.ndarray, clusters: int) -> "ShareValues":
        """Find the clusters of a kernel."""
        values = centroids(weights[weights != 0], clusters - int((weights == 0).any()))
        numbers = np.where(weights == 0, 0, 1 + nearest(weights, values)).astype(np.uint16)
        return cls(weights.shape, len(values) + 1, packed(numbers))

    def __call__(self, weights: Any) -> Any:
        """Return each weight's mean over its cluster."""
        if tuple(weights.shape) != self.shape:
            raise UserError(
                f"values were shared in a kernel of {self.shape}, but it is {tuple(weights.shape)} now; prune channels "
                "before clustering"
            )
        flat = ops.cast(ops.reshape(weights, (-1,)), "float32")
        # Only differences are summed: a float32 sum of a million equal numbers is off by a percent.
        first = ops.take(flat, self._firsts)
        moves = ops.segment_sum(flat - ops.take(first, self._numbers), self._numbers, self.clusters) * self._scale
        values = (first + moves) * self._alive
        return ops.cast(ops.reshape(ops.take(values, self._numbers), self.shape), weights.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"shape": self.shape, "clusters": self.clusters, "members": self.members}


@dataclass(frozen=True)
class ZippedSizes:
    """Bytes of two int8 files after zip."""

    before: int
    after: int

    @property
    def gain(self) -> bool:
        """Say whether clustering made the file smaller by more than 2 %."""
        return self.after < (1 - _NO_GAIN) * self.before


def cluster(model: keras.Model, clusters: int | Mapping[str, int] = 16) -> keras.Model:
    """Return a model without batch norms that can be folded, whose kernels have few distinct values and keep them.

    Zeros are a value of their own and stay zeros, so that it can follow `sparsify`. Depthwise kernels stay as they are
    unless named: they are small and sensitive. The accuracy falls, and comes back with fine-tuning.

    Args:
        model: a functional model, which is left as it is.
        clusters: distinct values of each kernel, zero included if it occurs; or by layer name, for those alone.

    Raises:
        UserError: a model that cannot be read (see `Graph.of`), a number below 1 or above 65,535, or of 1 for a kernel
            with zeros, an unknown layer.
    """
    graph = Graph.of(fold_batch_norm(model))
    kernels = find_kernels(graph)
    if isinstance(clusters, Mapping):
        chosen = dict(zip(named(kernels, clusters), clusters.values(), strict=True))
    else:
        chosen = dict.fromkeys((kernel for kernel in kernels if not kernel.depthwise), clusters)
    if not chosen:
        raise UserError(f"the model {model.name!r} has no kernels to cluster besides depthwise ones; name those")
    for kernel, count in chosen.items():
        if not 1 <= count < 2**16:
            raise UserError(f"{count} clusters for {kernel.name!r}: give at least 1 and less than 65,536")
        if count == 1 and 0 < np.count_nonzero(kernel.values) < kernel.values.size:
            raise UserError(f"1 cluster for {kernel.name!r}, which has zeros that stay: give at least 2")
    free(list(chosen), (KeepZeros, ShareValues))
    return constrain(graph, {kernel: ShareValues.of(kernel.values, count) for kernel, count in chosen.items()})


def strip_clustering(model: keras.Model) -> keras.Model:
    """Return the plain model with the same values, no longer held together."""
    return strip_constraints(model, ShareValues)


def clusters_of(model: keras.Model) -> dict[str, int]:
    """Return the number of distinct values in each kernel, by layer name."""
    return {kernel.name: len(np.unique(kernel.values)) for kernel in find_kernels(Graph.of(model))}


def compare_clustered(
    model: keras.Model, clustered: keras.Model, decode: Callable[[Any], Any], calibration: Sequence[np.ndarray]
) -> ZippedSizes:
    """Zip the int8 files of a model and of its clustered successor, and tell whether that was worth it.

    Args:
        calibration: images (H, W, C) in 0..255, as the int8 recipe needs them.
    """
    before, after = (
        zipped_size(RECIPES.build("int8", convert(each, decode), calibration)) for each in (model, clustered)
    )
    sizes = ZippedSizes(before, after)
    change = f"zipped int8 file {before:,} → {after:,} bytes"
    log.info("clustering: %s (%.0f%%)%s", change, 100 * after / before, "" if sizes.gain else ": no gain")
    return sizes


def centroids(values: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` ascending means of clusters of numbers, by Lloyd's iteration from evenly spaced ones.

    In one dimension a cluster is an interval, so a sweep costs a binary search per cluster. One that lies in a gap and
    gets no numbers starts again at the number that is farthest from its mean.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    distinct = np.unique(ordered)
    if count <= 0 or len(distinct) <= count:
        return distinct[: max(count, 0)]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    means = np.linspace(ordered[0], ordered[-1], count)
    for _ in range(_SWEEPS):
        bounds = np.concatenate([[0], np.searchsorted(ordered, (means[1:] + means[:-1]) / 2), [len(ordered)]])
        counts = np.diff(bounds)
        moved = np.diff(sums[bounds])[counts > 0] / counts[counts > 0]
        if len(moved) < count:
            far = np.abs(ordered - np.repeat(moved, counts[counts > 0])).argmax()
            moved = np.unique(np.append(moved, ordered[far]))
        elif len(moved) == len(means) and np.allclose(moved, means, rtol=1e-6, atol=0):
            break
        means = moved
    return means


def nearest(values: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the index of the nearest of some ascending numbers, for each value."""
    return np.searchsorted((means[1:] + means[:-1]) / 2, values)
