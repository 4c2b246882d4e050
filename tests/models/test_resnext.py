"""Networks of grouped and of wide bottlenecks, and wide pre-activation networks: golden counts and their insides."""

import keras
import pytest

from pipeline.models.inspect import summary
from pipeline.registry import MODELS

# Trainable parameters as torchvision counts them, at 1000 classes.
TORCHVISION = {
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


@pytest.mark.parametrize(("name", "expected"), TORCHVISION.items())
def test_imagenet_networks_have_torchvisions_parameters(name, expected):
    assert summary(name).trainable == expected


def test_grouping_has_the_published_multiply_accumulates():
    assert summary("resnext50_32x4d").macs == pytest.approx(4.2e9, rel=0.02)  # arXiv 1611.05431, table 1


# Of 3 blocks in 3 stages (arXiv 1611.05431, table 7: 34.4 M and 68.1 M), at 10 classes.
@pytest.mark.parametrize(("groups", "millions"), [(8, 34.4), (16, 68.1)])
def test_small_aggregated_networks_follow_the_closed_form(groups, millions):
    expected, entering = 27 * 64 + 128, 64
    for filters in (64, 128, 256):
        inner, outer = groups * filters, 4 * filters
        projection = entering * outer + 2 * outer
        for index in range(3):
            entering = entering if index == 0 else outer
            grouped = 9 * inner * inner // groups
            expected += entering * inner + grouped + inner * outer + 4 * inner + 2 * outer
        expected, entering = expected + projection, outer
    expected += 1024 * 10 + 10
    assert summary(f"resnext29_{groups}x64d").trainable == expected
    assert expected == pytest.approx(millions * 1e6, rel=0.002)


# Trainable, at 10 classes; rounded in arXiv 1605.07146, table 4 (WRN-16-8, 28-10, 40-4) and table 2.
WIDE = {"wrn_16_4": (2.7, 2), "wrn_40_4": (8.9, 6), "wrn_16_8": (11.0, 2), "wrn_28_10": (36.5, 4)}


@pytest.mark.parametrize(("name", "published"), WIDE.items())
def test_small_wide_networks_follow_the_closed_form(name, published):
    millions, blocks = published
    widen, entering, expected = int(name.rpartition("_")[2]), 16, 27 * 16 + 32
    for filters in (16 * widen, 32 * widen, 64 * widen):
        opening = 9 * entering * filters + entering * filters + 9 * filters**2 + 2 * filters
        # The first norm of the first block is the stem's; each other block has one as wide as what enters it.
        opening += 2 * entering if entering > 16 else 0
        expected += opening + (blocks - 1) * (18 * filters**2 + 4 * filters)
        entering = filters
    expected += 2 * entering + 10 * entering + 10
    assert summary(name).trainable == expected
    assert expected == pytest.approx(millions * 1e6, abs=0.06e6)


def test_a_bottleneck_is_grouped_in_the_middle():
    model = MODELS.build("resnext_tiny", (32, 32, 3), 2)
    layers = [model.get_layer(f"stage2_block1_{index}_conv") for index in (1, 2, 3)]
    assert [(layer.filters, layer.groups) for layer in layers] == [(32, 1), (32, 4), (64, 1)]
    assert layers[1].strides == (2, 2)


@pytest.mark.parametrize("width", [8, 24, 50])
def test_groups_are_whole_at_any_width(width):
    model = MODELS.build("resnext29_8x64d", (16, 16, 3), 2, width=width)
    assert [model.get_layer(f"stage{i}_block1_2_conv").filters for i in (1, 2, 3)] == [8 * width * i for i in (1, 2, 4)]


def test_dropout_is_between_the_convolutions_of_a_block():
    model = MODELS.build("wrn_10_1", (8, 8, 3), 2, dropout=0.3)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == [0.3] * 3
    assert dropouts[0].output is model.get_layer("stage1_block1_2_conv").input
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in MODELS.build("wrn_10_1", (8, 8, 3), 2).layers)
