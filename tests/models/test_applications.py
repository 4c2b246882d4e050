"""keras.applications behind our contract: the same answers from raw pixels, stages, and weights whole or not at all."""

import urllib.error
from functools import cache

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.models import applications, pretrained
from pipeline.models.stages import stages
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

NAMES = [name.partition(":")[2] for name in MODELS.names() if name.startswith("applications:")]


def build(architecture: str, size: int = 32, classes: int = 4, **options) -> keras.Model:
    set_seed(0)
    return MODELS.build(f"applications:{architecture}", (size, size, 3), classes, **options)


@cache
def theirs(architecture: str, size: int = 32, **options) -> keras.Model:
    """Build the original without its top; its norms scale each channel otherwise."""
    set_seed(1)
    make = getattr(keras.applications, architecture)
    model = make(input_shape=(size, size, 3), weights=None, include_top=False, **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.7, 1.4, weight.shape))
    return model


@cache
def mobile() -> keras.Model:
    return build("MobileNetV2", 64, width=0.35)


def pictures(size: int, count: int = 2) -> np.ndarray:
    """Return patches of colour: noise looks all alike to a deep network, and norms would blow rounding up."""
    patches = np.random.default_rng(2).uniform(0, 255, (count, 4, 4, 3)).astype("float32")
    side = -(-size // 4)
    return patches.repeat(side, 1).repeat(side, 2)[:, :size, :size]


def features(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("pool").input)


def check_features(model: keras.Model, original: keras.Model, module: str) -> None:
    images = pictures(model.input.shape[1])
    prepared = getattr(keras.applications, module).preprocess_input(images.copy())
    expected, actual = original(prepared).numpy(), features(model)(images).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # it depends on the image
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_network_of_keras_applications_has_a_name():
    modules = {name for name in dir(keras.applications) if name[0].islower()}
    assert sorted(NAMES) == sorted(name for name in dir(keras.applications) if name[0].isupper())
    assert set(applications._MODULES) <= modules
    assert {getattr(keras.applications, name).__module__.rpartition(".")[2] for name in NAMES} == set(
        applications._MODULES
    )


@pytest.mark.parametrize(
    ("architecture", "module", "options"),
    [
        ("MobileNetV2", "mobilenet_v2", {"alpha": 0.35}),  # to -1..1
        ("VGG16", "vgg16", {}),  # blue, green, red without a mean
        ("EfficientNetB0", "efficientnet", {}),  # takes pixels
        pytest.param("DenseNet121", "densenet", {}, marks=pytest.mark.slow),  # mean and deviation of ImageNet
        pytest.param("InceptionV3", "inception_v3", {}, marks=pytest.mark.slow),  # layers without names of their own
    ],
)
def test_raw_pixels_give_the_features_of_the_prepared_ones(architecture, module, options, tmp_path):
    size = 75 if architecture == "InceptionV3" else 32
    original = theirs(architecture, size, **options)
    path = tmp_path / "features.weights.h5"
    original.save_weights(path)
    width = {"width": options["alpha"]} if options else {}
    model = build(architecture, size, weights=str(path), **width)
    check_features(model, original, module)
    assert model.output.shape == (None, 4)
    assert model.output.dtype == "float32"
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


@pytest.mark.parametrize(("style", "module"), [("tf", "xception"), ("torch", "densenet"), ("caffe", "resnet")])
def test_preprocessing_is_that_of_keras_applications(style, module):
    images = pictures(8)
    expected = getattr(keras.applications, module).preprocess_input(images.copy())
    actual = keras.Model(*applications._preprocess((8, 8, 3), style))(images).numpy()
    np.testing.assert_allclose(actual[..., ::-1] if style == "caffe" else actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "size", "levels"),
    [
        ("EfficientNetB0", 64, {1: 32, 2: 16, 3: 8, 4: 4, 5: 2}),
        ("InceptionV3", 96, {1: 45, 2: 20, 3: 9, 4: 4, 5: 1}),  # convolutions without padding
        ("VGG16", 32, {0: 32, 1: 16, 2: 8, 3: 4, 4: 2, 5: 1}),
        ("ConvNeXtTiny", 64, {2: 16, 3: 8, 4: 4, 5: 2}),  # four pixels at once
        ("NASNetMobile", 64, {1: 31, 2: 16, 3: 8, 4: 4, 5: 2}),  # cells that look back past their neighbours
    ],
)
def test_stages_are_the_last_tensors_of_their_resolution(architecture, size, levels):
    with without_values():
        found = stages(build(architecture, size))
    assert {level: tensor.shape[1] for level, tensor in found.items()} == levels


def test_stages_are_where_every_path_goes_through():
    marked = {name: mobile().get_layer(name).input._keras_history.operation.name for name in ("c1", "c3", "c5")}
    assert marked == {"c1": "block_1_expand_relu", "c3": "block_6_expand_relu", "c5": "out_relu"}


def test_the_same_seed_gives_the_same_network_and_names():
    first, second = build("MobileNetV3Small", weights=None, width=0.5), build("MobileNetV3Small", width=0.5)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_whole_models_are_read_too(ending, tmp_path):
    original = theirs("MobileNetV2", alpha=0.35)
    path = tmp_path / f"saved{ending}"
    if ending == ".keras":
        original.save(path)
    else:
        keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5(original, path)
    check_features(build("MobileNetV2", width=0.35, weights=str(path)), original, "mobilenet_v2")


