"""DenseNets: golden counts, the closed form, maps, and equality with keras.applications, weight for weight."""

import functools

import keras
import pytest
from copied_weights import check_equal

from pipeline.errors import UserError
from pipeline.models import inspect
from pipeline.models.densenet import densenet
from pipeline.models.stages import stages
from pipeline.registry import MODELS

summary = functools.cache(inspect.summary)

# Trainable parameters: torchvision's figures at 1000 classes, and of the small ones the count of table 2 (0.8 and
# 25.6 million) to the last digit as PyTorch's and pytorchcv's implementations have it at 10 classes.
PUBLISHED = {
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet_bc100": 769_162,
    "densenet_bc190": 25_624_430,
}
# Blocks, growth, classes, and the weights of the stem with its norm where there is one.
LAYOUT = {
    "densenet121": ((6, 12, 24, 16), 32, 1000, 147 * 64 + 2 * 64),
    "densenet161": ((6, 12, 36, 24), 48, 1000, 147 * 96 + 2 * 96),
    "densenet169": ((6, 12, 32, 32), 32, 1000, 147 * 64 + 2 * 64),
    "densenet201": ((6, 12, 48, 32), 32, 1000, 147 * 64 + 2 * 64),
    "densenet_tiny": ((2, 1, 1, 1), 8, 1000, 147 * 16 + 2 * 16),
    "densenet_bc100": ((16, 16, 16), 12, 10, 27 * 24),
    "densenet_bc190": ((31, 31, 31), 40, 10, 27 * 80),
    "densenet_bc_tiny": ((1, 1, 1), 8, 10, 27 * 16),
}
SLOW = ("densenet161", "densenet169", "densenet201", "densenet_bc190")


def by_hand(blocks: tuple[int, ...], growth: int, classes: int, stem: int) -> int:
    """Count the trainable parameters: norms have two of a channel, convolutions no bias."""
    channels, total = 2 * growth, stem
    for index, count in enumerate(blocks):
        if index:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
        for _ in range(count):
            total += 2 * channels + channels * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth
            channels += growth
    return total + 2 * channels + (channels + 1) * classes


def test_the_closed_form_gives_the_published_counts():
    assert {name: by_hand(*LAYOUT[name]) for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LAYOUT])
def test_networks_have_their_parameters(name):
    assert summary(name).trainable == by_hand(*LAYOUT[name])


def test_densenet121_has_torchvisions_multiplications():
    assert round(summary("densenet121").macs / 1e9, 3) == 2.834


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("densenet_tiny", (32, 32, 3), {0: (32, 32, 32), 1: (16, 16, 24), 2: (8, 8, 20), 3: (4, 4, 18)}),
        (
            "densenet_tiny",
            (97, 130, 3),
            {1: (49, 65, 16), 2: (25, 33, 32), 3: (13, 17, 24), 4: (7, 9, 20), 5: (4, 5, 18)},
        ),
        ("densenet_bc_tiny", (15, 16, 1), {0: (15, 16, 24), 1: (8, 8, 20), 2: (4, 4, 18)}),
    ],
)
def test_a_block_adds_its_growth_and_a_transition_halves(name, shape, sizes):
    found = stages(MODELS.build(name, shape, 2))
    assert {level: tensor.shape[1:] for level, tensor in found.items()} == sizes


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("densenet121", 31, {"stem": "imagenet"}, "model densenet121 halves the image 5 times: .* at least 32x32$"),
        ("densenet_bc100", 3, {}, "model densenet_bc100 halves the image 2 times: .* at least 4x4$"),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, size, options, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(name, (size, size, 3), 10, **options)


def test_equal_weights_give_the_outputs_of_keras_applications():
    """Shallower than any that is published: the rows of those are counted above."""
    blocks, shape = (2, 1, 3, 2), (64, 96, 3)
    ours = densenet(shape, 20, blocks=blocks, growth=32, stem="imagenet")
    options = {"weights": None, "input_shape": shape, "classes": 20, "classifier_activation": None}
    check_equal(ours, keras.src.applications.densenet.DenseNet(blocks, **options))
