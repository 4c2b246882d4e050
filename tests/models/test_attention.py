"""Attention by hand, and the counts of the residual networks that attend."""

import keras
import numpy as np
import pytest

from pipeline.models.attention import channel_attention, self_attention, spatial_attention
from pipeline.models.inspect import layer_costs, summary

# Trainable, at 1000 classes: of the se_resnets as Cadene's pretrained-models and timm (legacy_seresnet) count them.
SE = {
    "se_resnet18": 11_778_592,
    "se_resnet34": 21_958_868,
    "se_resnet50": 28_088_024,
    "se_resnet101": 49_326_872,
    "se_resnet152": 66_821_848,
}


@pytest.mark.parametrize(("name", "expected"), SE.items())
def test_networks_with_squeeze_and_excitation_have_timms_parameters(name, expected):
    assert summary(name).trainable == expected


# 11.78 M and 28.09 M in arXiv 1807.06521, table 4.
@pytest.mark.parametrize(("name", "blocks"), [("cbam_resnet18", 8), ("cbam_resnet50", 16)])
def test_the_gate_of_places_has_100_parameters_a_block_more(name, blocks):
    gate = 7 * 7 * 2 + 2
    assert summary(name).trainable == SE[name.replace("cbam", "se")] + blocks * gate


# torchvision's resnet50 and resnet101 with three 3x3 convolutions of 512 channels replaced by queries, keys and values,
# and position tables for maps of 14x14 (before the stride) and twice 7x7, for heads of 128 channels; 20.8 M and 39.7 M
# less the tables in arXiv 2101.11605, table 1 and figure 5.
@pytest.mark.parametrize(("name", "convolutional"), [("botnet50", 25_557_032), ("botnet101", 44_549_160)])
def test_attention_replaces_the_3x3_convolutions_of_the_last_stage(name, convolutional):
    tables = 128 * (27 + 27) + 2 * 128 * (13 + 13)
    assert summary(name).trainable == convolutional - 3 * (9 - 3) * 512**2 + tables


def settled(inputs, outputs) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """Return a model with weights that matter, and its kernels and biases by `layer/weight`."""
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "moving_variance") else (-1, 1)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model, {"/".join(weight.path.split("/")[-2:]): weight.numpy() for weight in model.weights}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


X = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype("float32")


def test_channels_are_weighed_by_their_means_and_maxima():
    inputs = keras.Input(X.shape[1:])
    model, weights = settled(inputs, channel_attention(inputs, 3, name="gate"))

    def shared(pooled: np.ndarray) -> np.ndarray:
        hidden = np.maximum(pooled @ weights["gate_reduce/kernel"][0, 0] + weights["gate_reduce/bias"], 0)
        return hidden @ weights["gate_expand/kernel"][0, 0] + weights["gate_expand/bias"]

    gate = sigmoid(shared(X.mean((1, 2))) + shared(X.max((1, 2))))
    np.testing.assert_allclose(model(X), X * gate[:, None, None], rtol=1e-5, atol=1e-5)


def test_places_are_weighed_by_the_mean_and_maximum_of_their_channels():
    inputs = keras.Input(X.shape[1:])
    model, weights = settled(inputs, spatial_attention(inputs, name="gate"))
    pools = np.pad(np.stack([X.mean(-1), X.max(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(pools, (7, 7), axis=(1, 2))
    scores = np.einsum("bhwcij,ijcd->bhwd", windows, weights["gate_conv/kernel"])
    norm = [weights[f"gate_norm/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    scores = (scores - norm[2]) / np.sqrt(norm[3] + 1e-5) * norm[0] + norm[1]
    np.testing.assert_allclose(model(X), X * sigmoid(scores), rtol=1e-4, atol=1e-5)


def attended(x: np.ndarray, heads: int, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Attend place by place: each pair of places has the score q . (k + row embedding + column embedding)."""
    height, width, channels = x.shape
    size = channels // heads
    query, key, value = (
        (x @ weights[f"mix_{part}_conv/kernel"][0, 0]).reshape(height * width, heads, size)
        for part in ("query", "key", "value")
    )
    places = [(i, j) for i in range(height) for j in range(width)]
    result = np.zeros((height * width, heads, size))
    for head in range(heads):
        for a, (i, j) in enumerate(places):
            q = query[a, head] / np.sqrt(size)
            scores = np.array(
                [
                    q @ key[b, head]
                    + q @ weights["mix_down_table/kernel"][:, k - i + height - 1]
                    + q @ weights["mix_along_table/kernel"][:, m - j + width - 1]
                    for b, (k, m) in enumerate(places)
                ]
            )
            shares = np.exp(scores - scores.max())
            result[a, head] = shares / shares.sum() @ value[:, head]
    return result.reshape(height, width, channels)


def test_places_attend_by_content_and_distance():
    inputs = keras.Input(X.shape[1:])
    model, weights = settled(inputs, self_attention(inputs, 2, name="mix"))
    expected = np.stack([attended(x, 2, weights) for x in X])
    np.testing.assert_allclose(model(X), expected, rtol=1e-4, atol=1e-5)


def test_products_between_places_are_counted():
    inputs = keras.Input((3, 5, 4))
    costs = layer_costs(keras.Model(inputs, self_attention(inputs, 2, name="mix")))
    products = [cost.macs for cost in costs if cost.kind == "Matmul"]
    assert products == [2 * 15 * 15 * 2] * 2
    tables = {cost.name: cost.macs for cost in costs if cost.name.endswith("table")}
    assert tables == {"mix_down_table": 30 * 2 * 5, "mix_along_table": 30 * 2 * 9}
