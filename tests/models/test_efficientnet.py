"""EfficientNets: the scaling rule, published counts and costs, equality with keras.applications, stochastic depth."""

import functools

import keras
import numpy as np
import pytest
from copied_weights import check_equal
from seeding import set_seed

from pipeline.models.efficientnet import compound_scaling, efficientnet
from pipeline.models.inspect import summary
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

summarize = functools.cache(summary)

# Trainable parameters: torchvision's for B0 to B7, timm's tf_efficientnet_lite for lite, ours for tiny. Millions of
# multiply-accumulates at the published resolution: torchvision's (B0, B1, B7) and d-li14/efficientnet-lite.pytorch's.
FIGURES = {
    "efficientnet_b0": (5_288_548, 386),
    "efficientnet_b1": (7_794_184, 687),
    "efficientnet_b2": (9_109_994, None),
    "efficientnet_b3": (12_233_232, None),
    "efficientnet_b4": (19_341_616, None),
    "efficientnet_b5": (30_389_784, None),
    "efficientnet_b6": (43_040_704, None),
    "efficientnet_b7": (66_347_960, 37_746),
    "efficientnet_tiny": (466_932, None),
    "efficientnet_lite0": (4_652_008, 385),
    "efficientnet_lite1": (5_416_680, 600),
    "efficientnet_lite2": (6_092_072, 860),
    "efficientnet_lite3": (8_197_096, 1_383),
    "efficientnet_lite4": (13_006_568, 2_553),
    "efficientnet_lite_tiny": (1_483_288, None),
}
_DEEP = ("efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7")


@pytest.mark.parametrize(
    ("name", "trainable", "millions"),
    [pytest.param(name, *row, marks=[pytest.mark.slow] if name in _DEEP else []) for name, row in FIGURES.items()],
)
def test_networks_have_the_published_size(name, trainable, millions):
    found = summarize(name)
    assert found.trainable == trainable
    assert millions is None or found.macs / 1e6 == pytest.approx(millions, rel=2e-3)


def test_b0_has_all_parameters_of_keras_applications_but_their_normalization():
    assert summarize("efficientnet_b0").parameters == 5_330_571 - 7


# Section 5.1 gives phi = 1 to B2; B1 and B3 lie half a step and one step from it.
@pytest.mark.parametrize(
    ("phi", "published"), [(0, (1.0, 1.0, 224)), (0.5, (1.0, 1.1, 240)), (1, (1.1, 1.2, 260)), (2, (1.2, 1.4, 300))]
)
def test_the_published_coefficients_follow_the_rule(phi, published):
    width, depth, resolution = compound_scaling(phi)
    assert (round(width, 1), round(depth, 1)) == published[:2]
    assert resolution == pytest.approx(published[2], rel=0.02)


def test_a_step_of_the_rule_nearly_doubles_the_cost():
    cost = [width**2 * depth * resolution**2 for width, depth, resolution in map(compound_scaling, (0, 1, 2))]
    assert cost[1] / cost[0] == pytest.approx(1.92, rel=0.01)
    assert cost[2] / cost[0] == pytest.approx(1.92**2, rel=0.02)
    assert compound_scaling(1, (2.0, 3.1, 600)) == pytest.approx((2.2, 3.72, 690))


def test_phi_scales_a_published_network():
    with without_values():
        model = efficientnet(num_classes=10, coefficients=(1.0, 1.0, 224), phi=-2.0)
    assert model.input.shape[1:] == (169, 169, 3)  # 224 / 1.15**2
    added = sorted(layer.name for layer in model.layers if isinstance(layer, keras.layers.Add))
    # 1, 2, 2, 3, 3, 4, 1 blocks x 0.69: 1, 2, 2, 3, 3, 3, 1; all but the first of each group add.
    assert added == sorted(f"block{index}_add" for index in (3, 5, 7, 8, 10, 11, 13, 14))
    assert model.get_layer("last_conv").filters == 1056  # 1280 / 1.21 to a multiple of 8


def test_attention_squeezes_what_the_block_was_given():
    with without_values():
        model = MODELS.build("efficientnet_b0", (32, 32, 3), 5)
    squeezed = [model.get_layer(f"block{index}_attention_reduce").filters for index in (1, 2, 3, 5, 16)]
    assert squeezed == [8, 4, 6, 10, 48]
    assert model.get_layer("block1_attention_reduce").activation is keras.activations.silu


def test_lite_networks_have_no_attention_and_fixed_ends():
    with without_values():
        model = MODELS.build("efficientnet_lite4", (32, 32, 3), 5)
    assert not [layer for layer in model.layers if "attention" in layer.name]
    activations = {layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Activation)}
    assert activations == {"relu6", "linear"}
    assert (model.get_layer("stem_conv").filters, model.get_layer("last_conv").filters) == (32, 1280)
    # 1, 2, 2, 3, 3, 4, 1 blocks x 1.8, but for the first and the last group.
    blocks = [layer.name for layer in model.layers if layer.name.endswith("_project_conv")]
    assert len(blocks) == 1 + 4 + 4 + 6 + 6 + 8 + 1


def test_stochastic_depth_grows_and_leaves_out_whole_images():
    with without_values():
        model = MODELS.build("efficientnet_b0", (32, 32, 3), 5, stochastic_depth=0.4)
    drops = {layer.name: layer for layer in model.layers if layer.name.endswith("_drop")}
    assert [layer.rate for layer in drops.values()] == [0.4 * index / 16 for index in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    set_seed(0)
    last = keras.layers.Dropout.from_config(drops["block15_drop"].get_config())
    kept = np.asarray(last(np.ones((200, 4, 4, 8)), training=True)).reshape(200, -1)
    assert set(kept.std(axis=1)) == {0.0}
    assert 0.5 < (kept[:, 0] > 0).mean() < 0.8  # 0.65


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application"),
    [("efficientnet_b0", keras.applications.EfficientNetB0), ("efficientnet_b2", keras.applications.EfficientNetB2)],
)
def test_equal_weights_give_the_outputs_of_keras_applications(name, application):
    shape = (96, 96, 3)
    theirs = application(input_shape=shape, weights=None, classes=20, classifier_activation=None)
    # They begin with 1/255 and a normalization that does nothing until it has statistics.
    check_equal(MODELS.build(name, shape, 20), theirs, lambda x: (x / 127.5 - 1) * 255)
