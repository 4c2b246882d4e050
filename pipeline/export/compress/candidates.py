"""What a search can choose from, and what each choice weighs on the real runtime, which needs no training to know."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.export.compress.channels import Pruner, part_of_each
from pipeline.export.compress.importance import Importance
from pipeline.export.compress.resolution import at_resolution
from pipeline.export.latency import measure_all
from pipeline.export.variants import build_variants, describe_model
from pipeline.sections import Channels
from pipeline.tasks.base import Task

log = logging.getLogger(__name__)

RATIOS = (0.0, 0.25, 0.5, 0.625, 0.75, 0.875)  # of the channels, taken out
SHRINKS = (1.0, 0.75)  # of height and width
_SMALLEST_IMAGE = 24  # below that nothing is taken from the images
_ALIGN = 8  # image sizes stay multiples of this


@dataclass(frozen=True)
class Structure:
    """What is left of a network: the part of the channels taken out, and the image size it sees."""

    ratio: float
    image_size: tuple[int, int]

    def __str__(self) -> str:
        """Name it as the table does."""
        return f"{1 - self.ratio:.0%} of the channels at {self.image_size[0]}×{self.image_size[1]}"


@dataclass(frozen=True)
class Numbers:
    """How a file computes: its variant, the bits that kernels are trained for, and whether both ends have 8."""

    variant: str
    bits: int | None
    wide_ends: bool = False

    def __str__(self) -> str:
        """Name it as the table does."""
        return f"{self.variant}, ends 8 bits" if self.wide_ends else self.variant


NUMBERS = (Numbers("float16", None), Numbers("int8", 8), Numbers("w4a8", 4), Numbers("w4a8", 4, wide_ends=True))


def propose(
    model: keras.Model, planned: Channels | None = None, *, importance: Importance | None = None
) -> dict[Structure, keras.Model]:
    """Return the structures of a model, with its weights, untrained after the cut; the model itself is the first.

    Channels leave as they will in the run, but no round trains here: with the scope "global" the run, whose later
    rounds measure trained weights, may keep slightly others. The whole network keeps its image size: as a run it would
    get no stage that trains it for another one.

    Args:
        planned: how the run will take channels out: rounds, importance, scope, multiple.
        importance: instead of the planned one's name, where that needs data.
    """
    full, *smaller = _sizes(model)
    found = {Structure(0.0, full): model}
    counts = {model.count_params()}
    for ratio, pruned in _pruned(model, planned or Channels(), importance):
        if pruned.count_params() in counts:  # few channels are rounded to the same few
            continue
        counts.add(pruned.count_params())
        found[Structure(ratio, full)] = pruned
        found |= {Structure(ratio, size): at_resolution(pruned, size) for size in smaller}
    return found


def weigh(structures: Mapping[Structure, keras.Model], task: Task, folder: Path) -> pd.DataFrame:
    """Write every structure's files, untrained, and measure them: columns structure, numbers, bytes, latency_ms.

    Both ends in 8 bits weigh a little more than all in 4, as which they are measured here.
    """
    variants = list(dict.fromkeys(numbers.variant for numbers in NUMBERS))
    paths: dict[tuple[Structure, str], Path] = {}
    for structure, model in structures.items():
        noise = np.random.default_rng(0).uniform(0, 255, (4, *model.inputs[0].shape[1:])).astype(np.float32)
        facts = describe_model(model.name, model, task.classes)
        for variant, content in build_variants(model, variants, task.decode, noise, facts):
            paths[structure, variant] = folder / f"{len(paths)}.tflite"
            paths[structure, variant].write_bytes(content)
    latency = measure_all(list(paths.values()), threads=(1,))
    rows = []
    for structure in structures:
        for numbers in NUMBERS:
            path = paths[structure, numbers.variant]
            cost = {"bytes": path.stat().st_size, "latency_ms": latency[path, 1].p50}
            rows.append({"structure": structure, "numbers": numbers, **cost})
    return pd.DataFrame(rows)


def _pruned(
    model: keras.Model, planned: Channels, importance: Importance | None
) -> Iterator[tuple[float, keras.Model]]:
    """Yield each ratio with the model that its rounds of pruning leave."""
    options = {"importance": importance or planned.importance, **planned.model_dump(include={"multiple", "scope"})}
    whole = Pruner(model, **options)
    for ratio in filter(None, RATIOS):
        part = part_of_each(planned.rounds, ratio)
        pruned = whole.prune(part)
        for _ in range(planned.rounds - 1):
            pruned = Pruner(pruned, **options).prune(part)
        yield ratio, pruned


def _sizes(model: keras.Model) -> list[tuple[int, int]]:
    """Return the image size of a model, and the smaller ones on which it gives outputs of the same shape."""
    full, *smaller = dict.fromkeys(_shrunk(tuple(model.inputs[0].shape[1:3]), part) for part in SHRINKS)
    found = [full]
    for size in smaller:
        try:
            if at_resolution(model, size).output_shape == model.output_shape:  # not those of masks
                found.append(size)
        except UserError as error:
            log.info("search: %s", error)
    return found


def _shrunk(size: tuple[int, int], part: float) -> tuple[int, int]:
    if part == 1 or min(size) * part < _SMALLEST_IMAGE:
        return size
    return tuple(round(side * part / _ALIGN) * _ALIGN for side in size)
