"""The networks of keras.applications behind the contract of this package, with their published weights if wanted."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pydantic import PositiveFloat

from pipeline.errors import UserError
from pipeline.models.blocks import image_input
from pipeline.models.heads import classify
from pipeline.models.pretrained import copy, download, load
from pipeline.models.rebuilt import before_first_kernel, on_pixels
from pipeline.models.stages import require_size
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS, Fraction

# The mean and the deviation of ImageNet's red, green and blue, as keras.applications.imagenet_utils has them.
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_CAFFE_MEAN = (123.68, 116.779, 103.939)

# By the module of keras.applications: what its preprocess_input does (to [-1, 1]; "torch"; "caffe", which also swaps
# red and blue; None where the network takes pixels), and the shortest side of an image.
_MODULES = {
    "convnext": (None, 32),
    "densenet": ("torch", 32),
    "efficientnet": (None, 32),
    "efficientnet_v2": (None, 32),
    "inception_resnet_v2": ("tf", 75),
    "inception_v3": ("tf", 75),
    "mobilenet": ("tf", 32),
    "mobilenet_v2": ("tf", 32),
    "mobilenet_v3": (None, 32),
    "nasnet": ("tf", 32),
    "resnet": ("caffe", 32),
    "resnet_v2": ("tf", 32),
    "vgg16": ("caffe", 32),
    "vgg19": ("caffe", 32),
    "xception": ("tf", 71),
}


@MODELS.register(
    **{
        "applications:MobileNetV2": {"architecture": "MobileNetV2"},
        "applications:ConvNeXtBase": {"architecture": "ConvNeXtBase"},
        "applications:ConvNeXtLarge": {"architecture": "ConvNeXtLarge"},
        "applications:ConvNeXtSmall": {"architecture": "ConvNeXtSmall"},
        "applications:ConvNeXtTiny": {"architecture": "ConvNeXtTiny"},
        "applications:ConvNeXtXLarge": {"architecture": "ConvNeXtXLarge"},
        "applications:DenseNet121": {"architecture": "DenseNet121"},
        "applications:DenseNet169": {"architecture": "DenseNet169"},
        "applications:DenseNet201": {"architecture": "DenseNet201"},
        "applications:EfficientNetB0": {"architecture": "EfficientNetB0"},
        "applications:EfficientNetB1": {"architecture": "EfficientNetB1"},
        "applications:EfficientNetB2": {"architecture": "EfficientNetB2"},
        "applications:EfficientNetB3": {"architecture": "EfficientNetB3"},
        "applications:EfficientNetB4": {"architecture": "EfficientNetB4"},
        "applications:EfficientNetB5": {"architecture": "EfficientNetB5"},
        "applications:EfficientNetB6": {"architecture": "EfficientNetB6"},
        "applications:EfficientNetB7": {"architecture": "EfficientNetB7"},
        "applications:EfficientNetV2B0": {"architecture": "EfficientNetV2B0"},
        "applications:EfficientNetV2B1": {"architecture": "EfficientNetV2B1"},
        "applications:EfficientNetV2B2": {"architecture": "EfficientNetV2B2"},
        "applications:EfficientNetV2B3": {"architecture": "EfficientNetV2B3"},
        "applications:EfficientNetV2L": {"architecture": "EfficientNetV2L"},
        "applications:EfficientNetV2M": {"architecture": "EfficientNetV2M"},
        "applications:EfficientNetV2S": {"architecture": "EfficientNetV2S"},
        "applications:InceptionResNetV2": {"architecture": "InceptionResNetV2"},
        "applications:InceptionV3": {"architecture": "InceptionV3"},
        "applications:MobileNet": {"architecture": "MobileNet"},
        "applications:MobileNetV3Large": {"architecture": "MobileNetV3Large"},
        "applications:MobileNetV3Small": {"architecture": "MobileNetV3Small"},
        "applications:NASNetLarge": {"architecture": "NASNetLarge"},
        "applications:NASNetMobile": {"architecture": "NASNetMobile"},
        "applications:ResNet50": {"architecture": "ResNet50"},
        "applications:ResNet50V2": {"architecture": "ResNet50V2"},
        "applications:ResNet101": {"architecture": "ResNet101"},
        "applications:ResNet101V2": {"architecture": "ResNet101V2"},
        "applications:ResNet152": {"architecture": "ResNet152"},
        "applications:ResNet152V2": {"architecture": "ResNet152V2"},
        "applications:VGG16": {"architecture": "VGG16"},
        "applications:VGG19": {"architecture": "VGG19"},
        "applications:Xception": {"architecture": "Xception"},
    }
)
def applications(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    architecture: str,
    weights: str | None = None,
    width: PositiveFloat = 1.0,
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Features of keras.applications (`weights`: imagenet, a file, or none) and a new classifier.

    `weights` names a .weights.h5, .h5 or .keras file of the network without its top, or the model.keras of a run of
    the same network, whatever its classes. `width` is that of the MobileNets. The preprocessing is in the graph, and
    the last tensor of each resolution is marked as a stage.

    Raises UserError for an image that is too small or not of three channels, and for weights that cannot be had.
    """
    build = getattr(keras.applications, architecture)
    style, least = _MODULES[build.__module__.rpartition(".")[2]]
    require_size(input_shape, least, f"model applications:{architecture} needs sides of {least} pixels")
    if input_shape[2] != 3:
        raise UserError(f"model applications:{architecture} takes colour images; set data.channels=3")
    chosen = "imagenet" if weights == "imagenet" else None
    options = {"input_shape": input_shape, "include_top": False, "weights": chosen}
    if architecture.startswith("MobileNet"):
        options["alpha"] = width
    elif width != 1:
        raise UserError(f"model.width belongs to the MobileNets; leave it out with applications:{architecture}")
    # Weights that are not kept need no values; the copy below draws its own.
    unused = without_values() if weights is None else contextlib.nullcontext()
    with unused, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the weights were found for images of another size
        theirs = download(build, options) if weights == "imagenet" else build(**options)
    swapped = style == "caffe"
    if weights not in (None, "imagenet"):
        swapped &= not load(theirs, Path(weights).expanduser(), architecture)
    inputs, pixels = _preprocess(theirs.input_shape[1:], style)
    adapted = _adapted(theirs) if weights not in (None, "imagenet") else ()
    features = on_pixels(theirs, inputs, pixels, {layer: (1 / np.sqrt(_DEVIATION)).tolist() for layer in adapted})
    model = keras.Model(inputs, classify(features, num_classes, dropout=dropout), name=architecture)
    if weights is not None:
        copy(theirs, model, swapped)
    return model


def _preprocess(input_shape: tuple[int, int, int], style: str | None) -> tuple[Any, Any]:
    """Return the input of raw pixels and what the network's first layer takes, but for the order of the colours."""
    if style == "tf":
        return image_input(input_shape)
    inputs = keras.Input(input_shape, name="image", dtype="float32")
    if style is None:
        return inputs, inputs
    scale, offset = (1 / (255 * _DEVIATION), -_MEAN / _DEVIATION) if style == "torch" else (1.0, -np.array(_CAFFE_MEAN))
    rescaling = keras.layers.Rescaling(
        np.asarray(scale).tolist(), offset=offset.tolist(), dtype="float32", name="rescaling"
    )
    return inputs, rescaling(inputs)


def _adapted(theirs: keras.Model) -> list[keras.Operation]:
    """Return the normalisations that have statistics of ImageNet: an EfficientNet that was trained on it.

    It has another rescaling after them, which keras.applications adds only where it downloads the weights itself.
    """
    return [
        layer
        for layer in before_first_kernel(theirs)
        if isinstance(layer, keras.layers.Normalization) and layer.weights
        if np.any(layer.get_weights()[1] != 1)  # the variance
    ]
