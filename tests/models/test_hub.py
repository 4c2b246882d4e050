"""KerasHub's backbones behind our contract: the preset's features from raw pixels, plain layers, equal files."""

import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from representatives import settle
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export.compress import prune_channels
from pipeline.export.convert import convert
from pipeline.export.parity import BOUNDS, compare_layers, first_divergence
from pipeline.models.files import load_model_file
from pipeline.models.stages import stages
from pipeline.registry import MODELS

NAMES = [name for name in MODELS.names() if name.startswith("hub:")]
SCALE, OFFSET = [0.017, 0.018, 0.019], [-2.1, -2.0, -1.8]
_RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16, 24, 32],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
}
_DARKNET = {
    "stem_filters": 8,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_depth": [1, 1, 2, 1, 1],
    "stackwise_strides": [2, 2, 2, 2, 2],
    "stackwise_num_filters": [8, 12, 16, 24, 32],
    "bottle_ratio": [0.5],
    "block_type": "dark_block",
}
# Of each kind of block a small network, by a preset that is made of it: class, options, and sides of the marked maps.
KINDS = {
    "resnet_18_imagenet": ("ResNet", {**_RESNET, "block_type": "basic_block"}, [32, 16, 8, 4, 2]),
    "resnet_v2_50_imagenet": (
        "ResNet",
        {**_RESNET, "block_type": "bottleneck_block", "use_pre_activation": True},
        [32, 16, 8, 4, 2],
    ),
    "resnet_vd_18_imagenet": (
        "ResNet",
        {
            **_RESNET,
            "input_conv_filters": [8, 8, 64],
            "input_conv_kernel_sizes": [3, 3, 3],
            "block_type": "basic_block_vd",
        },
        [32, 16, 8, 4, 2],
    ),
    "densenet_121_imagenet": ("DenseNet", {"stackwise_num_repeats": [2] * 4, "growth_rate": 8}, [32, 16, 8, 4, 2]),
    "darknet_53_imagenet": ("CSPNet", {**_DARKNET, "stage_type": "dark"}, [62, 31, 16, 8, 4, 2]),
    "csp_darknet_53_ra_imagenet": (
        "CSPNet",
        {**_DARKNET, "stage_type": "csp", "expand_ratio": [2.0, 1.0], "block_ratio": [1.0, 0.5], "down_growth": True},
        [62, 31, 16, 8, 4, 2],
    ),
    "csp_resnext_50_ra_imagenet": (
        "CSPNet",
        {
            "stem_filters": 8,
            "stem_kernel_size": 7,
            "stem_strides": 4,
            "stem_pooling": "max",
            "stackwise_depth": [1, 1, 1, 1],
            "stackwise_strides": [1, 2, 2, 2],
            "stackwise_num_filters": [16, 16, 32, 32],
            "bottle_ratio": [0.5],
            "expand_ratio": [2.0],
            "groups": 4,
            "stage_type": "csp",
            "block_type": "bottleneck_block",
            "cross_linear": True,
        },
        [32, 16, 8, 4, 2],
    ),
    "vgg_11_imagenet": (
        "VGG",
        {"stackwise_num_repeats": [1, 1, 2, 2, 2], "stackwise_num_filters": [8, 8, 16, 16, 24]},
        [64, 32, 16, 8, 4, 2],
    ),
    "xception_41_imagenet": (
        "Xception",
        {
            "stackwise_conv_filters": [[8, 16], [24, 24], [32, 32], [32, 32, 32], [32, 48], [48, 64]],
            "stackwise_pooling": [False, True, True, False, True, False],
        },
        [29, 15, 8, 4],
    ),
}


def preset(name: str, folder: Path) -> keras.Model:
    """Write a preset that was brought from elsewhere, and return its backbone."""
    kind, options, _ = KINDS[name]
    set_seed(0)
    original = settle(getattr(keras_hub.models, f"{kind}Backbone")(**options, image_shape=(None, None, 3)))
    original.save_to_preset(folder)
    getattr(keras_hub.layers, f"{kind}ImageConverter")(scale=SCALE, offset=OFFSET).save_to_preset(folder)
    return original


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("preset")
    preset("resnet_18_imagenet", folder)
    return folder


def build(name: str, weights: Path | str, size: int = 64, channels: int = 3) -> keras.Model:
    return MODELS.build(name, (size, size, channels), 5, weights=str(weights))


def test_every_name_is_a_preset():
    presets = {
        preset
        for kind in ("ResNet", "DenseNet", "CSPNet", "VGG", "Xception")
        for preset in getattr(keras_hub.models, f"{kind}Backbone").presets
    }
    assert len(NAMES) == 28
    assert {name.removeprefix("hub:") for name in NAMES} <= presets


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_features_of_its_preset_and_is_pruned_and_exported_without_keras_hub(name, tmp_path):
    original = preset(name, tmp_path)
    model = build(f"hub:{name}", tmp_path)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected = original.predict(images * np.float32(SCALE) + np.float32(OFFSET), verbose=0)
    features = keras.Model(model.input, model.get_layer("pool").input)
    np.testing.assert_allclose(features.predict(images, verbose=0), expected, rtol=0, atol=1e-5 * expected.max())
    assert [y.shape[1] for y in stages(model).values()] == KINDS[name][2]
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    model.save(tmp_path / "model.keras")
    assert load_model_file(tmp_path / "model.keras", "").output.dtype == "float32"
    assert prune_channels(model, 0.5).count_params() < 0.6 * model.count_params()
    layers = compare_layers(model, convert(model, keras.ops.softmax), images.astype(np.uint8))
    assert first_divergence(layers, BOUNDS["float32"]) is None


def test_what_cannot_be_had_is_said(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^model.weights: .* is no folder of a KerasHub preset: it has no config"):
        build("hub:resnet_18_imagenet", tmp_path)
    with pytest.raises(UserError, match=r"^model.weights: .* holds a ResNetBackbone, which is not hub:vgg_11_imagenet"):
        build("hub:vgg_11_imagenet", folder)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^model.weights: .* cannot be read as a KerasHub preset \("):
        build("hub:resnet_18_imagenet", tmp_path)
    with pytest.raises(UserError, match=r"^model hub:resnet_18_imagenet takes colour images; set data.channels=3$"):
        build("hub:resnet_18_imagenet", folder, channels=1)
    with pytest.raises(UserError, match=r"needs sides of 32 pixels: data.image_size 16x16 is too small"):
        build("hub:resnet_18_imagenet", folder, size=16)

    def without_network(*args: object, **options: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", without_network)
    with pytest.raises(
        UserError,
        match=r"^hub:vgg_11_imagenet could not be downloaded \(no route to host\); bring the preset's folder from "
        r"elsewhere and give its path as model.weights$",
    ):
        build("hub:vgg_11_imagenet", "published")
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(UserError, match=r"^model hub:vgg_11_imagenet needs KerasHub; install it with: pip install"):
        build("hub:vgg_11_imagenet", "published")
