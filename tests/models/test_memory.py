"""The memory of activations by hand."""

import keras

from pipeline.models.inspect import activation_memory
from pipeline.registry import MODELS


def memory_of(outputs, inputs) -> dict[str, tuple[int, int]]:
    rows = activation_memory(keras.Model(inputs, outputs))
    return {one.name: (one.output, one.alive) for one in rows}


def test_a_chain_holds_two_tensors_at_a_time():
    x = inputs = keras.Input((4, 4, 1), name="image")
    x = keras.layers.Conv2D(2, 3, padding="same", name="conv")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    expected = {"image": (64, 64), "conv": (128, 64 + 128), "relu": (128, 128 + 128), "pool": (8, 128 + 8)}
    assert memory_of(x, inputs) == expected


def test_a_shortcut_is_held_until_it_is_added():
    inputs = keras.Input((2, 2, 1), name="image")
    y = keras.layers.ReLU(name="one")(inputs)
    y = keras.layers.ReLU(name="two")(y)
    total = keras.layers.Add(name="add")([inputs, y])
    expected = {"image": (16, 16), "one": (16, 32), "two": (16, 48), "add": (16, 48)}
    assert memory_of(total, inputs) == expected


def test_an_output_is_held_to_the_end():
    inputs = keras.Input((2, 2, 1), name="image")
    early = keras.layers.ReLU(name="early")(inputs)
    late = keras.layers.ReLU(name="late")(keras.layers.ReLU(name="middle")(early))
    found = memory_of([early, late], inputs)
    assert found["late"] == (16, 48)


def test_resnet20_holds_three_maps_of_its_first_stage():
    memory = activation_memory(MODELS.build("resnet20"))
    assert max(one.alive for one in memory) == 3 * 32 * 32 * 16 * 4
