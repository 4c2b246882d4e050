"""A pruned model is smaller, and equals the original with the same channels masked, whole models of every kind."""

import keras
import numpy as np
import pytest
from representatives import every_family
from seeding import set_seed
from zoo import calibrate, conv, difference, equal, images, network, registered, residual, settle, width

from pipeline.errors import UserError
from pipeline.export.compress import find_channels, mask_channels, prune_channels, prune_iteratively

layers = keras.layers


APPLICATIONS = {
    **{"MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetV2B0": 64, "ResNet50": 64, "DenseNet121": 64},
    **{
        "InceptionV3": 75,
        "Xception": 75,
        "NASNetMobile": 224,
        "ConvNeXtTiny": 64,
        "InceptionResNetV2": 75,
        "ResNet50V2": 64,
    },
}

# A shuffle ties every channel to its partner in the other half, the next block's shuffle ties such pairs, and so on:
# what passes through shuffles stays whole, and the inside of the blocks is pruned.
SHUFFLED = {"shufflenet_v2_tiny"}


# Their channels become positions and heads by reshaping and transposing, which is not followed.
WHOLE = {
    "botnet_tiny": {
        *(f"stage4_block1_2_{part}_conv" for part in ("query", "key", "value")),
        *(f"stage4_block1_2_{part}_table" for part in ("down", "along")),
    },
}


@every_family
def test_every_registered_model_is_pruned(name):
    model = registered(name)
    pruned = equal(model, multiple=2)
    assert pruned.count_params() < (0.65 if name in SHUFFLED else 0.35) * model.count_params()
    # A gate of one channel cannot have fewer.
    kept = {
        name for group in find_channels(model).groups if group.reason and group.channels > 1 for name in group.layers
    }
    if name in SHUFFLED:  # what the halves of a block end in
        assert {layer.partition("_block")[2][2:] for layer in kept - {"logits"}} == {"left_conv", "3_conv"}
    else:
        assert kept == {"logits"} | WHOLE.get(name, set())


@pytest.mark.applications
@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), APPLICATIONS.items())
def test_applications_are_pruned(name, size):
    set_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
    pruned = equal(calibrate(settle(model)))
    assert pruned.count_params() < 0.3 * model.count_params()
    (whole,) = [group for group in find_channels(model).groups if group.reason]
    assert whole.channels == 10
    keras.backend.clear_session()


def test_a_model_of_several_inputs_and_outputs_keeps_both():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 16), name="right")
    x = layers.Conv2D(16, 1, name="tied_to_the_input")(left) + right
    y = layers.Conv2D(16, 1, name="free")(x)
    outputs = {"b": layers.Conv2D(16, 1, name="given_out")(y), "a": layers.GlobalAveragePooling2D()(x)}
    model = settle(keras.Model({"left": left, "right": right}, outputs))
    pruned, masked = prune_channels(model, 0.5), mask_channels(model, 0.5)
    assert [layer.output.shape[-1] for layer in pruned.layers if isinstance(layer, layers.Conv2D)] == [16, 8, 16]
    rng = np.random.default_rng(0)
    given = {"left": rng.normal(size=(2, 8, 8, 3)), "right": rng.normal(size=(2, 8, 8, 16))}
    for key in "ab":
        assert difference(masked(given)[key], pruned(given)[key]) < 1e-5


# Keras 3.15 saves weights through a numpy 1 interface.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_pruned_model_saves_plainly_and_keeps_policies(tmp_path):
    def body(x):
        return conv(dtype="mixed_bfloat16", kernel_regularizer="l2", name="mixed")(x)

    pruned = prune_channels(network(body), 0.5)
    assert pruned.get_layer("mixed").dtype_policy.name == "mixed_bfloat16"
    assert pruned.get_layer("mixed").kernel_regularizer is not None
    pruned.save(tmp_path / "pruned.keras")
    again = keras.saving.load_model(tmp_path / "pruned.keras", safe_mode=True)
    np.testing.assert_array_equal(pruned(images(pruned)), again(images(pruned)))


def test_iterative_pruning_reaches_the_ratio_in_equal_parts():
    seen = []

    def finetune(model):
        seen.append(width(model, "a"))
        return model

    pruned = prune_iteratively(network(lambda x: conv(64, name="a")(x)), 0.75, 2, finetune, multiple=1)
    assert seen == [32, 16]
    assert width(pruned, "a") == 16


def test_the_model_itself_is_left_as_it_is():
    model = network(residual)
    before = [np.copy(weight) for weight in model.get_weights()]
    prune_channels(model, 0.5)
    mask_channels(model, 0.5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(model.get_layer("stem")._inbound_nodes) == 1


def test_masks_of_a_shared_layer_and_of_its_namesake_have_their_own_names():
    def body(x):
        read = layers.Dense(16, name="read")
        return layers.Dense(16, name="read_1")(read(read(x)))

    equal(network(body))


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_models_that_cannot_be_pruned_are_refused():
    with pytest.raises(UserError, match=r"'mine' \(Subclassed\) is subclassed"):
        prune_channels(Subclassed(name="mine"), 0.5)
    x = keras.Input((4,))
    with pytest.raises(UserError, match="'only' has no channels that can be pruned: 'out' is an output of the model"):
        prune_channels(keras.Model(x, layers.Dense(3, name="out")(x), name="only"), 0.5)
    with pytest.raises(UserError, match="steps is 0; give at least 1"):
        prune_iteratively(network(residual), 0.5, 0, lambda model: model)
