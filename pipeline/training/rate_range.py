"""The learning-rate range test: a short training under a rising rate, before any long one (arXiv 1506.01186)."""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.ndimage import gaussian_filter1d

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.registry import SCHEDULES
from pipeline.training.pointwise import faster_ops
from pipeline.training.runtime import choose
from pipeline.training.setup import build_batches, build_lesson, build_optimizer, open_task, prepare_splits
from pipeline.training.step import Meters, Parts, distributed, training_call

_HOPELESS = 4.0  # times the lowest smoothed loss: from there on it only gets worse
_WIDTH = 0.03  # standard deviation of the smoothing, as a share of all steps


def range_test(experiment: Experiment, *, low: float = 1e-6, high: float = 1.0, steps: int = 100) -> pd.DataFrame:
    """Train for some steps while the rate rises geometrically from `low` to `high`; nothing is written.

    Returns a row per step: learning_rate, loss, smoothed (by a Gaussian, which moves no slope to another rate). It ends
    early where the smoothed loss is four times its lowest, or not finite.
    Raises UserError for a range that does not rise, and as training does.
    """
    if not 0 < low < high or steps < 10:
        raise UserError("a range test needs 0 < --low < --high and at least 10 --steps", usage=True)
    if experiment.transfer:
        raise UserError(
            "a range test trains all weights, and fresh ones; leave transfer out with transfer=null", usage=True
        )
    settings = experiment.train
    runtime = choose(settings, batch_size=experiment.data.batch_size, image_size=experiment.data.image_size)
    runtime = replace(runtime, steps_per_call=1)
    # Batches for as many epochs as the steps take.
    experiment = experiment.replace([f"train.epochs={steps}", "train.curriculum=null"])
    source, task = open_task(experiment)
    lesson = build_lesson(experiment, runtime, task)
    model, task = lesson.model, lesson.task
    optimizer = build_optimizer(experiment, runtime, model)
    batches = build_batches(experiment, task, prepare_splits(experiment, source, task))
    growth = math.log(high / low) / (steps - 1)
    with runtime.strategy.scope():
        schedule = lambda step: low * tf.exp(growth * tf.cast(step, tf.float32))  # noqa: E731
        parts = Parts(model, task, optimizer, schedule, None, Meters(task), Meters(task), None, settings.sharpness)
    call, iterator = training_call(parts, runtime, settings.accumulate), distributed(batches.training(0), runtime)
    losses: list[float] = []
    with faster_ops(model) if runtime.cpu_ops else contextlib.nullcontext():
        while len(losses) < steps:
            step = tf.constant(len(losses), tf.int64)
            losses.append(float(call(iterator, step, tf.constant(1), tf.constant(1.0)).numpy()[0]))
            smoothed = smooth(losses, steps)
            if not math.isfinite(losses[-1]) or smoothed[-1] > _HOPELESS * smoothed.min():
                break
    losses = [loss for loss in losses if math.isfinite(loss)]
    rates = low * np.exp(growth * np.arange(len(losses)))
    return pd.DataFrame({"learning_rate": rates, "loss": losses, "smoothed": smooth(losses, steps)})


def smooth(losses: list[float], steps: int) -> np.ndarray:
    """Average each loss with its neighbours in a test of so many steps."""
    return gaussian_filter1d(np.asarray(losses, np.float64), max(_WIDTH * steps, 1.0), mode="nearest")


def suggest(table: pd.DataFrame) -> float | None:
    """Return the rate at which the smoothed loss falls fastest per factor of the rate, or None where it never falls.

    It is a peak for a schedule with warmup; the lowest loss lies further on, where training is about to break.
    """
    falling = table.iloc[: int(table["smoothed"].to_numpy().argmin()) + 1]
    if len(falling) < 3:
        return None
    slope = np.gradient(falling["smoothed"].to_numpy(), np.log(falling["learning_rate"].to_numpy()))
    return float(falling["learning_rate"].iloc[int(slope.argmin())]) if slope.min() < 0 else None


def planned(experiment: Experiment, *, points: int = 500) -> pd.DataFrame:
    """Return the schedule of an experiment without training: share of the run (0..1) and learning_rate."""
    settings = experiment.train
    schedule = SCHEDULES.build(
        settings.schedule.name, settings.optimizer.options["learning_rate"], points, **settings.schedule.options
    )
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(points)]
    return pd.DataFrame({"share": np.arange(points) / (points - 1), "learning_rate": rates})
