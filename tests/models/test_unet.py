"""Full resolution from any backbone, whatever the image's size."""

import keras
import numpy as np
import pytest
import representatives
import tensorflow as tf
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.models.stages import stages
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [
        ("resnet8", (16, 16, 1)),
        ("resnet8", (45, 61, 3)),
        ("resnet18", (37, 50, 3)),  # small stem: stride 8 by odd sizes
        ("mobilenet_v2", (96, 97, 3)),  # ImageNet stem: from stride 2 to 1 without a skip
        ("mobilenet_v1", (180, 240, 3)),
        ("alexnet_tiny", (97, 130, 3)),  # from stride 4 to 1 without skips, and maps that lost their edges
        ("inception_v3_tiny", (96, 117, 3)),
    ],
)
def test_logits_have_the_size_of_the_image(backbone, shape):
    model = MODELS.build("unet", shape, 4, backbone=backbone, decoder_width=4)
    assert model.output.shape == (None, *shape[:2], 4)
    assert model(np.zeros((1, *shape))).shape == (1, *shape[:2], 4)


@representatives.every_family
def test_every_family_that_marks_two_stages_is_a_backbone(name):
    shape = (72, 56, 3)
    with without_values():
        if len(stages(MODELS.build(name, (64, 64, 3), 4))) < 2 or name == "unet":
            with pytest.raises(UserError, match=f"unet cannot use '{name}'"):
                MODELS.build("unet", shape, 4, backbone=name)
        else:
            assert MODELS.build("unet", shape, 4, backbone=name).output.shape == (None, *shape[:2], 4)


def test_the_backbones_head_is_left_out():
    model = MODELS.build("unet", (32, 32, 3), 4, backbone="mobilenet_v2")
    names = {layer.name for layer in model.layers}
    assert {"rescaling", "c0", "c3"} <= names
    assert not {"last_conv", "pool", "dropout"} & names
    assert sum(isinstance(layer, keras.layers.Dense) for layer in model.layers) == 0


def test_the_decoder_doubles_its_width_at_each_level():
    model = MODELS.build("unet", (96, 96, 3), 2, backbone="resnet18", decoder_width=8)
    widths = [model.get_layer(f"decoder{level}_2_conv").filters for level in (0, 1, 2, 3, 4)]
    assert widths == [8, 16, 32, 64, 128]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_it_trains_under_xla(policy):
    set_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = MODELS.build("unet", (13, 16, 3), 3, backbone="resnet8", decoder_width=2)
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).uniform(0, 255, (2, 13, 16, 3)).astype("float32")

    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.log_softmax(model(images, training=True))[..., 0])
        return tape.gradient(loss, model.trainable_variables)

    plain, compiled = tf.function(gradients)(), tf.function(gradients, jit_compile=True)()
    difference = tf.linalg.global_norm([a - b for a, b in zip(plain, compiled, strict=True)])
    assert difference < (1e-4 if policy == "float32" else 0.1) * tf.linalg.global_norm(plain)


def test_a_change_of_one_pixel_reaches_the_logits_at_its_place():
    set_seed(0)
    model = MODELS.build("unet", (64, 64, 1), 2, backbone="resnet8")
    image = np.full((1, 64, 64, 1), 100.0, "float32")
    other = image.copy()
    other[0, 20, 40] = 255
    change = np.abs(model(other).numpy() - model(image).numpy()).sum(-1)[0]
    assert np.unravel_index(change.argmax(), change.shape) == pytest.approx((20, 40), abs=4)


def test_an_unknown_backbone_names_the_nearest():
    with pytest.raises(
        UserError, match=r"^model.backbone: there is no model 'mobilnet_v2'; did you mean 'mobilenet_v2'\?$"
    ):
        MODELS.build("unet", (32, 32, 3), 4, backbone="mobilnet_v2")


@pytest.mark.parametrize("backbone", ["unet", "lenet5", "simple_cnn", "vit_micro_16"])
def test_a_backbone_without_stages_or_without_one_answer_is_refused(backbone):
    with pytest.raises(UserError, match=f"^model.backbone: unet cannot use {backbone!r}; give .* such as resnet20"):
        MODELS.build("unet", (32, 32, 3), 4, backbone=backbone)


def test_an_image_that_is_too_small_for_the_backbone_is_refused():
    with pytest.raises(UserError, match=r"model resnet18 halves the image 3 times: .* give at least 8x8$"):
        MODELS.build("unet", (4, 4, 3), 4, backbone="resnet18")
