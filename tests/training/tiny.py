"""A problem small enough to train in a second: which third of a picture's colours is bright."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from seeding import set_seed

from pipeline.models.transfer import Group
from pipeline.registry import OPTIMIZERS, SCHEDULES, TASKS
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distill import distill
from pipeline.training.loop import Loop
from pipeline.training.plan import Batches, Settings
from pipeline.training.runtime import Runtime, dtype_policy
from pipeline.training.unfreezing import Unfreezing

SIZE, CLASSES, IMAGES = 8, 3, 96


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 images (N, 8, 8, 3) in 0..255 and one-hot targets (N, 3)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, IMAGES)
    images = rng.uniform(0, 200, (IMAGES, SIZE, SIZE, 3))
    images[np.arange(IMAGES), :, :, labels] += 40
    return images.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[labels]


def batches(size: int = 16, epochs: int = 3) -> Batches:
    """Return an input whose training half is a pure function of the step, as Prepared's is."""
    images, targets = pictures()
    steps = IMAGES // size

    def training(start: int) -> tf.data.Dataset:
        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = tf.range(size, dtype=tf.int64) * steps + step % steps
            x, y = tf.gather(images, rows), tf.gather(targets, rows)
            return tf.ensure_shape(x, (size, *images.shape[1:])), tf.ensure_shape(y, (size, CLASSES))

        return tf.data.Dataset.range(start, epochs * steps).map(batch)

    x, y = pictures(seed=1)
    weight = np.ones(IMAGES, np.float32)
    weight[-10:] = 0  # padding
    validation = tf.data.Dataset.from_tensor_slices({"image": x, "y": y, "weight": weight})
    return Batches(training, validation.batch(16, drop_remainder=True), size, steps, IMAGES // 16)


def model(*, norm: bool = True, dropout: float = 0.0, width: int = 4) -> keras.Model:
    """Return a small convolutional network with float32 logits."""
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(width, 3, use_bias=not norm)(x)
    if norm:
        x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(dropout)(x) if dropout else x
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, dtype="float32")(x))


def groups(net: keras.Model) -> list[Group]:
    """Return the last layer as the head, and all other layers below it."""
    *body, head = [layer for layer in net.layers if layer.weights]
    return [Group("head", (head,)), Group("body", tuple(body))]


def runtime(**changes: Any) -> Runtime:
    """Return the plain choices for a CPU, with changes."""
    choices = {
        "strategy": tf.distribute.get_strategy(),
        "device": "CPU",
        "precision": "float32",
        "xla": False,
        "cpu_ops": False,
        "steps_per_call": 4,
    }
    return Runtime(**choices | changes)


def loop(
    folder: Path,
    *,
    choices: Runtime | None = None,
    optimizer: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    size: int = 16,
    transfer: dict[str, Any] | None = None,
    taught: bool = False,
    **settings: Any,
) -> Loop:
    """Return a loop over the tiny problem; equal arguments give equal loops.

    `transfer` unfreezes its two groups; a taught one learns from an untrained teacher, too.
    """
    choices = choices or runtime()
    options = {"name": "sgd", "learning_rate": 0.1, "clip_norm": None} | (optimizer or {})
    name, clip_norm = options.pop("name"), options.pop("clip_norm")
    settings = {"epochs": 3} | settings
    size *= settings.get("accumulate", 1)
    data = batches(size, settings["epochs"])
    set_seed(0)
    with choices.strategy.scope(), dtype_policy(choices.precision):
        net, task = model(**network or {}), TASKS.build("classification", ("red", "green", "blue"), None)
        if taught:
            lesson = distill(net, model(width=8, dropout=0.5), task, weight=0.5)
            net, task = lesson.model, lesson.task
        rule = OPTIMIZERS.build(name, net, clip_norm, **options)
        if choices.precision == "mixed_float16":
            rule = keras.optimizers.LossScaleOptimizer(rule)
            rule.build(net.trainable_variables)
    schedule = SCHEDULES.build("constant", options["learning_rate"], settings["epochs"] * data.steps_per_epoch)
    unfreezing = Unfreezing(groups(net), rule, **transfer) if transfer else None
    checkpoints = Checkpoints(folder, writes=choices.chief)
    return Loop(net, task, rule, schedule, data, Settings(**settings), choices, checkpoints, unfreezing)


def weights(net: keras.Model) -> list[np.ndarray]:
    """Return all values of a model."""
    return [variable.numpy() for variable in net.variables]
