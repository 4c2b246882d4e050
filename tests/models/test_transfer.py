"""Weights of one network in another, and the order in which its layers should learn."""

import keras
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.models.stages import mark
from pipeline.models.transfer import adopt, groups
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS


def build(name: str, classes: int = 3, shape: tuple[int, int, int] = (32, 32, 3), **options) -> keras.Model:
    return MODELS.build(name, shape, classes, **options)


def names(model: keras.Model, fresh=()) -> dict[str, list[str]]:
    return {group.name: [layer.name for layer in group.layers] for group in groups(model, fresh)}


def test_layers_learn_from_the_head_down():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, padding="same", name="stem")(inputs))
    fine = mark(layers.Add(name="add")([x, layers.Conv2D(4, 1, name="branch")(x)]), 1)
    coarse = mark(layers.Conv2D(4, 3, strides=2, padding="same", name="reduce")(fine), 2)
    skip = layers.Conv2D(4, 1, strides=2, name="skip")(fine)  # beside the stages
    x = layers.Dense(5, name="dense")(layers.Concatenate(name="join")([coarse, skip]))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    body = {"c1": ["reduce"], "c0": ["stem", "branch", "norm"]}
    found = names(model)
    assert {name: set(layers) for name, layers in found.items()} == {
        "head": {"logits"},
        "top": {"skip", "dense"},
        **{name: set(layers) for name, layers in body.items()},
    }
    assert list(found) == ["head", "top", "c1", "c0"]
    assert set(names(model, {"dense"})["head"]) == {"dense", "logits"}


def assert_copied(model: keras.Model, source: keras.Model, fresh: set[str]) -> None:
    drawn = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    assert adopt(model, source, "transfer.base: x") == fresh
    for name, values in drawn.items():
        truth = values if name in fresh else source.get_layer(name).get_weights()
        for a, b in zip(model.get_layer(name).get_weights(), truth, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_classifier_of_other_classes_gives_all_but_the_logits():
    assert_copied(build("resnet8"), build("resnet8", 7), {"logits"})
    assert list(names(build("resnet8"))) == ["head", "c2", "c1", "c0"]


def test_equal_classes_give_no_logits_either():
    assert_copied(build("lenet5"), build("lenet5"), {"logits"})
    assert list(names(build("lenet5"))) == ["head", "top"]


def test_a_classifier_is_the_encoder_of_a_segmentation_network():
    model = build("unet", backbone="resnet8", decoder_width=4)
    fresh = {layer.name for layer in model.layers if layer.weights and layer.name.startswith(("decoder", "logits"))}
    assert_copied(model, build("resnet8"), fresh)
    found = names(model, fresh)
    assert list(found) == ["head", "c2", "c1", "c0"]
    assert set(found["head"]) == fresh


def test_a_segmentation_network_of_other_classes_gives_its_decoder_too():
    model = build("unet", backbone="resnet8", decoder_width=4)
    assert_copied(model, build("unet", 9, backbone="resnet8", decoder_width=4), {"logits"})
    assert list(names(model, {"logits"})) == ["head", "top", "c2", "c1", "c0"]


def test_dense_layers_that_count_pixels_start_afresh_on_larger_images():
    model, source = (build("alexnet", 3, (size, size, 3), width=0.1, units=8) for size in (64, 32))
    assert_copied(model, source, {"dense1", "logits"})


def test_keras_applications_have_a_head_of_their_own():
    with without_values():
        model = MODELS.build("applications:MobileNetV2", (32, 32, 3), 3, width=0.35)
    found = names(model)
    assert list(found) == ["head", "c5", "c4", "c3", "c2", "c1"]
    assert found["head"] == ["logits"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (("resnet14", {}), r"^transfer.base: x holds another architecture \(resnet14, here resnet8\): its layer"),
        (("resnet8", {"width": 8}), r"layer stem_conv is a Conv2D of 3×3×3×8, here a Conv2D of 3×3×3×16; give model"),
        (("simple_cnn", {}), r"holds another architecture .* its layer stem_conv is missing, here a Conv2D"),
        (("resnet8", {"shape": (32, 32, 1)}), r"learned from images of 1 channels; set data.channels=1"),
    ],
)
def test_another_architecture_is_refused_before_anything_is_copied(source, message):
    name, options = source
    model = build("resnet8")
    before = model.get_weights()
    with pytest.raises(UserError, match=message):
        adopt(model, build(name, **options), "transfer.base: x")
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
