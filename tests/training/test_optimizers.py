import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed
from tiny import loop, weights

from pipeline.registry import OPTIMIZERS
from pipeline.training.optimizers import decays, share_rates


def linear(value: float = 3.0) -> keras.Model:
    net = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(value))]
    )
    net.layers[0].bias.assign([value])
    return net


NAMES = ["adafactor", "adam", "adamw", "lamb", "lion", "muon", "nadam", "radam", "rmsprop", "sgd"]


def test_the_table_is_whole():
    assert OPTIMIZERS.names() == NAMES


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_minimises_a_parabola(name):
    net = linear(1.0)  # some take steps of one size, others start slowly: three units would be far
    options = {"weight_decay": 0.0} if "weight_decay" in OPTIMIZERS.options(name).model_fields else {}
    optimizer = OPTIMIZERS.build(name, net, None, learning_rate=0.05, **options)
    for step in range(300):
        optimizer.learning_rate.assign(0.05 * (1 - step / 300))  # steps of one size would end on both sides of it
        optimizer.apply([2 * tf.convert_to_tensor(v) for v in net.trainable_variables])
    for variable in net.trainable_variables:
        np.testing.assert_allclose(variable.numpy(), 0, atol=0.05)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_learns_in_the_loop_and_resumes_exactly(tmp_path, name):
    options = {"optimizer": {"name": name, "learning_rate": 0.01}, "lookahead": (4, 0.5), "sharpness": 0.01}
    settings = {"epochs": 3, "keep": "last", **options}
    whole = loop(tmp_path / "whole", **settings)
    rows = whole.run()
    assert rows[-1]["loss"] < rows[0]["loss"]
    loop(tmp_path / "cut", **{**settings, "epochs": 1}).run()
    resumed = loop(tmp_path / "cut", **settings)
    resumed.run()
    for one, other in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nesterov_minimises_it_too():
    net = linear()
    optimizer = OPTIMIZERS.build("sgd", net, None, learning_rate=0.05, nesterov=True)
    for _ in range(200):
        optimizer.apply([2 * tf.convert_to_tensor(v) for v in net.trainable_variables])
    np.testing.assert_allclose(net.layers[0].kernel.numpy(), 0, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("adam", "muon")])
def test_decay_shrinks_kernels_and_leaves_norms_and_biases(name):
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1, name="beta1")(inputs)
    x = keras.layers.DepthwiseConv2D(3, name="bias_like")(x)
    x = keras.layers.BatchNormalization()(x)
    net = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    optimizer = OPTIMIZERS.build(name, net, None, learning_rate=0.1, weight_decay=0.5)
    for variable in net.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    optimizer.apply([tf.zeros(v.shape) for v in net.trainable_variables])
    decayed = {v.path for v in net.trainable_variables if not np.allclose(v.numpy(), 1)}
    kernels = [v for v in net.trainable_variables if "kernel" in v.path]
    assert decayed == {v.path for v in kernels}
    assert len(decayed) == 3
    assert len(net.trainable_variables) == 8
    for kernel in kernels:
        np.testing.assert_allclose(kernel.numpy(), 1 - 0.1 * 0.5, rtol=1e-6)  # decoupled: learning rate times decay
        assert decays(kernel)


def test_momentum_by_hand():
    net = linear(1.0)
    optimizer = OPTIMIZERS.build("sgd", net, None, learning_rate=0.1, momentum=0.5)
    for _ in range(2):
        optimizer.apply([tf.ones(v.shape) for v in net.trainable_variables])
    # v1 = -0.1, w = 0.9; v2 = 0.5 * -0.1 - 0.1 = -0.15, w = 0.75
    np.testing.assert_allclose(net.layers[0].kernel.numpy(), 0.75, rtol=1e-6)


