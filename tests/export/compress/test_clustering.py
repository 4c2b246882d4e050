import keras
import numpy as np
import pytest
from depthwise_digits import accuracy, digits, fit, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from seeding import set_seed
from zoo import difference, images, registered

from pipeline.errors import UserError
from pipeline.export.compress.clustering import (
    ShareValues,
    centroids,
    cluster,
    clusters_of,
    compare_clustered,
    nearest,
    strip_clustering,
)
from pipeline.export.compress.constraints import constrained
from pipeline.export.compress.folding import fold_batch_norm
from pipeline.export.compress.quantize_aware import quantize_aware, strip_quantization
from pipeline.export.compress.sparsity import sparsify, sparsity_of

layers = keras.layers


def network() -> keras.Model:
    set_seed(0)
    image = keras.Input((6,))
    x = layers.Dense(64, activation="relu", name="first")(image)
    x = layers.Dense(64, activation="relu", name="middle")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def step(model: keras.Model, optimizer: keras.Optimizer | None = None, steps: int = 1) -> None:
    """Take optimizer steps on fixed numbers."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse")
    for _ in range(steps):
        model.train_on_batch(x, y)


def test_lloyd_by_hand():
    # From 0, 5, 10: {0, 1, 2}, {6}, {10} and their means.
    np.testing.assert_allclose(centroids(np.array([10.0, 0, 1, 2, 6]), 3), [1, 6, 10])
    np.testing.assert_array_equal(centroids(np.array([3.0, 1, 3]), 5), [1, 3])
    # 0, 5, 10: the middle one gets nothing, and starts again at 2, which is farthest from its mean.
    np.testing.assert_allclose(centroids(np.array([0.0, 0, 0, 2, 10]), 3), [0, 2, 10])
    np.testing.assert_array_equal(nearest(np.array([0.0, 3.4, 3.6, 99]), np.array([1.0, 6.0, 10.0])), [0, 0, 1, 2])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60), st.integers(1, 8))
def test_each_mean_is_that_of_the_values_nearest_to_it(values, count):
    values = np.array(values)
    means = centroids(values, count)
    assert len(means) <= count
    assert (np.diff(means) > 0).all()
    number = nearest(values, means)
    # Never worse than the evenly spaced values that it starts from.
    spaced = np.linspace(values.min(), values.max(), count)
    start = ((values - spaced[nearest(values, spaced)]) ** 2).sum()
    assert ((values - means[number]) ** 2).sum() <= start + 1e-6


def test_each_kernel_has_its_number_of_values():
    model = registered("simple_cnn")
    shared = cluster(model, 8)
    assert all(2 <= count <= 8 for count in clusters_of(shared).values())
    assert min(clusters_of(model).values()) > 100
    named = clusters_of(cluster(network(), {"middle": 4}))
    assert named["middle"] == 4
    assert named["first"] > 100


def test_depthwise_kernels_and_unfoldable_norms_stay():
    model = registered("mobilenet_v2")
    shared = cluster(model, 16)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in shared.layers)
    counts = clusters_of(shared)
    for layer in shared.layers:
        if isinstance(layer, layers.DepthwiseConv2D):
            assert counts[layer.name] > 16
        elif isinstance(layer, layers.Conv2D):
            assert counts[layer.name] <= 16
    # With enough values it is the folded model.
    exact = cluster(model, 65_535)
    x = images(model)
    assert difference(fold_batch_norm(model)(x), exact(x)) < 1e-4


def test_a_shared_value_moves_by_the_mean_gradient_of_its_weights():
    shared = cluster(network(), 4)
    kernel = shared.get_layer("middle").kernel
    before, numbers = kernel.numpy(), np.asarray(kernel.constraint._numbers).reshape(kernel.shape)
    free = keras.models.clone_model(network())
    for old, new in zip(shared.weights, free.weights, strict=True):
        new.assign(old)
    step(shared)
    step(free)
    moves = free.get_layer("middle").kernel.numpy() - before
    expected = before + np.array([moves[numbers == k].mean() if (numbers == k).any() else 0 for k in range(5)])[numbers]
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert np.abs(moves).max() > 0


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.01)])
def test_equal_weights_stay_equal_and_zeros_zero(optimizer):
    shared = cluster(sparsify(network(), {"middle": 0.5}), 6)
    before = shared.get_layer("middle").kernel.numpy()
    assert len(np.unique(before)) == 6
    step(shared, optimizer, steps=20)
    after = shared.get_layer("middle").kernel.numpy()
    assert len(np.unique(after)) == 6
    np.testing.assert_array_equal(after == 0, before == 0)
    for value in np.unique(before):
        assert len(np.unique(after[before == value])) == 1
    assert not np.array_equal(before, after)


def test_a_large_cluster_does_not_drift():
    weights = np.full(3_000_000, 0.1, np.float32)
    weights[0] = -1.0
    constraint = ShareValues.of(weights, 2)
    np.testing.assert_array_equal(constraint(weights), weights)


def test_clusters_survive_saving_in_safe_mode(tmp_path):
    shared = cluster(network(), 4)
    shared.save(tmp_path / "shared.keras")
    loaded = keras.models.load_model(tmp_path / "shared.keras", safe_mode=True)
    step(loaded, steps=3)
    assert set(clusters_of(loaded).values()) == {4}


def test_stripping_leaves_a_plain_equal_model():
    shared = cluster(network(), 4)
    step(shared)
    plain = strip_clustering(shared)
    assert not constrained(plain, ShareValues)
    assert len(constrained(shared, ShareValues)) == 3
    x = np.ones((2, 6), "float32")
    np.testing.assert_array_equal(shared(x), plain(x))
    assert clusters_of(plain) == clusters_of(shared)


def test_quantisation_aware_training_keeps_clusters():
    shared = cluster(network(), 8)
    aware = quantize_aware(shared, input_range=None)
    step(aware, steps=5)
    assert set(clusters_of(aware).values()) == {8}
    assert max(clusters_of(strip_quantization(aware)).values()) <= 8


def test_sparse_then_clustered_keeps_both():
    shared = cluster(sparsify(network(), {"middle": 0.75}), 5)
    assert sparsity_of(shared)["middle"] == 0.75
    assert clusters_of(shared)["middle"] == 5


@pytest.mark.slow
def test_the_zipped_int8_file_is_smaller_and_accuracy_comes_back(caplog):
    train, _, test, _ = digits()
    folded = fold_batch_norm(trained())
    shared = cluster(trained(), 16)
    before = accuracy(shared(test))
    tuned = fit(shared, epochs=6, learning_rate=1e-3)
    assert accuracy(tuned(test)) > max(before, accuracy(trained()(test)) - 0.02)
    with caplog.at_level("INFO"):
        sizes = compare_clustered(folded, strip_clustering(tuned), keras.ops.softmax, train[:32])
    assert sizes.gain
    assert "zipped int8 file" in caplog.text


def test_no_gain_is_said(caplog):
    model = registered("lenet5")
    with caplog.at_level("INFO"):
        sizes = compare_clustered(model, cluster(model, 65_535), keras.ops.softmax, images(model, 4))
    assert not sizes.gain
    assert caplog.messages[-1].endswith(": no gain")


def test_bad_options():
    with pytest.raises(UserError, match="0 clusters for 'first': give at least 1 and less than 65,536"):
        cluster(network(), 0)
    with pytest.raises(UserError, match="1 cluster for 'middle', which has zeros that stay: give at least 2"):
        cluster(sparsify(network(), 0.5), 1)
    with pytest.raises(UserError, match="no layer 'midle' has a kernel; did you mean 'middle'"):
        cluster(network(), {"midle": 4})
    with pytest.raises(UserError, match=r"shared in a kernel of \(2, 3\), but it is \(2, 2\) now; prune channels"):
        ShareValues.of(np.ones((2, 3)), 2)(keras.ops.ones((2, 2)))
    image = keras.Input((4, 4, 2))
    with pytest.raises(UserError, match="has no kernels to cluster besides depthwise ones"):
        cluster(keras.Model(image, layers.DepthwiseConv2D(3)(image)), 4)
