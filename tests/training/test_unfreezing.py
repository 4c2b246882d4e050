"""What is frozen stays as it is, bit for bit; what joins is slower by its depth; a run may be broken off anywhere."""

import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_loop import At
from tiny import groups, loop, model, pictures, runtime, weights

from pipeline.errors import UserError
from pipeline.registry import OPTIMIZERS, TASKS
from pipeline.training.unfreezing import Unfreezing

FROZEN = {"head_epochs": 1, "every": None, "factor": 0.5}


def unfreezing(name: str = "sgd", depth: int = 2, **options) -> tuple[keras.Model, keras.Optimizer, Unfreezing]:
    net = model()
    rule = OPTIMIZERS.build(name, net, None, learning_rate=0.1)
    layers = (groups(net) * depth)[:depth]
    return net, rule, Unfreezing(layers, rule, **FROZEN | options)


@pytest.mark.parametrize(
    ("head_epochs", "every", "learning", "settled"),
    [
        (2, 1, [1, 1, 2, 3, 4, 4], 4),
        (1, 2, [1, 2, 2, 3, 3, 4], 5),
        (0, 1, [2, 3, 4, 4, 4, 4], 2),
        (2, 0, [1, 1, 4, 4, 4, 4], 2),
        (0, 0, [4, 4, 4, 4, 4, 4], 0),
        (2, None, [1, 1, 1, 1, 1, 1], 0),
    ],
)
def test_groups_join_on_time(head_epochs, every, learning, settled):
    _, _, plan = unfreezing(depth=4, head_epochs=head_epochs, every=every)
    assert [plan.learning(epoch) for epoch in range(6)] == learning
    assert plan.settled == settled


def test_each_group_is_slower_than_the_one_above_it():
    net, rule, _ = unfreezing(factor=0.25)
    before = [v.numpy() for v in net.trainable_variables]
    rule.apply([tf.ones(v.shape) for v in net.trainable_variables], net.trainable_variables)
    moved = {
        v.path.partition("/")[0].rstrip("_0123456789"): float(np.mean(b - v.numpy()))
        for v, b in zip(net.trainable_variables, before, strict=True)
    }
    assert moved == pytest.approx({"conv2d": 0.025, "batch_normalization": 0.025, "dense": 0.1}, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_the_optimizer_starts_afresh_where_a_group_joins(name):
    net, rule, plan = unfreezing(name, every=1)
    fresh = [v.numpy() for v in rule.variables]
    rule.apply([tf.ones(v.shape) for v in net.trainable_variables], net.trainable_variables)
    used = [v.numpy() for v in rule.variables]
    assert plan.begin(0, whole=True)
    assert plan.begin(1, whole=False)  # an interrupted run goes on
    for variable, value in zip(rule.variables, used, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert not plan.begin(1, whole=True)
    for variable, value in zip(rule.variables, fresh, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize(
    ("settings", "choices"),
    [
        ({"ema": 0.9, "lookahead": (2, 0.5)}, {"cpu_ops": True}),
        ({"sharpness": 0.05}, {}),
        ({"accumulate": 2}, {"xla": True}),
        ({"ema": 0.9}, {"precision": "mixed_float16"}),
    ],
    ids=str,
)
def test_what_is_frozen_stays_bit_for_bit(tmp_path, settings, choices):
    optimizer = {"weight_decay": 0.1, "clip_norm": 1.0}
    it = loop(tmp_path, choices=runtime(**choices), optimizer=optimizer, transfer=FROZEN, keep="last", **settings)
    before = weights(it.model)
    rows = it.run()
    heads = {id(variable) for variable in it.model.layers[-1].weights}
    for variable, value in zip(it.model.variables, before, strict=True):
        assert (variable.numpy().tobytes() == value.tobytes()) == (id(variable) not in heads)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(layer.trainable for layer in it.model.layers)


@pytest.mark.parametrize("cpu_ops", [False, True])
def test_a_frozen_norm_computes_as_in_inference(tmp_path, cpu_ops):
    it = loop(tmp_path, choices=runtime(cpu_ops=cpu_ops), optimizer={"learning_rate": 1e-12}, epochs=1, transfer=FROZEN)
    norm = it.model.layers[3]
    norm.set_weights([np.full(v.shape, 0.7, np.float32) for v in norm.weights])
    images, targets = pictures()
    logits = it.model(images, training=False)
    truth = keras.ops.mean(TASKS.build("classification", ("a", "b", "c"), None).loss(targets, logits))
    assert it.run()[0]["loss"] == pytest.approx(float(truth), rel=1e-5)


def test_a_group_that_joined_learns_and_the_run_goes_on_from_any_step(tmp_path):
    settings = {
        "transfer": {"head_epochs": 1, "every": 1, "factor": 0.5},
        "network": {"dropout": 0.2},
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "choices": runtime(cpu_ops=True, steps_per_call=2),
        "keep": "last",
        "ema": 0.9,
    }
    whole = loop(tmp_path / "whole", **settings)
    body = [variable.numpy() for variable in whole.model.layers[2].weights]
    whole.run()
    assert all((a != b.numpy()).any() for a, b in zip(body, whole.model.layers[2].weights, strict=True))
    for step in (4, 6, 8, 12, 14):  # within the first phase, at its last step, within the second, and after it
        press = At(step, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(UserError, match="continue with the same"):
            loop(tmp_path / "cut", **settings, callbacks=(press,)).run()
    resumed = loop(tmp_path / "cut", **settings)
    rows = resumed.run()
    for a, b in zip(weights(resumed.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole.progress.rows]


def test_patience_waits_for_the_last_group(tmp_path):
    still = {"optimizer": {"learning_rate": 1e-12, "momentum": 0.0}, "network": {"norm": False}}
    rows = loop(tmp_path, **still, epochs=9, patience=2, transfer={"head_epochs": 4, "every": 1, "factor": 0.5}).run()
    assert len(rows) == 6
