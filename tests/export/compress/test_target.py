"""Pruning goes as far as the target asks, and says so when it cannot."""

import keras
import pytest
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export.compress import to_target
from pipeline.export.compress.target import latency, macs, parameters

layers = keras.layers


def network(width: int = 64, size: int = 16) -> keras.Model:
    set_seed(0)
    x = inputs = keras.Input((size, size, 3), name="image")
    for index in range(3):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{index}")(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("measure", [parameters, macs])
@pytest.mark.parametrize("target", [0.25, 0.5, 0.9])
def test_the_target_is_reached_and_little_more(measure, target):
    model = network()
    pruned = to_target(model, measure, target, multiple=1)
    reached = measure(pruned) / measure(model)
    assert target - 0.04 < reached <= target


def test_measures_count_what_they_say():
    model = network(8)
    assert parameters(model) == 3 * 9 * 8 + 8 + 2 * (8 * 9 * 8 + 8) + 8 * 4 + 4
    assert macs(model) == 256 * (3 * 9 * 8 + 2 * 8 * 9 * 8) + 8 * 4


def test_importance_is_measured_once():
    calls = []

    def importance(channels):
        from pipeline.export.compress.importance import l1

        calls.append(channels)
        return l1(channels)

    to_target(network(16, 8), parameters, 0.5, importance=importance)
    assert len(calls) == 1


@pytest.mark.slow
def test_measured_latency_falls():
    model = network(96, 48)
    pruned = to_target(model, latency, 0.5)
    assert latency(pruned) < 0.7 * latency(model)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (0.0, {}, "the target is 0; give the part"),
        (1.5, {}, "the target is 1.5; give the part"),
        (0.01, {"multiple": 32}, "cannot reach 1%: the smallest model measures 2[0-9]%; give a higher target"),
    ],
)
def test_a_target_out_of_reach_is_said(target, options, message):
    with pytest.raises(UserError, match=message):
        to_target(network(), parameters, target, **options)


def test_unknown_costs_are_said():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.SimpleRNN(4, name="memory")(layers.Reshape((64, 3))(layers.Conv2D(3, 1)(x))))
    with pytest.raises(UserError, match="memory, a SimpleRNN, are not known; give parameters or latency"):
        macs(model)
