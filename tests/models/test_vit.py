"""Vision transformers: golden counts, and which patches, positions and tokens lead to the answer."""

import functools

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.models.inspect import layer_costs, summary
from pipeline.models.stages import stages
from pipeline.models.transformer import sequence_pool
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

# As timm counts vit_<size>_patch<patch>_224, at 1000 classes.
TIMM = {
    "vit_tiny_16": 5_717_416,
    "vit_small_16": 22_050_664,
    "vit_small_32": 22_878_952,
    "vit_base_16": 86_567_656,
    "vit_base_32": 88_224_232,
}


@functools.cache
def micro(pool: str = "token", shape: tuple[int, int, int] = (16, 24, 3)) -> keras.Model:
    set_seed(0)
    return MODELS.build("vit_micro_16", shape, 5, pool=pool)


@pytest.mark.parametrize(("name", "expected"), TIMM.items())
def test_networks_have_timms_parameters(name, expected):
    assert summary(name).parameters == expected


def test_base_has_the_published_multiply_accumulates():
    assert summary("vit_base_16").macs == pytest.approx(17.58e9, rel=0.002)  # timm; 17.6 in arXiv 2012.12877, table 5


def test_attention_is_counted_by_hand():
    costs = {cost.name: cost.macs for cost in layer_costs(micro())}
    tokens, size = 4 * 6 + 1, 32
    assert costs["block1_attention"] == 4 * tokens * size**2 + 2 * tokens**2 * size


# By hand: the average needs neither a class token nor its position.
@pytest.mark.parametrize(("pool", "tokens"), [("token", 4 * 6 + 1), ("average", 4 * 6)])
def test_there_are_as_many_positions_as_tokens(pool, tokens):
    model, size = micro(pool), 32
    patches = (4 * 4 * 3 + 1) * size
    block = 4 * (size**2 + size) + 8 * size**2 + 5 * size + 4 * size
    extra = size if pool == "token" else 0
    assert model.count_params() == patches + tokens * size + extra + 2 * block + 2 * size + 5 * size + 5
    assert model.get_layer("positions").kernel.shape == (1, tokens * size)


@pytest.mark.parametrize(
    ("shape", "options", "level", "side"),
    [((32, 64, 3), {}, 2, (8, 16)), ((32, 64, 1), {"stem": "imagenet"}, 4, (2, 4)), ((96, 128, 3), {}, 4, (6, 8))],
)
@pytest.mark.parametrize("pool", ["token", "average"])
def test_the_level_of_the_patches_is_marked(shape, options, level, side, pool):
    model = MODELS.build("vit_micro_16", shape, 5, pool=pool, **options)
    assert {level: tensor.shape[1:] for level, tensor in stages(model).items()} == {level: (*side, 32)}


def test_the_marked_map_has_a_patch_where_it_is_in_the_image():
    model = micro()
    patches = keras.Model(model.input, model.get_layer("c2").output)
    image = np.full((1, 16, 24, 3), 100.0, "float32")
    other = image.copy()
    other[0, 5, 18] = 255
    change = np.abs(patches(other).numpy() - patches(image).numpy()).sum(-1)[0]
    assert np.unravel_index(change.argmax(), change.shape) == (5 // 4, 18 // 4)


@pytest.mark.parametrize("pool", ["token", "average"])
def test_patches_are_told_apart_by_their_positions_alone(pool):
    model = micro(pool)
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (1, 16, 24, 3)).astype("float32")
    blocks = image.reshape(4, 4, 6, 4, 3).swapaxes(1, 2).reshape(24, 4, 4, 3)
    shuffled = rng.permutation(blocks).reshape(4, 6, 4, 4, 3).swapaxes(1, 2).reshape(1, 16, 24, 3)
    positions = model.get_layer("positions").kernel
    before = positions.numpy()
    try:
        assert np.abs(model(image) - model(shuffled)).max() > 1e-4
        positions.assign(np.zeros_like(before))
        np.testing.assert_allclose(model(image), model(shuffled), atol=1e-5)
    finally:
        positions.assign(before)


