"""The pruning ratio that reaches a target: in parameters, in multiply-accumulates, or in measured milliseconds."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from pipeline.errors import UserError
from pipeline.export.compress.channels import Pruner
from pipeline.export.convert import convert
from pipeline.export.latency import measure as time_file
from pipeline.models.inspect import layer_costs

log = logging.getLogger(__name__)

Measure = Callable[[keras.Model], float]
_STEPS = 8  # of halving the range of ratios: to 0.4 % of the channels, finer than the multiple they are rounded to


def to_target(model: keras.Model, measure: Measure, target: float, **options: Any) -> keras.Model:
    """Prune as little as brings `measure(pruned)` down to `target` × `measure(model)`, 0 < target <= 1.

    The ratio is found by bisection, so `measure` should fall with the channels: `parameters`, `macs`, `latency`, or
    any function of a model. `options` are those of `prune_channels`; importance is measured once.

    Raises:
        UserError: the smallest model that the options allow still measures more.
    """
    if not 0 < target <= 1:
        raise UserError(f"the target is {target:g}; give the part of what the model measures now, above 0, at most 1")
    pruner, whole = Pruner(model, **options), measure(model)
    low, high = 0.0, 1 - 2**-_STEPS
    best = pruner.prune(high)
    reached = measure(best)
    if reached > target * whole:
        raise UserError(
            f"pruning channels cannot reach {target:.0%}: the smallest model measures {reached / whole:.0%}; "
            "give a higher target or a smaller multiple"
        )
    for _ in range(_STEPS):
        ratio = (low + high) / 2
        candidate = pruner.prune(ratio)
        value = measure(candidate)
        if value <= target * whole:
            high, best, reached = ratio, candidate, value
        else:
            low = ratio
    log.info("channels: a ratio of %.3f measures %.1f %% of the model", high, 100 * reached / whole)
    return best


def parameters(model: keras.Model) -> float:
    """Return the number of weights, trainable or not."""
    return float(model.count_params())


def macs(model: keras.Model) -> float:
    """Return the multiply-accumulates for one image.

    Raises:
        UserError: naming a layer whose multiply-accumulates are not known.
    """
    try:
        return float(sum(cost.macs for cost in layer_costs(model)))
    except TypeError as error:
        raise UserError(f"{error}; give parameters or latency as the measure") from None


def latency(model: keras.Model, *, threads: int = 1) -> float:
    """Return the milliseconds per image of the float32 .tflite file on this machine: the quietest round's median."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(convert(model, lambda outputs: outputs))
        return min(time_file(path, threads).rounds)
