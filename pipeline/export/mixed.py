"""int8 with the layers that it breaks left in float: as few as it takes, found by trying."""

import functools
import logging
from collections.abc import Callable, Collection, Sequence

import numpy as np
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName

from pipeline.export import flatbuffer
from pipeline.export.interpreter import LiteModel
from pipeline.export.noise import output_noise
from pipeline.export.quantizer import Ranges, checked, measure_ranges, only, plan, quantize
from pipeline.export.sensitivity import rank
from pipeline.export.trial import Trial
from pipeline.registry import RECIPES
from pipeline.runs import write_atomically

log = logging.getLogger(__name__)

_NOISE_IMAGES, _MOST_NOISE = 16, 0.01


@RECIPES.register
def mixed(float_file: bytes, calibration: Sequence[np.ndarray], trial: Trial | None = None) -> bytes:
    """Compute in int8, but in float where that loses most: the fewest layers that keep the score within the margin.

    Layers go to float in the order of their sensitivity. How many is found by trying files on validation images: the
    paired loss must stay within the margin. Without a trial the noise before the decoding must stay below 1 %.
    """
    ranges = measure_ranges(float_file, plan(recipe.static_wi8_ai8()), calibration)
    holds = _within_margin(float_file, trial) if trial else _below_noise(float_file, calibration[:_NOISE_IMAGES])
    build = functools.cache(lambda kept: _build(float_file, ranges, kept))
    content, kept, tried = build(()), (), 1
    if trial or not holds(content):
        table = rank(float_file, ranges, calibration, trial)
        if trial and trial.table:
            write_atomically(trial.table, table.to_csv(index=False))
        order = tuple(table.index)
        count = fewest(len(order), lambda k: holds(build(order[:k])))
        kept, tried = order[:count], build.cache_info().currsize
    log.info("mixed: %d of %d layers with weights stay float, %d files tried", len(kept), _count(float_file), tried)
    content = build(kept)
    return checked(content, "mixed", ports=("int8", "int8"), weights="int8", activations="int8", but=kept)


def fewest(most: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest count in 0..most for which `holds`, taking it that more never hurt; `most` if none does.

    By doubling, then by halving what is left: at most 2 log2(most) + 2 tries.
    """
    if most == 0 or holds(0):
        return 0
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _within_margin(float_file: bytes, trial: Trial) -> Callable[[bytes], bool]:
    exact = LiteModel(float_file).predict(trial.images)
    return lambda content: trial.loss(exact, LiteModel(content).predict(trial.images)) <= trial.margin


def _below_noise(float_file: bytes, images: Sequence[np.ndarray]) -> Callable[[bytes], bool]:
    return lambda content: output_noise(float_file, content, images) <= _MOST_NOISE


def _build(float_file: bytes, ranges: Ranges, kept: Collection[str]) -> bytes:
    manager = plan(recipe.static_wi8_ai8())
    for tensor in (*kept, *_between(float_file, kept)):
        manager.add_quantization_config(
            only(tensor), qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    return quantize(float_file, manager, ranges=ranges)


def _between(float_file: bytes, kept: Collection[str]) -> list[str]:
    """Name what operators without weights give to kept ones only: rounded, it would reach them as from int8."""
    operators = list(flatbuffer.operators(float_file))
    found: list[str] = []
    for operator in reversed(operators):
        readers = [each for each in operators if {x.name for x in each.inputs} & {x.name for x in operator.outputs}]
        in_float = {tensor for each in readers for tensor in (x.name for x in each.outputs)}
        if operator.name not in flatbuffer.WITH_WEIGHTS and readers and in_float <= {*kept, *found}:
            found.append(operator.outputs[0].name)
    return found


def _count(float_file: bytes) -> int:
    return sum(operator.name in flatbuffer.WITH_WEIGHTS for operator in flatbuffer.operators(float_file))