def test_dropout_and_stochastic_depth_grow_with_the_blocks():
    model = MODELS.build("vit_micro_16", (16, 16, 3), 5, dropout=0.2, stochastic_depth=0.1)
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    branches = [f"block{block}_{part}" for block in (1, 2) for part in ("attention", "mlp")]
    assert rates == {
        "positions_dropout": 0.2,
        **{f"{branch}_dropout": 0.2 for branch in branches},
        **{f"{branch}_drop": 0.1 for branch in branches[2:]},
    }
    assert model.get_layer("block2_mlp_drop").noise_shape == (None, 1, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 3), "model vit_16 halves the image 2 times: .* least 4x8$"),
        ((33, 30, 3), "model vit_16 cuts the image into patches of 4x4: data.image_size 33x30 .*; give 36x32$"),
        ((96, 100, 3), "patches of 16x16: data.image_size 96x100 is no multiple of that; give 96x112$"),
    ],
)
def test_an_image_of_broken_patches_is_refused(shape, message):
    with pytest.raises(UserError, match=message):
        MODELS.build("vit_micro_16", shape, 5)


# Blocks, size, MLP ratio, tokens, weights of the convolutions, classes; and the millions that the authors' repository
# (SHI-Labs/Compact-Transformers) tells, with or without position embeddings. Their queries, keys and values have no
# bias; their scores of tokens have one, which changes nothing.
COMPACT = {
    "cct_2_3x2": (2, 128, 1, 64, 27 * 64 + 9 * 64 * 128, 10, 0.284, True),
    "cct_4_3x2": (4, 128, 1, 64, 27 * 64 + 9 * 64 * 128, 10, 0.482, True),
    "cct_6_3x1": (6, 256, 2, 256, 27 * 256, 10, 3.168, False),
    "cct_6_3x2": (6, 256, 2, 64, 27 * 64 + 9 * 64 * 256, 10, 3.327, True),
    "cct_7_3x1": (7, 256, 2, 256, 27 * 256, 10, 3.760, True),
    "cct_7_3x2": (7, 256, 2, 64, 27 * 64 + 9 * 64 * 256, 10, 3.853, True),
    "cct_14_7x2": (14, 384, 3, 196, 49 * (3 * 64 + 64 * 384), 1000, 22.29, False),
}


@pytest.mark.parametrize(("name", "figures"), COMPACT.items())
def test_compact_networks_have_their_authors_parameters(name, figures):
    blocks, size, ratio, tokens, convolutions, classes, millions, with_positions = figures
    block = 4 * size**2 + 4 * size + 2 * ratio * size**2 + ratio * size + size + 4 * size
    expected = convolutions + tokens * size + blocks * block + 2 * size + size + size * classes + classes
    side = 224 if classes == 1000 else 32
    with without_values():
        assert MODELS.build(name, (side, side, 3), classes).count_params() == expected
    theirs = expected - blocks * 3 * size + 1 - (0 if with_positions else tokens * size)
    assert theirs == pytest.approx(millions * 1e6, abs=5e3 if millions > 10 else 500)


@pytest.mark.parametrize(
    ("name", "shape", "sides"),
    [
        ("cct_tiny", (32, 20, 3), {0: (32, 20), 1: (16, 10), 2: (8, 5)}),
        ("cct_14_7x2", (64, 64, 3), {1: (32, 32), 2: (16, 16), 3: (8, 8), 4: (4, 4)}),
    ],
)
def test_each_level_of_a_compact_network_is_marked(name, shape, sides):
    with without_values():
        model = MODELS.build(name, shape, 5)
    assert {level: tensor.shape[1:3] for level, tensor in stages(model).items()} == sides


def test_tokens_are_averaged_by_the_weights_they_get():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, sequence_pool(inputs))
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    shares = np.exp(x @ model.get_layer("pool_scores").kernel)
    np.testing.assert_allclose(model(x), (x * shares / shares.sum(1, keepdims=True)).sum(1), rtol=1e-5, atol=1e-6)
