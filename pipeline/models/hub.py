"""The backbones of KerasHub that are built of plain Keras layers, with their published weights, behind our contract."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from pipeline.errors import UserError
from pipeline.models.heads import classify
from pipeline.models.pretrained import copy
from pipeline.models.rebuilt import on_pixels
from pipeline.models.stages import require_size
from pipeline.registry import MODELS, Fraction

_LEAST = 32  # pixels on the shorter side: the last maps are of stride 32


@MODELS.register(
    **{
        "hub:resnet_18_imagenet": {"preset": "resnet_18_imagenet"},
        "hub:resnet_50_imagenet": {"preset": "resnet_50_imagenet"},
        "hub:resnet_101_imagenet": {"preset": "resnet_101_imagenet"},
        "hub:resnet_152_imagenet": {"preset": "resnet_152_imagenet"},
        "hub:resnet_v2_50_imagenet": {"preset": "resnet_v2_50_imagenet"},
        "hub:resnet_v2_101_imagenet": {"preset": "resnet_v2_101_imagenet"},
        "hub:resnet_vd_18_imagenet": {"preset": "resnet_vd_18_imagenet"},
        "hub:resnet_vd_34_imagenet": {"preset": "resnet_vd_34_imagenet"},
        "hub:resnet_vd_50_imagenet": {"preset": "resnet_vd_50_imagenet"},
        "hub:resnet_vd_50_ssld_imagenet": {"preset": "resnet_vd_50_ssld_imagenet"},
        "hub:resnet_vd_50_ssld_v2_imagenet": {"preset": "resnet_vd_50_ssld_v2_imagenet"},
        "hub:resnet_vd_50_ssld_v2_fix_imagenet": {"preset": "resnet_vd_50_ssld_v2_fix_imagenet"},
        "hub:resnet_vd_101_imagenet": {"preset": "resnet_vd_101_imagenet"},
        "hub:resnet_vd_101_ssld_imagenet": {"preset": "resnet_vd_101_ssld_imagenet"},
        "hub:resnet_vd_152_imagenet": {"preset": "resnet_vd_152_imagenet"},
        "hub:resnet_vd_200_imagenet": {"preset": "resnet_vd_200_imagenet"},
        "hub:densenet_121_imagenet": {"preset": "densenet_121_imagenet"},
        "hub:densenet_169_imagenet": {"preset": "densenet_169_imagenet"},
        "hub:densenet_201_imagenet": {"preset": "densenet_201_imagenet"},
        "hub:csp_darknet_53_ra_imagenet": {"preset": "csp_darknet_53_ra_imagenet"},
        "hub:csp_resnext_50_ra_imagenet": {"preset": "csp_resnext_50_ra_imagenet"},
        "hub:csp_resnet_50_ra_imagenet": {"preset": "csp_resnet_50_ra_imagenet"},
        "hub:darknet_53_imagenet": {"preset": "darknet_53_imagenet"},
        "hub:vgg_11_imagenet": {"preset": "vgg_11_imagenet"},
        "hub:vgg_13_imagenet": {"preset": "vgg_13_imagenet"},
        "hub:vgg_16_imagenet": {"preset": "vgg_16_imagenet"},
        "hub:vgg_19_imagenet": {"preset": "vgg_19_imagenet"},
        "hub:xception_41_imagenet": {"preset": "xception_41_imagenet"},
    }
)
def hub(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    preset: str,
    weights: str = "published",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Features of a KerasHub preset (needs the extra `hub`) and a new classifier.

    `weights` are `published`, which downloads them, or the folder of a preset that was downloaded elsewhere. Its
    preprocessing is in the graph, and the last tensor of each resolution is marked as a stage.

    Raises UserError for an image that is too small or not of three channels, without KerasHub, and for a preset that
    cannot be had.
    """
    require_size(input_shape, _LEAST, f"model hub:{preset} needs sides of {_LEAST} pixels")
    if input_shape[2] != 3:
        raise UserError(f"model hub:{preset} takes colour images; set data.channels=3")
    theirs, converter = _load(preset, weights, input_shape)
    theirs = keras.Model(theirs.input, theirs.output)
    inputs = keras.Input(input_shape, name="image", dtype="float32")
    scale, offset = (1.0 if converter.scale is None else converter.scale), (converter.offset or 0.0)
    pixels = keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="rescaling")(inputs)
    features = on_pixels(theirs, inputs, pixels)
    model = keras.Model(inputs, classify(features, num_classes, dropout=dropout), name=preset)
    copy(theirs, model, swapped=False)
    return model


def _load(preset: str, weights: str, input_shape: tuple[int, int, int]) -> tuple[keras.Model, Any]:
    """Return a preset's backbone for images of a size, and what says how it takes their pixels."""
    library, place = _library(preset), preset
    if weights != "published":
        place = str(Path(weights).expanduser())
        if not (Path(place) / "config.json").is_file():
            raise UserError(f"model.weights: {weights} is no folder of a KerasHub preset: it has no config.json")
    options = {"image_shape": input_shape, "dtype": keras.config.dtype_policy()}
    try:
        backbone = library.models.Backbone.from_preset(place, **options)
        converter = library.layers.ImageConverter.from_preset(place)
    except Exception as error:  # the libraries behind it raise what they like where there is no network
        reason = " ".join(str(error).split())[:200]
        if weights == "published":
            raise UserError(
                f"hub:{preset} could not be downloaded ({reason}); bring the preset's folder from elsewhere and give "
                "its path as model.weights"
            ) from None
        raise UserError(f"model.weights: {weights} cannot be read as a KerasHub preset ({reason})") from None
    if preset not in type(backbone).presets:
        raise UserError(f"model.weights: {weights} holds a {type(backbone).__name__}, which is not hub:{preset}")
    return backbone, converter


def _library(preset: str) -> ModuleType:
    try:
        return importlib.import_module("keras_hub")
    except ImportError:
        raise UserError(f"model hub:{preset} needs KerasHub; install it with: pip install '.[hub]'") from None
