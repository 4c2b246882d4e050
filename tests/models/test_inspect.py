"""Multiply-accumulates by hand and against the figures of the papers and torchvision."""

import keras
import pytest

from pipeline.errors import UserError
from pipeline.models.inspect import activation_memory, layer_costs, receptive_fields, summarize, summary
from pipeline.registry import MODELS


def macs_of(layer: keras.layers.Layer, shape: tuple[int, ...]) -> int:
    inputs = keras.Input(shape)
    return {cost.name: cost.macs for cost in layer_costs(keras.Model(inputs, layer(inputs)))}[layer.name]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (keras.layers.Conv2D(8, 3), (10, 12, 4), 8 * 10 * (3 * 3 * 4 * 8)),
        (keras.layers.Conv2D(8, 3, strides=2, padding="same"), (11, 12, 4), 6 * 6 * (3 * 3 * 4 * 8)),
        (keras.layers.Conv2D(8, 3, groups=2, padding="same"), (5, 5, 4), 25 * (3 * 3 * 2 * 8)),
        (keras.layers.Conv2D(8, 3, dilation_rate=2), (10, 10, 4), 6 * 6 * (3 * 3 * 4 * 8)),
        (keras.layers.DepthwiseConv2D(3, padding="same"), (6, 6, 4), 36 * 9 * 4),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 4), 16 * 9 * 4 * 2),
        (keras.layers.SeparableConv2D(8, 3, depth_multiplier=2), (6, 6, 4), 16 * (9 * 4 * 2 + 4 * 2 * 8)),
        (keras.layers.PReLU(), (5, 5, 3), 0),
        (keras.layers.Conv2DTranspose(8, 2, strides=2), (5, 7, 4), 5 * 7 * (2 * 2 * 4 * 8)),
        (keras.layers.Dense(10), (7,), 70),
        (keras.layers.Dense(10), (5, 6, 7), 5 * 6 * 70),
        (keras.layers.BatchNormalization(), (5, 5, 3), 0),
        (keras.layers.MaxPooling2D(), (6, 6, 3), 0),
    ],
)
def test_one_layer_by_hand(layer, shape, expected):
    assert macs_of(layer, shape) == expected


def test_a_shared_layer_counts_once_per_call_and_its_weights_once():
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    inputs = keras.Input((8, 8, 3))
    outputs = shared(keras.layers.MaxPooling2D()(shared(inputs)))
    (cost,) = [cost for cost in layer_costs(keras.Model(inputs, outputs)) if cost.name == "shared"]
    assert cost.macs == (64 + 16) * 81
    assert cost.parameters == 84
    assert cost.output_shape == (8, 8, 3)


def test_calls_outside_the_model_do_not_count():
    layer = keras.layers.Dense(4, use_bias=False)
    inputs, other = keras.Input((3,)), keras.Input((3,))
    layer(other)
    assert summarize(keras.Model(inputs, layer(inputs))).macs == 12


def test_a_model_inside_a_model_is_one_row():
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, keras.layers.Dense(4)(inner_input), name="inner")
    inputs = keras.Input((3,))
    costs = layer_costs(keras.Model(inputs, keras.layers.Dense(2, name="outer")(inner(inputs))))
    assert [(cost.name, cost.macs) for cost in costs[1:]] == [("inner", 12), ("outer", 8)]


def test_an_unknown_kernel_is_not_silently_free():
    with pytest.raises(TypeError, match="the multiply-accumulates of mystery, a Conv1D, are not known"):
        macs_of(keras.layers.Conv1D(2, 3, name="mystery"), (8, 3))


def test_a_sequential_model_is_read_and_a_subclassed_one_is_refused():
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Flatten()]
    stack = keras.Sequential(layers)
    assert [cost.macs for cost in layer_costs(stack)] == [0, 36 * 18, 0]
    assert receptive_fields(stack)["conv"].size == (3, 3)
    assert max(one.alive for one in activation_memory(stack)) == 2 * 72 * 4

    class Mine(keras.Model):
        pass

    for look in (layer_costs, activation_memory, receptive_fields):
        with pytest.raises(UserError, match="the model 'mine' cannot be inspected"):
            look(Mine(name="mine"))


def test_rows_add_up_to_the_whole():
    model = MODELS.build("unet", (32, 48, 3), 5)
    costs = layer_costs(model)
    total = summarize(model)
    assert [cost.name for cost in costs][:3] == ["image", "rescaling", "stem_conv"]
    assert sorted(cost.name for cost in costs) == sorted(layer.name for layer in model.layers)
    assert total.parameters == model.count_params() == sum(cost.parameters for cost in costs)
    assert total.macs == sum(cost.macs for cost in costs)
    assert (total.name, total.input_shape, total.classes) == ("unet", (32, 48, 3), 5)


# By hand for LeNet-5; convolutions and classifier as torchvision and the MobileNet papers count them.
MACS = {
    "lenet5": 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 840,
    "resnet20": 40_813_184,
    "mobilenet_v1": 568_740_352,
    "mobilenet_v2": 300_774_272,
    "resnet18": 1_814_073_344,
    "resnet50": 4_089_184_256,
}


@pytest.mark.parametrize(("name", "expected"), MACS.items())
def test_networks_have_the_published_multiply_accumulates(name, expected):
    assert summary(name).macs == expected
