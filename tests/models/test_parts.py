"""What each of our own parts computes: by hand, against the oracles, and by the shares of its draws."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from pipeline.models import layers
from pipeline.ops.reference import pooling

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def applied(make, x: np.ndarray, **options) -> keras.Model:
    image = keras.Input(x.shape[1:])
    return keras.Model(image, make(image, **options, name="part"))


def test_weighted_pooling_starts_as_an_average_and_uses_its_weights():
    x = pixels(2, 6, 4, 3)
    model = applied(layers.weighted_pool, x, pool_size=2)
    np.testing.assert_allclose(model(x), pooling.average_pool(x, (2, 2)), atol=1e-6)
    weights = pixels(2, 2, 3)
    model.set_weights([weights[..., None]])
    np.testing.assert_allclose(model(x), pooling.weighted_pool(x, weights), atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (2, 3)])
def test_stochastic_pooling_draws_what_it_gives_on_average(size, stride):
    x = np.tile(pixels(1, 7, 6, 2), (4000, 1, 1, 1))
    x[:, :3, :3, 1] = -1  # a window of zeros
    layer = layers.StochasticPooling2D(size, stride, seed=0)
    mean = pooling.stochastic_pool_mean(x[:1], (size, size), stride=stride)
    np.testing.assert_allclose(layer(x[:1]), mean, atol=1e-6)
    drawn = layer(x, training=True).numpy()
    assert set(np.unique(drawn)) <= {0, *x[0].ravel()}
    assert not drawn[:, 0, 0, 1].any()
    np.testing.assert_allclose(drawn.mean(axis=0), mean[0], atol=0.06)
    assert tuple(layer.compute_output_shape(x.shape)) == drawn.shape


def test_stochastic_pooling_sends_the_gradient_to_what_was_drawn():
    x = tf.constant(np.abs(pixels(1, 4, 4, 1)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        drawn = layers.StochasticPooling2D(2, seed=0)(x, training=True)
        loss = tf.reduce_sum(drawn)
    gradient = tape.gradient(loss, x).numpy()
    assert sorted(np.unique(gradient)) == [0, 1]
    assert sorted(x.numpy()[gradient == 1]) == pytest.approx(sorted(drawn.numpy().ravel()))


def test_generalised_mean_goes_from_average_to_maximum_and_learns_its_power():
    x = np.abs(pixels(2, 5, 5, 3)) + 0.1
    for power in (1.0, 3.0, 20.0):
        layer = layers.GeneralizedMeanPooling2D(power)
        np.testing.assert_allclose(layer(x), pooling.generalized_mean(x, power), rtol=1e-4)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layers.GeneralizedMeanPooling2D(3.0)(x))
    (weight,) = tape.watched_variables()
    # The weight is the logarithm of the power: d/dlog p = p d/dp.
    slope = 3 * (pooling.generalized_mean(x, 3.001) - pooling.generalized_mean(x, 2.999)).sum() / 0.002
    assert tape.gradient(value, weight).numpy() == pytest.approx(slope, rel=1e-3)


def test_instance_norm_gives_each_channel_of_each_image_mean_0_and_variance_1():
    x = 5 + 3 * pixels(2, 6, 6, 4)
    answer = applied(layers.instance_norm, x)(x).numpy()
    np.testing.assert_allclose(answer.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(answer.var(axis=(1, 2)), 1, atol=1e-4)


def test_local_response_norm_is_that_of_tensorflow():
    x = 10 * pixels(2, 4, 3, 9)
    answer = applied(layers.local_response_norm, x, size=5, alpha=0.01)(x)
    np.testing.assert_allclose(answer, tf.nn.lrn(x, depth_radius=2, bias=2, alpha=0.01, beta=0.75), rtol=1e-5)


def test_channels_are_dealt_out_anew():
    x = np.broadcast_to(np.arange(6.0), (1, 2, 2, 6))
    answer = applied(layers.channel_shuffle, x, groups=2)(x)
    np.testing.assert_array_equal(answer[0, 1, 1], [0, 3, 1, 4, 2, 5])
    with pytest.raises(ValueError, match="6 channels cannot be shuffled in 4 groups"):
        applied(layers.channel_shuffle, x, groups=4)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    x = np.ones((2000, 2, 2, 3), "float32")
    model = applied(layers.stochastic_depth, x, rate=0.2)
    kept = model(x, training=True).numpy().reshape(2000, -1)
    assert set(np.unique(kept)) == {0, np.float32(1.25)}
    assert (kept.min(axis=1) == kept.max(axis=1)).all()
    assert kept.mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(model(x), x)


def test_shake_shake_weighs_forward_and_backward_apart():
    one, other = tf.ones((500, 2, 2, 1)), tf.zeros((500, 2, 2, 1))
    layer = layers.ShakeShake(seed=0)
    with tf.GradientTape() as tape:
        tape.watch([one, other])
        mixed = layer([one, other], training=True)
        loss = tf.reduce_sum(mixed)
    forward, (backward, rest) = mixed.numpy(), tape.gradient(loss, [one, other])
    assert (np.ptp(forward, axis=(1, 2, 3)) == 0).all()  # one draw per image
    for draws in (forward, backward.numpy()):
        assert 0 <= draws.min() < 0.05 < 0.95 < draws.max() <= 1
    np.testing.assert_allclose(backward + rest, 1, rtol=1e-5)
    assert abs(np.corrcoef(forward[:, 0, 0, 0], backward[:, 0, 0, 0])[0, 1]) < 0.15
    np.testing.assert_array_equal(layer([one, other]), np.full(one.shape, 0.5))


def test_drop_block_drops_whole_squares_and_keeps_the_sum():
    x = np.ones((400, 12, 10, 2), "float32")
    layer = layers.DropBlock2D(0.2, block_size=3, seed=0)
    answer = layer(x, training=True).numpy()
    gone = answer == 0
    # A pixel that is gone lies in at least one square that is gone whole.
    inside = pooling.max_pool(-1.0 * gone, (3, 3), stride=1) == -1
    covered = pooling.max_pool(np.pad(inside, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(float), (3, 3), stride=1)
    np.testing.assert_array_equal(gone, covered == 1)
    assert 0.15 < gone.mean() < 0.2  # squares overlap, which the paper's chance does not count
    assert answer.mean() == pytest.approx(1, abs=1e-5)
    assert (gone[..., 0] != gone[..., 1]).any()
    np.testing.assert_array_equal(layer(x), x)


def test_drop_block_on_a_map_smaller_than_its_square():
    x = np.ones((300, 2, 4, 1), "float32")
    answer = layers.DropBlock2D(0.25, block_size=7, seed=0)(x, training=True).numpy()
    columns = (answer == 0).all(axis=1)[..., 0]
    assert set(columns.sum(axis=1)) <= {0, 2, 3, 4}
    assert (answer == 0).mean() == pytest.approx(0.23, abs=0.05)
    with pytest.raises(ValueError, match=r"the rate of \w+ cannot be 1.5"):
        layers.DropBlock2D(1.5)


def test_mixed_styles_are_between_an_image_and_the_next_and_its_content_stays():
    x = pixels(2000, 4, 4, 2) + 50.0 * (np.arange(2000) % 2).reshape(-1, 1, 1, 1).astype("float32")
    answer = layers.MixStyle(alpha=0.4, rate=1.0, seed=0)(x, training=True).numpy()
    own, found = x.mean(axis=(1, 2)), answer.mean(axis=(1, 2))
    share = (found - own) / (np.roll(own, -1, axis=0) - own)
    np.testing.assert_allclose(share[:, 0], share[:, 1], atol=0.03)  # one draw an image, for all channels
    assert scipy.stats.kstest(share[:-1, 0], scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    deviations = x.std(axis=(1, 2))
    between = deviations + share * (np.roll(deviations, -1, axis=0) - deviations)
    np.testing.assert_allclose(answer.std(axis=(1, 2)), between, rtol=2e-3)
    content = (one - one.mean(axis=(1, 2), keepdims=True) for one in (x, answer))
    plain, mixed = (one / one.std(axis=(1, 2), keepdims=True) for one in content)
    np.testing.assert_allclose(plain, mixed, atol=0.01)


def test_styles_are_mixed_in_a_share_of_the_batches_and_send_no_gradient_to_other_images():
    x = tf.constant(pixels(4, 5, 5, 3))
    layer = layers.MixStyle(alpha=1.0, rate=0.3, seed=0)
    answers = [layer(x, training=True) for _ in range(300)]
    changed = [float(tf.reduce_max(tf.abs(answer - x))) > 1e-4 for answer in answers]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.1)
    layer = layers.MixStyle(rate=1.0, seed=0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        first = layer(x, training=True)[0]
    reached = tape.gradient(first, x).numpy()
    assert reached[0].all()
    assert not reached[1:].any()
    with pytest.raises(ValueError, match=r"cannot have alpha 0 and rate 0\.5; give a positive alpha"):
        layers.MixStyle(alpha=0)
