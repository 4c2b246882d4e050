"""A budget in, the change that meets it and loses least out: sizes and times are measured first, accuracy last.

What a candidate weighs and how long it takes does not depend on its weights, so every combination of channels,
resolution and bits is measured untrained on the real runtime. Only structures within the budget are trained, by
successive halving (arXiv 1502.07943): all a little, the better half twice as long, and so on. The last ones are
trained with the rounding, and answer the validation split as files; the test split is not looked at.
"""

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from pipeline.budget import Budget
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import keras_predictor, load_model
from pipeline.export.agreement import Answers, compare_on
from pipeline.export.compress import reasons
from pipeline.export.compress.candidates import NUMBERS, Numbers, Structure, propose, weigh
from pipeline.export.compress.comparison import BASE
from pipeline.export.compress.finetune import Finetuning
from pipeline.export.compress.importance import Importance, taylor
from pipeline.export.compress.quantize_aware import calibrated
from pipeline.export.compress.resolution import enlarging
from pipeline.export.inputs import real_images
from pipeline.export.latency import measure_all
from pipeline.export.results import tabulate
from pipeline.export.variants import build_variants, describe_model
from pipeline.runs import Run
from pipeline.sections import Channels

log = logging.getLogger(__name__)

_SURVIVORS = 2
_TEACHER = {"weight": 1.0}
_ORIGINAL = (Numbers("float32", None), Numbers("int8", None))  # what the run gives without compression

Candidate = tuple[Structure, Numbers, keras.Model]


@dataclass(frozen=True)
class Choice:
    """What a search found: the overrides that make the chosen run, its file, every measured one, and why this one."""

    overrides: list[str]
    variant: str
    points: pd.DataFrame
    reason: str


