"""What goes around an optimizer: Lookahead, sharpness-aware minimisation, and lower rates on a plateau."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed
from tiny import CLASSES, loop, model, runtime, weights

from pipeline.registry import OPTIMIZERS, TASKS
from pipeline.training.averaging import Lookahead
from pipeline.training.step import Meters, Parts, training_call


def test_lookahead_by_hand():
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    (weight,) = net.trainable_variables
    weight.assign([[1.0]])
    slow = Lookahead(net, every=2, share=0.25)
    found = []
    for step in range(4):  # fast steps of +1
        weight.assign_add([[1.0]])
        slow.update(tf.constant(step, tf.int64))
        found.append(float(weight.numpy().item()))
    # 1 → 2 → 3, back to 1 + (3 - 1) / 4 = 1.5; → 2.5 → 3.5, back to 1.5 + 2 / 4 = 2
    assert found == pytest.approx([2.0, 1.5, 2.5, 2.0])


def test_lookahead_is_resumed_with_its_slow_weights(tmp_path):
    settings = {"epochs": 2, "keep": "last", "lookahead": (4, 0.5)}
    whole = loop(tmp_path / "whole", **settings)
    whole.run()
    loop(tmp_path / "cut", **{**settings, "epochs": 1}).run()  # six steps: between two meetings
    resumed = loop(tmp_path / "cut", **settings)
    resumed.run()
    for a, b in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("xla", [False, True])
def test_sharp_gradients_are_those_of_the_highest_loss_nearby(xla):
    """One step, against gradients taken by hand at w + rho g / |g|, with a norm whose statistics move once."""
    set_seed(0)
    nets = [model(), model()]
    nets[1].set_weights(nets[0].get_weights())
    task = TASKS.build("classification", ("a", "b", "c"), None)
    optimizer = OPTIMIZERS.build("sgd", nets[0], None, learning_rate=0.1, momentum=0.0)
    meters = Meters(task), Meters(task)
    parts = Parts(nets[0], task, optimizer, lambda step: tf.constant(0.1), None, *meters, sharpness=0.5)
    x = tf.random.stateless_uniform((8, 8, 8, 3), (0, 0), maxval=255)
    y = tf.one_hot(np.arange(8) % CLASSES, CLASSES)
    call = training_call(parts, runtime(xla=xla), 1)
    batches = iter(tf.data.Dataset.from_tensors((x, y)))
    call(batches, tf.constant(0, tf.int64), tf.constant(1), tf.constant(1.0))

    by_hand = nets[1]
    variables = by_hand.trainable_variables

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(task.loss(y, by_hand(x, training=True)))
        return tape.gradient(loss, variables)

    first = gradients()
    moved = [each.numpy() for each in by_hand.non_trainable_variables]
    away = [0.5 * g / tf.linalg.global_norm(first) for g in first]
    for variable, e in zip(variables, away, strict=True):
        variable.assign_add(e)
    second = gradients()
    for variable, e, g in zip(variables, away, second, strict=True):
        variable.assign_sub(e + 0.1 * g)
    for ours, truth in zip(nets[0].trainable_variables, variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), truth.numpy(), rtol=1e-3, atol=1e-5)
    for ours, truth in zip(nets[0].non_trainable_variables, moved, strict=True):
        np.testing.assert_allclose(ours.numpy(), truth, rtol=1e-4)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("settings", [{"sharpness": 0.05}, {"lookahead": (3, 0.5)}], ids=str)
@pytest.mark.parametrize("choices", [{}, {"cpu_ops": True}, {"precision": "mixed_bfloat16"}], ids=str)
def test_it_learns_with_them(tmp_path, settings, choices):
    rows = loop(tmp_path, choices=runtime(**choices), epochs=6, **settings).run()
    assert rows[-1]["val_accuracy"] > 0.9


def test_the_rate_falls_where_validation_stands_still(tmp_path):
    it = loop(tmp_path, epochs=5, plateau=(2, 0.1))
    scores = [0.5, 0.4, 0.5, 0.3, 0.6]  # the third is no better than the first
    found = []
    for score in scores:
        found.append(it._scale())
        it.progress.rows.append({"val_accuracy": score, "val_loss": 1.0})
    assert found == pytest.approx([1, 1, 1, 0.1, 0.1])
    it.progress.rows.append({"val_accuracy": 0.5, "val_loss": 1.0})
    it.progress.rows.append({"val_accuracy": 0.5, "val_loss": 1.0})
    assert it._scale() == pytest.approx(0.01)


def test_a_fallen_rate_is_used_and_told(tmp_path):
    # Steps too small to change a float32 weight: no epoch is better than the first.
    it = loop(tmp_path, epochs=4, plateau=(1, 0.5), optimizer={"learning_rate": 1e-12}, network={"norm": False})
    rows = it.run()
    wanted = pytest.approx([1e-12, 1e-12, 5e-13, 2.5e-13], rel=1e-5, abs=0)
    assert [row["learning_rate"] for row in rows] == wanted
    assert float(it.parts.optimizer.learning_rate.value) == pytest.approx(2.5e-13, rel=1e-5, abs=0)
