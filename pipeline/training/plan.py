"""What a training is given beside its model: the batches, and how long and how carefully to learn from them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import tensorflow as tf

from pipeline.training.resizing import Size


@dataclass(frozen=True)
class Batches:
    """The input: `training(step)` starts at a global step and is a pure function of it; one batch is one step.

    Its images have the size of the epoch of that step, `size_of(epoch)`, None where it is the model's own; it may end
    with the last such epoch.
    """

    training: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    size: int  # images in a training batch
    steps_per_epoch: int
    validation_steps: int
    size_of: Callable[[int], Size | None] = lambda epoch: None


@dataclass(frozen=True)
class Settings:
    """How long and how carefully to train; see `train` in the experiment."""

    epochs: int
    seed: int = 0
    accumulate: int = 1
    ema: float | None = None
    lookahead: tuple[int, float] | None = None  # steps from one meeting to the next, share of the way
    sharpness: float | None = None
    plateau: tuple[int, float] | None = None  # epochs without a better validation score, factor of the learning rate
    patience: int | None = None
    keep: str = "best"
    checkpoint_minutes: float = math.inf
    int8_every: int | None = None
    history: Path | None = None
    callbacks: Sequence[keras.callbacks.Callback] = field(default_factory=tuple)
