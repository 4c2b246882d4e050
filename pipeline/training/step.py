"""The compiled calls: several training or validation steps in one graph, on one device or many."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import keras
import tensorflow as tf

from pipeline.tasks.base import Task
from pipeline.training.averaging import Lookahead, WeightAverage
from pipeline.training.runtime import Runtime
from pipeline.training.schedules import Schedule


class Meters:
    """The mean loss and a task's metrics over the steps since the last reset."""

    def __init__(self, task: Task) -> None:
        self.loss, self.metrics = keras.metrics.Mean(name="loss"), task.metrics()

    def update(self, y: Any, outputs: Any, losses: Any, weight: Any = None) -> None:
        self.loss.update_state(losses, sample_weight=weight)
        for metric in self.metrics:
            metric.update_state(y, outputs, sample_weight=weight)

    def results(self) -> dict[str, float]:
        return {metric.name: float(metric.result()) for metric in (self.loss, *self.metrics)}

    def reset(self) -> None:
        for metric in (self.loss, *self.metrics):
            metric.reset_state()

    @property
    def variables(self) -> list[keras.Variable]:
        return [variable for metric in (self.loss, *self.metrics) for variable in metric.variables]


@dataclass(frozen=True)
class Parts:
    """What a training step needs; everything with variables was made under the strategy's scope."""

    model: keras.Model
    task: Task
    optimizer: keras.Optimizer
    schedule: Schedule
    average: WeightAverage | None
    training: Meters
    validation: Meters
    lookahead: Lookahead | None = None
    sharpness: float | None = None  # radius of sharpness-aware minimisation


def training_call(parts: Parts, runtime: Runtime, accumulate: int) -> Callable[..., tf.Tensor]:
    """Return a function (iterator, step, steps, scale) that takes `steps` optimizer steps, from global step `step` on.

    The schedule's learning rates are multiplied by `scale`.

    It gives the mean loss of these steps and the first step whose loss is not finite (-1: none), float64 (2,).
    A batch is cut into `accumulate` parts whose gradients are summed.
    """
    strategy = runtime.strategy
    _sum_gradients_once(parts.optimizer)
    replica_step = _replica_step(parts, runtime, accumulate)

    @tf.function
    def call(iterator, step, steps, scale):
        total, bad = tf.zeros([], tf.float64), tf.constant(-1, tf.int64)
        for index in tf.range(steps):
            now = step + tf.cast(index, tf.int64)
            parts.optimizer.learning_rate.assign(scale * parts.schedule(now))
            loss = strategy.run(replica_step, args=next(iterator))
            loss = tf.cast(strategy.reduce("SUM", loss, axis=None), tf.float64)
            if parts.lookahead is not None:
                parts.lookahead.update(now)
            if parts.average is not None:
                parts.average.update(now)
            total += loss
            bad = tf.where((bad < 0) & ~tf.math.is_finite(loss), now, bad)
        return tf.stack([total / tf.cast(steps, tf.float64), tf.cast(bad, tf.float64)])

    return call


def validation_call(parts: Parts, runtime: Runtime) -> Callable[..., None]:
    """Return a function (iterator, steps) that adds `steps` batches to the loss and the metrics."""

    def replica_step(batch: dict[str, Any]) -> None:
        outputs = parts.model(batch["image"], training=False)
        y, weight = batch["y"], batch["weight"]
        parts.validation.update(y, outputs, parts.task.loss(y, outputs), weight)

    @tf.function
    def call(iterator, steps):
        for _ in tf.range(steps):
            runtime.strategy.run(replica_step, args=(next(iterator),))

    return call


def distributed(dataset: tf.data.Dataset, runtime: Runtime) -> Any:
    """Return an iterator of global batches, each cut among the replicas in order.

    Every worker reads the whole batch and keeps its replicas' rows, so that any number of devices sees the very
    same batches.
    """
    if runtime.replicas == 1:
        return iter(dataset)

    def shares(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = runtime.replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def cut(*batch):
            batch = tf.nest.map_structure(lambda t: _parts(t, runtime.replicas)[first : first + local], batch)
            return batch if len(batch) > 1 else batch[0]

        return dataset.map(cut).unbatch()

    return iter(runtime.strategy.distribute_datasets_from_function(shares))


def _replica_step(parts: Parts, runtime: Runtime, accumulate: int) -> Callable[..., tf.Tensor]:
    """Return a function of (x, y) or (x, y, weight) that takes one step and gives its share of the loss."""
    model, optimizer = parts.model, parts.optimizer
    weights = model.trainable_variables
    shares = runtime.replicas * accumulate

    def share_of_loss(y, weight, outputs, losses):
        # The mean over this part; parts and replicas are equally large, so the mean of all is the sum of shares.
        each = parts.task.loss(y, outputs)
        return (tf.reduce_mean(each if weight is None else weight * each) + sum(losses)) / shares

    def gradients(x, y, weight=None):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = share_of_loss(y, weight, outputs, model.losses)
            scaled = optimizer.scale_loss(loss)
        gradient = tape.gradient(scaled, weights, unconnected_gradients="zero")
        return sharp(x, y, weight, gradient) if parts.sharpness else gradient, loss, outputs

    def sharp(x, y, weight, gradient):
        """Return the gradient where the loss is highest nearby, to first order (SAM, arXiv 2010.01412).

        Stateless: neither the weights nor the norms' statistics have been there.
        """
        length = tf.maximum(tf.linalg.global_norm(gradient), 1e-12)
        there = [w + parts.sharpness * g / length for w, g in zip(weights, gradient, strict=True)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(there)
            outputs, _, losses = model.stateless_call(
                there, model.non_trainable_variables, x, training=True, return_losses=True
            )
            scaled = optimizer.scale_loss(share_of_loss(y, weight, outputs, losses))
        return tape.gradient(scaled, there, unconnected_gradients="zero")

    if runtime.xla:
        # Forward and backward only: the update crosses replicas, which a compiled function cannot.
        gradients = tf.function(gradients, jit_compile=True)

    def measured(x, y, *weight):
        gradient, loss, outputs = gradients(x, y, *weight)
        parts.training.update(y, outputs, loss * shares)
        return gradient, loss

    def accumulated(*batch):
        batch = tf.nest.map_structure(lambda t: _parts(t, accumulate), batch)
        gradient, loss = [tf.zeros_like(weight) for weight in weights], tf.zeros([])
        for index in tf.range(accumulate):
            more, part = measured(*tf.nest.map_structure(itemgetter(index), batch))
            gradient = [a + b for a, b in zip(gradient, more, strict=True)]
            loss += part
        return gradient, loss

    def step(*batch):
        gradient, loss = accumulated(*batch) if accumulate > 1 else measured(*batch)
        if runtime.replicas > 1:
            gradient = tf.distribute.get_replica_context().all_reduce("SUM", gradient)
        optimizer.apply(gradient, weights)
        return loss

    return step


def _parts(tensor: tf.Tensor, count: int) -> tf.Tensor:
    """Cut (B, ...) into (count, B / count, ...), in order."""
    return tf.reshape(tensor, [count, tensor.shape[0] // count, *tensor.shape[1:]])


def _sum_gradients_once(optimizer: keras.Optimizer) -> None:
    """Stop Keras from summing gradients over replicas: the step has done it.

    Keras sums only after clipping and after its check for overflow, so that the norm would be that of one replica
    and replicas could disagree on skipping a step.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda gradients_and_weights: gradients_and_weights