@pytest.mark.parametrize("architecture", ["VGG16", pytest.param("MobileNetV3Small", marks=pytest.mark.slow)])
def test_a_run_of_other_classes_gives_its_features(architecture, tmp_path):
    first = build(architecture, classes=7)
    first.save(tmp_path / "model.keras")
    second = build(architecture, weights=str(tmp_path / "model.keras"))
    images = pictures(32)
    np.testing.assert_allclose(features(second)(images), features(first)(images), rtol=1e-5, atol=1e-6)
    assert second.output.shape == (None, 4)


def test_an_efficientnet_with_published_statistics_is_rescaled_once_more(tmp_path):
    original, deviation = theirs("EfficientNetB0"), np.array([0.229, 0.224, 0.225])
    norm = next(layer for layer in original.layers if isinstance(layer, keras.layers.Normalization))
    before, path = norm.get_weights(), tmp_path / "features.weights.h5"
    try:
        norm.set_weights([np.array([0.485, 0.456, 0.406]), deviation**2, before[2]])
        original.save_weights(path)
    finally:
        norm.set_weights(before)
    rescaled = build("EfficientNetB0", weights=str(path))
    names = [layer.name for layer in build("EfficientNetB0").layers]
    place = names.index("normalization") + 1
    assert [layer.name for layer in rescaled.layers] == [*names[:place], "normalization_scale", *names[place:]]
    np.testing.assert_allclose(np.ravel(rescaled.get_layer("normalization").variance), deviation**2, rtol=1e-6)
    scaled = rescaled.get_layer("normalization_scale")(np.ones((1, 1, 1, 3)))
    np.testing.assert_allclose(scaled[0, 0, 0], deviation**-0.5, rtol=1e-6)


def test_wrong_files_are_one_sentence(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "text.keras").write_text("no model")
    theirs("MobileNetV2", alpha=0.35).save_weights(tmp_path / "narrower.weights.h5")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    for name in ("text.h5", "text.keras", "narrower.weights.h5", "other.keras"):
        with pytest.raises(UserError, match=rf"^model.weights: .*{name} does not hold the weights of MobileNetV2 "):
            build("MobileNetV2", width=0.5, weights=str(tmp_path / name))
    with pytest.raises(UserError, match=r"there is no file .*nowhere.h5; give imagenet or the path"):
        build("MobileNetV2", weights=str(tmp_path / "nowhere.h5"))


def test_without_a_network_the_file_to_bring_is_named(tmp_path, monkeypatch):
    def offline(url, target, hook):
        asked.append(target)
        raise urllib.error.URLError("no route")

    asked, file = [], "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    monkeypatch.setattr(keras.src.utils.file_utils, "urlretrieve", offline)
    monkeypatch.setattr(keras.src.utils.file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(UserError, match=rf"imagenet could not be downloaded; .* as ~/.keras/models/{file}, ") as error:
        build("MobileNetV2", width=0.35, weights="imagenet")
    assert not error.value.usage  # exit code 1
    assert asked == [str(tmp_path / "models" / file)]


def test_files_that_keras_saves_under_another_name_are_named_so():
    def offline():
        raise Exception("URL fetch failure on https://example.org/nasnet/NASNet-mobile-no-top.h5: None -- no route")

    with pytest.raises(UserError, match=r"as ~/.keras/models/nasnet_mobile_no_top.h5, "):
        pretrained.download(offline, {})


def test_downloaded_weights_are_used(tmp_path, monkeypatch):
    original = theirs("MobileNetV2", alpha=0.35)
    original.save_weights(tmp_path / "brought.weights.h5")
    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", lambda *_, **__: str(tmp_path / "brought.weights.h5"))
    check_features(build("MobileNetV2", width=0.35, weights="imagenet"), original, "mobilenet_v2")
    with pytest.raises(UserError, match=r"model.weights: MobileNetV2 with imagenet: .*alpha"):
        build("MobileNetV2", width=0.4, weights="imagenet")


def test_what_a_network_cannot_take_is_refused():
    with pytest.raises(UserError, match=r"needs sides of 75 pixels: data.image_size 64x64 is too small"):
        build("InceptionV3", 64)
    with pytest.raises(UserError, match=r"model.width belongs to the MobileNets"):
        build("DenseNet121", width=0.5)
    with pytest.raises(UserError, match=r"takes colour images; set data.channels=3"):
        MODELS.build("applications:MobileNetV2", (32, 32, 1), 4)


def test_experiments_name_it_and_mistakes_get_the_nearest_name():
    experiment = Experiment.load("digits", ["model=applications:EfficientNetB0", "model.weights=imagenet"])
    assert experiment.model.name == "applications:EfficientNetB0"
    assert experiment.model.options == {"weights": "imagenet", "width": 1.0, "dropout": 0.2}
    with pytest.raises(UserError, match=r"did you mean 'applications:MobileNetV2'"):
        Experiment.load("digits", ["model=applications:MobilNetV2"])


def test_dropout_is_before_the_classifier():
    assert mobile().get_layer("dropout").rate == 0.2


def test_mixed_precision_leaves_the_pixels_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("EfficientNetB0")
    finally:
        keras.config.set_dtype_policy("float32")
    assert {model.get_layer(name).compute_dtype for name in ("rescaling", "normalization")} == {"float32"}
    assert model.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_a_unet_stands_on_it():
    model = MODELS.build("unet", (64, 64, 3), 3, backbone="applications:EfficientNetB0", decoder_width=4)
    assert model(pictures(64)).shape == (2, 64, 64, 3)
    assert {f"up{level}_skip" for level in (1, 2, 3, 4)} <= {layer.name for layer in model.layers}
