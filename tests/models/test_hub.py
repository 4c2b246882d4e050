"""KerasHub's backbones behind our contract: the preset's features from raw pixels, in a model of plain layers."""

import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export.compress import prune_channels
from pipeline.models.files import load_model_file
from pipeline.models.stages import stages
from pipeline.registry import MODELS

NAMES = [name for name in MODELS.names() if name.startswith("hub:")]
SCALE, OFFSET = [0.017, 0.018, 0.019], [-2.1, -2.0, -1.8]
ARCHITECTURE = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16, 24, 32],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}


@pytest.fixture(scope="module")
def original() -> keras.Model:
    set_seed(0)
    return keras_hub.models.ResNetBackbone(**ARCHITECTURE, image_shape=(None, None, 3))


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory) -> Path:
    """A preset that was brought from elsewhere."""
    folder = tmp_path_factory.mktemp("preset")
    original.save_to_preset(folder)
    keras_hub.layers.ResNetImageConverter(scale=SCALE, offset=OFFSET).save_to_preset(folder)
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


def test_raw_pixels_give_the_features_of_the_preset(original, folder):
    model = build("hub:resnet_18_imagenet", folder)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    expected = original.predict(images * np.float32(SCALE) + np.float32(OFFSET), verbose=0)
    features = keras.Model(model.input, model.get_layer("pool").input)
    np.testing.assert_allclose(features.predict(images, verbose=0), expected, rtol=0, atol=1e-5 * expected.max())
    assert {level: y.shape[1:3] for level, y in stages(model).items()} == {
        1: (32, 32), 2: (16, 16), 3: (8, 8), 4: (4, 4), 5: (2, 2),
    }  # fmt: skip


def test_the_model_needs_no_keras_hub_and_is_pruned(folder, tmp_path):
    model = build("hub:resnet_18_imagenet", folder)
    assert {type(layer).__module__.partition(".")[0] for layer in model.layers} == {"keras"}
    model.save(tmp_path / "model.keras")
    assert load_model_file(tmp_path / "model.keras", "").output.dtype == "float32"
    assert prune_channels(model, 0.5).count_params() < 0.35 * model.count_params()


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
