"""Pre-activation networks: golden counts, where they halve and activate, and the outputs of keras.applications."""

import keras
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.registry import MODELS

# All weights as keras.applications counts them, at 1000 classes.
APPLICATIONS = {"resnet50_v2": 25_613_800, "resnet101_v2": 44_675_560, "resnet152_v2": 60_380_648}
WIDTHS = (64, 128, 256, 512)


@pytest.mark.parametrize(("name", "expected"), APPLICATIONS.items())
def test_bottleneck_networks_have_the_parameters_of_keras_applications(name, expected):
    assert summary(name).parameters == expected


def moved_norms(first: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> int:
    """Count what pre-activation changes in a network of basic blocks, trainable: where norms are, and how wide."""
    last_of_block = sum(2 * width * count for width, count in zip(widths, blocks, strict=True))
    of_projections = sum(2 * width for width in widths[1:])
    entered = [first, *(width for width, count in zip(widths, blocks, strict=True) for _ in range(count))][1:-1]
    return sum(2 * width for width in entered) + 2 * widths[-1] - last_of_block - of_projections


@pytest.mark.parametrize(
    ("name", "blocks", "version_1"), [("resnet18", (2, 2, 2, 2), 11_689_512), ("resnet34", (3, 4, 6, 3), 21_797_672)]
)
def test_basic_networks_have_those_of_version_1_with_other_norms_and_biases(name, blocks, version_1):
    biases = 64 + sum(width * count for width, count in zip(WIDTHS, blocks, strict=True)) + sum(WIDTHS[1:])
    assert summary(f"{name}_v2").trainable == version_1 + moved_norms(64, WIDTHS, blocks) + biases


@pytest.mark.parametrize(
    ("blocks", "version_1"),
    [(1, 78_042), (3, 272_474), (9, 855_770)],  # as in test_resnet.py
)
def test_small_networks_have_those_of_version_1_with_other_norms(blocks, version_1):
    expected = version_1 + moved_norms(16, (16, 32, 64), (blocks,) * 3)
    assert summary(f"resnet{6 * blocks + 2}_v2").trainable == expected


def test_the_110_layers_have_the_papers_parameters():
    assert summary("resnet110_v2").trainable == 1_730_522  # 1.7 M in arXiv 1603.05027, table 5


def test_the_sum_goes_on_as_it_is():
    """Nothing but additions leads from the first block to the last norm, except where the shape changes."""
    model = MODELS.build("resnet20_v2", (32, 32, 3), 10)
    tensor, path = model.get_layer("last_norm").input, []
    while (layer := tensor._keras_history.operation).name != "stem_relu":
        path.append(type(layer).__name__)
        tensor = layer.input[0] if isinstance(layer.input, list) else layer.input
    # The shape changes twice: there the shortcut is a convolution of what is normalised and activated.
    projection = ["Add", "Conv2D", "Activation", "BatchNormalization", "Activation"]  # the last is the mark
    assert path == [*["Add"] * 2, *projection, *["Add"] * 2, *projection, *["Add"] * 3]


def test_the_last_block_of_a_stage_halves():
    model = MODELS.build("resnet50_v2", (32, 32, 3), 2, width=4)
    strides = [model.get_layer(f"stage1_block{index}_2_conv").strides[0] for index in (1, 2, 3)]
    assert strides == [1, 1, 2]
    assert model.get_layer("stage1_block3_shortcut_pool").strides == (2, 2)
    assert model.get_layer("stage4_block3_2_conv").strides == (1, 1)
    assert {level: tensor.shape[1:] for level, tensor in stages(model).items()} == {
        0: (32, 32, 16),
        1: (16, 16, 32),
        2: (8, 8, 64),
        3: (4, 4, 128),
    }


@pytest.mark.parametrize(
    ("name", "shape", "options", "least"),
    [
        ("resnet20_v2", (3, 8, 1), {}, "2 times: .* least 4x8$"),
        ("resnet18_v2", (31, 32, 3), {"stem": "imagenet"}, "5 times: .* least 32x32$"),
        ("wrn_28_10", (2, 2, 3), {}, "2 times: .* least 4x4$"),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, shape, options, least):
    with pytest.raises(UserError, match=f"model {name} halves the image {least}"):
        MODELS.build(name, shape, 10, **options)


def theirs(name: str) -> str:
    """Give the name in keras.applications of one of our layers."""
    if name in (fixed := {"stem_conv": "conv1_conv", "last_norm": "post_bn", "logits": "predictions"}):
        return fixed[name]
    if name == "stem_norm":
        return "conv2_block1_preact_bn"
    stage, block, rest = name.split("_", 2)
    rest = rest.replace("0_norm", "preact_bn").replace("shortcut", "0").replace("norm", "bn")
    return f"conv{int(stage[-1]) + 1}_{block}_{rest}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50_v2"])
def test_equal_weights_give_the_outputs_of_keras_applications(name):
    # At 65 pixels every map that is halved has an odd size, and the two ways of padding are the same.
    ours = MODELS.build(name, (65, 65, 3), 20, stem="imagenet")
    application = keras.applications.ResNet50V2(
        input_shape=(65, 65, 3), weights=None, classes=20, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for weight in ours.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    ours.get_layer("stem_conv").bias.assign(np.full(64, 5.0))  # the zeros that pad the first pooling there never win
    for layer in ours.layers:
        if layer.weights:
            application.get_layer(theirs(layer.name)).set_weights(layer.get_weights())
    images = rng.uniform(0, 255, (2, 65, 65, 3)).astype("float32")
    expected = application.predict(images / 127.5 - 1, verbose=0)
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