def search(run: Run, budget: Budget, *, epochs: int = 16, channels: Channels | None = None) -> Choice:
    """Find channels, resolution and bits for a finished run that meet a budget and lose the least.

    `points` has one row per measured file: `structure`, `numbers`, the columns of `tabulate` (on the validation split,
    `difference` against the run's Keras model), `within` the budget, `on_front` of score, size and latency, `chosen`.

    Args:
        epochs: of the last rung of halving; the whole search trains some five times as many.
        channels: how the chosen run will take channels out, which decides how many are left; all but the ratio.

    Raises:
        UserError: no combination is within the limits of size and latency, or none keeps the accuracy; it says what
            could be reached.
    """
    model = load_model(run)
    ground = _Ground(run.experiment, model)
    channels = channels or Channels()
    structures = propose(model, channels, importance=ground.importance(channels.importance))
    log.info("search: measuring %d structures in %d formats, untrained", len(structures), len(NUMBERS))
    with tempfile.TemporaryDirectory() as folder:
        weighed = weigh(structures, ground.task, Path(folder))
    own = next(weighed.itertuples())  # the whole network in float16, which computes as the original does
    if budget.allows(size=own.bytes, latency=own.latency_ms):
        raise UserError(reasons.needless(own, budget))
    fitting = weighed[[budget.allows(size=row.bytes, latency=row.latency_ms) for row in weighed.itertuples()]]
    if fitting.empty:
        raise UserError(reasons.impossible(weighed, budget))
    within = {structure: structures[structure] for structure in dict.fromkeys(fitting["structure"])}
    log.info(
        "search: %d of %d files are small and fast enough, of %d structures", *map(len, (fitting, weighed, within))
    )
    candidates = _rounded(_halve(within, ground, epochs), fitting, ground, max(1, epochs // 4))
    with tempfile.TemporaryDirectory() as folder:
        points = judge(_measure(candidates, ground, Path(folder)), budget)
    if not points["chosen"].any():
        raise UserError(reasons.too_lossy(points, budget))
    return _choice(points, budget)


class _Ground:
    """What all candidates share: the original and its data at each image size."""

    def __init__(self, experiment: Experiment, model: keras.Model) -> None:
        self.experiment, self.model = experiment, model
        self.size = experiment.data.image_size
        self.tuning = cache(self._tuning)
        self.task = self.tuning(self.size).task
        self.predict = keras_predictor(model, self.task)

    def original(self, image_size: tuple[int, int]) -> keras.Model:
        """Return the original, for images of any size."""
        return self.model if image_size == self.size else enlarging(self.model, image_size)

    def importance(self, name: str) -> Importance | None:
        """Return the measure of channels that needs data, or nothing where the name says all."""
        tuning = self.tuning(self.size)
        return taylor(tuning.task.loss, list(tuning.batches())) if name == "taylor" else None

    def images(self, image_size: tuple[int, int]) -> Iterator[Any]:
        """Yield some training images, for ranges."""
        return (images for images, _ in self.tuning(image_size).batches())

    def batches(self, image_size: tuple[int, int]) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        """Yield the validation split."""
        prepared = self.tuning(image_size).prepared["validation"]
        return real_images(prepared, self.task, self.experiment.data.batch_size)

    def rank(self, structure: Structure, model: keras.Model) -> tuple[float, float]:
        """Return the validation score, higher is better, and then how near the answers are to the original's."""
        answers, predict = Answers(), keras_predictor(model, self.task)
        for (seen, rest), (full, _) in zip(self.batches(structure.image_size), self.batches(self.size), strict=True):
            ours, theirs = predict(seen.astype(np.float32)), self.predict(full.astype(np.float32))
            answers.add(self.task, rest["y"], ours, theirs)
        measure = self.task.measures[self.task.monitor]
        sign = 1 if measure.higher_is_better else -1
        return sign * measure.aggregate(answers.scores), -answers.mean_abs_difference

    def train(self, structure: Structure, model: keras.Model, epochs: int, learning_rate: float | None) -> keras.Model:
        """Train on, taught by the original."""
        return self.tuning(structure.image_size)(
            model, epochs=epochs, learning_rate=learning_rate, teacher=self.model, distillation=_TEACHER
        )

    def _tuning(self, image_size: tuple[int, int]) -> Finetuning:
        data = self.experiment.data.model_copy(update={"image_size": image_size})
        return Finetuning(self.experiment.model_copy(update={"data": data}))


def _halve(models: Mapping[Structure, keras.Model], ground: _Ground, epochs: int) -> dict[Structure, keras.Model]:
    """Train all structures a little, keep the better half, train it twice as long, until few are left."""
    rungs = 1 + max(0, math.ceil(math.log2(len(models) / _SURVIVORS)))
    rate = ground.experiment.train.optimizer.options["learning_rate"] / 2
    for rung in range(rungs):
        share = max(1, round(epochs / 2 ** (rungs - 1 - rung)))
        log.info("search: training %d structures for %d epochs each", len(models), share)
        models = {one: ground.train(one, model, share, rate) for one, model in models.items()}
        ranks = {one: ground.rank(one, model) for one, model in models.items()}
        kept = max(_SURVIVORS, math.ceil(len(models) / 2))
        best = sorted(models, key=ranks.__getitem__, reverse=True)[:kept]
        models = {one: models[one] for one in best}
    return dict(models)


def _rounded(
    survivors: Mapping[Structure, keras.Model], fitting: pd.DataFrame, ground: _Ground, epochs: int
) -> Iterator[Candidate]:
    """Yield the survivors in every format that fits, trained with its rounding."""
    for row in fitting.itertuples():
        model = survivors.get(row.structure)
        if model is None:
            continue
        if row.numbers.bits:
            images = ground.images(row.structure.image_size)
            aware = calibrated(model, row.numbers.bits, images, wide_ends=row.numbers.wide_ends)
            model = ground.train(row.structure, aware, epochs, None)
        yield row.structure, row.numbers, model


def _measure(candidates: Iterable[Candidate], ground: _Ground, folder: Path) -> pd.DataFrame:
    """Let the files of the original and of the candidates answer the validation split, and time them together."""
    full = Structure(0.0, ground.size)
    every = [*((full, numbers, ground.model) for numbers in _ORIGINAL), *candidates]
    paths: dict[str, Path] = {}
    for structure, numbers, model in every:
        calibration = np.concatenate(list(ground.images(structure.image_size)))
        facts = describe_model(ground.experiment.model.name, model, ground.task.classes)
        [(_, content)] = build_variants(model, [numbers.variant], ground.task.decode, calibration, facts)
        name = (BASE if model is ground.model else f"{structure}, ") + str(numbers)
        paths[name] = folder / f"{len(paths)}.tflite"
        paths[name].write_bytes(content)
    sizes = {name: structure.image_size for name, (structure, _, _) in zip(paths, every, strict=True)}
    together = None
    for size in dict.fromkeys(sizes.values()):  # the original's comes first
        files = {name: paths[name] for name in paths if sizes[name] == size}
        found = compare_on(
            ground.batches(size), ground.task, keras_predictor(ground.original(size), ground.task), files
        )
        together = replace(together, files={**together.files, **found.files}) if together else found
    latency = measure_all(list(paths.values()), threads=(1,))
    table = tabulate(together, ground.task, paths, latency, ground.experiment.export.margin)
    return table.drop(columns="file").assign(
        structure=[structure for structure, _, _ in every], numbers=[numbers for _, numbers, _ in every]
    )


def judge(points: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """Add the columns `within` (the budget), `on_front` (of score, size and latency) and `chosen`.

    Chosen is the file within the budget that loses least, and of equals the fastest.
    """
    costs = np.stack([-points["difference"], points["bytes"], points["latency_ms_p50"]], axis=1)
    beats = (costs[:, None] <= costs[None]).all(-1) & (costs[:, None] < costs[None]).any(-1)  # [i, j]: i beats j
    within = (
        np.array([budget.allows(size=size, latency=time, drop=drop) for drop, size, time in costs])
        & ~points["variant"].str.startswith(BASE).to_numpy()
    )
    order = points[within].sort_values(["difference", "latency_ms_p50"], ascending=[False, True]).index
    return points.assign(within=within, on_front=~beats.any(0), chosen=points.index == (order[0] if len(order) else -1))


def _choice(points: pd.DataFrame, budget: Budget) -> Choice:
    [best] = points[points["chosen"]].itertuples()
    structure, numbers = best.structure, best.numbers
    rounded = [f"compress.qat.bits={numbers.bits}", f"compress.qat.wide_ends={str(numbers.wide_ends).lower()}"]
    overrides = [
        f"compress.channels.ratio={structure.ratio}" if structure.ratio else "compress.channels=null",
        *(rounded if numbers.bits else ["compress.qat=null"]),
        f"data.image_size=[{structure.image_size[0]}, {structure.image_size[1]}]",
    ]
    return Choice(overrides, numbers.variant, points, reasons.chosen(best, points, budget))
