"""One step of the compiled loop, with its faster operations for the CPU, moves the weights of every family."""

import numpy as np
import pytest
import tensorflow as tf
from representatives import build, every_family
from tiny import runtime, weights

from pipeline.registry import OPTIMIZERS, TASKS
from pipeline.training.step import Meters, Parts, training_call

CLASSES = ("a", "b", "c", "d", "e")


@pytest.mark.slow
@every_family
def test_a_step_of_the_loop_moves_every_layer(name):
    model = build(name, len(CLASSES))
    dense = len(model.output.shape) == 4
    task = TASKS.build("segmentation" if dense else "classification", CLASSES, None)
    # The rate is large, so that small gradients, too, are more than the rounding of a gamma of 1.
    optimizer = OPTIMIZERS.build("sgd", model, None, learning_rate=10.0)
    parts = Parts(model, task, optimizer, lambda step: tf.constant(10.0), None, Meters(task), Meters(task))
    before = weights(model)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    y = rng.integers(0, 5, (4, 32, 32)).astype(np.int32) if dense else np.eye(5, dtype=np.float32)[:4]
    call = training_call(parts, runtime(cpu_ops=True), 1)
    batches = iter(tf.data.Dataset.from_tensors((x, y)))
    loss, broken = call(batches, tf.constant(0, tf.int64), tf.constant(1), tf.constant(1.0)).numpy()
    assert broken == -1
    assert 0 < loss < 100
    for variable, value in zip(model.variables, before, strict=True):
        if variable.trainable:
            assert np.isfinite(variable.numpy()).all(), variable.path
            assert np.any(variable.numpy() != value), variable.path