def test_clipping_scales_all_gradients_by_their_common_norm():
    net = linear(1.0)
    optimizer = OPTIMIZERS.build("sgd", net, 1.0, learning_rate=1.0, momentum=0.0)
    optimizer.apply([tf.constant([[3.0], [0.0]]), tf.constant([4.0])])  # norm 5
    np.testing.assert_allclose(net.layers[0].kernel.numpy(), [[1 - 0.6], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(net.layers[0].bias.numpy(), [1 - 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "stock"),
    [
        ("sgd", {"momentum": 0.9}, lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1)),
        (
            "sgd",
            {"momentum": 0.9, "nesterov": True},
            lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
        ),
        ("sgd", {"momentum": 0.0}, lambda: keras.optimizers.SGD(0.01, weight_decay=0.1)),
        ("adamw", {}, lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    ],
    ids=["sgd", "nesterov", "no momentum", "adamw"],
)
def test_one_op_a_variable_updates_as_keras_does(name, options, stock):
    set_seed(0)
    nets = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, use_bias=False)]) for _ in range(2)]
    nets[1].set_weights(nets[0].get_weights())
    ours = OPTIMIZERS.build(name, nets[0], None, learning_rate=0.01, weight_decay=0.1, **options)
    theirs = stock()
    for seed in range(20):
        gradient = tf.random.stateless_normal((3, 4), (seed, 0))
        ours.apply([gradient], nets[0].trainable_variables)
        theirs.apply([gradient], nets[1].trainable_variables)
    np.testing.assert_allclose(*(net.get_weights()[0] for net in nets), rtol=1e-4, atol=1e-6)
    found, truth = ([v.numpy() for v in each.variables] for each in (ours, theirs))
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_muon_decays_convolutions_like_the_rest_of_its_adam():
    net = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3, use_bias=True), keras.layers.Flatten()])
    optimizer = OPTIMIZERS.build("muon", net, None, learning_rate=0.1, weight_decay=0.5)
    net.layers[0].kernel.assign(tf.ones((3, 3, 3, 2)))
    net.layers[0].bias.assign([1.0, 1.0])
    optimizer.apply([tf.zeros(v.shape) for v in net.trainable_variables])
    np.testing.assert_allclose(net.layers[0].kernel.numpy(), 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(net.layers[0].bias.numpy(), 1.0)


def test_rectified_adam_by_hand():
    """Four steps of plain momentum, since the variance has no value before the fifth; then the rectified step."""
    net = linear(1.0)
    optimizer = OPTIMIZERS.build("radam", net, None, learning_rate=0.1, beta_1=0.9, beta_2=0.999)
    weights, first, second = 1.0, 0.0, 0.0
    for step in range(1, 9):
        gradient = 0.5 * step
        optimizer.apply([tf.fill(v.shape, gradient) for v in net.trainable_variables])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        longest = 2 / (1 - 0.999) - 1
        length = longest - 2 * step * 0.999**step / (1 - 0.999**step)
        move = first / (1 - 0.9**step)
        if length > 4:
            r = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
            move *= r / ((second / (1 - 0.999**step)) ** 0.5 + 1e-7)
        weights -= 0.1 * move
        assert (length > 4) == (step > 4)
        np.testing.assert_allclose(net.layers[0].kernel.numpy(), weights, rtol=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scale"])
def test_half_the_share_is_half_the_rate_in_update_and_decay(name, scaled):
    set_seed(0)
    nets = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]) for _ in range(2)]
    nets[1].set_weights(nets[0].get_weights())
    decay = {"weight_decay": 0.1} if "weight_decay" in OPTIMIZERS.options(name).model_fields else {}
    found = []
    for net, rate in zip(nets, (0.02, 0.01), strict=True):
        rule = OPTIMIZERS.build(name, net, 1.0, learning_rate=rate, **decay)
        if rate == 0.02:
            share_rates(rule, [0.5, 0.5])
        if scaled:
            rule = keras.optimizers.LossScaleOptimizer(rule)
            rule.build(net.trainable_variables)
        for seed in range(3):
            gradients = [tf.random.stateless_normal(v.shape, (seed, 0)) for v in net.trainable_variables]
            rule.apply([rule.scale_loss(gradient) for gradient in gradients], net.trainable_variables)
        found.append(net.get_weights())
    for ours, truth in zip(*found, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-7)


def test_every_variable_has_its_own_share():
    net = linear(1.0)
    optimizer = OPTIMIZERS.build("sgd", net, None, learning_rate=0.1, momentum=0.0, weight_decay=0.5)
    share_rates(optimizer, [1.0, 0.1])
    optimizer.apply([tf.ones(v.shape) for v in net.trainable_variables])
    np.testing.assert_allclose(net.layers[0].kernel.numpy(), 1 - 0.1 * (1 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(net.layers[0].bias.numpy(), 1 - 0.01, rtol=1e-6)
