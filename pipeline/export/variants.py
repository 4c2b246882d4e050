"""A model's files, one for each variant: by a recipe from its float file, or with the ranges it was trained with."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.export.compress.quantize_aware import is_quantized, kernel_bits, strip_quantization
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.convert import convert
from pipeline.export.metadata import Facts, describe
from pipeline.export.trial import CHOOSING, Trial
from pipeline.registry import RECIPES

# The variants that a quantisation-aware model of so many bits gives by itself, and their inputs.
_TRAINED = {8: {"int8": "int8", "uint8": "uint8"}, 4: {"w4a8": "int8"}}


def describe_model(name: str, model: keras.Model, classes: Sequence[str]) -> Facts:
    """Return what the files of a model of one image say of themselves."""
    height, width, channels = model.input_shape[1:]
    return Facts(name, tuple(classes), (height, width), channels, masks=len(model.output_shape) == 4)


def reference(model: keras.Model, variant: str) -> keras.Model:
    """Return the Keras model that a variant's file must compute as, layer by layer."""
    if is_quantized(model) and variant not in _TRAINED[kernel_bits(model)]:
        return strip_quantization(model)
    return model


def build_variants(
    model: keras.Model,
    names: Sequence[str],
    decode: Callable[[Any], Any],
    calibration: np.ndarray,
    facts: Facts,
    trial: Trial | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file, with its metadata.

    The other variants of a quantisation-aware model begin with its rounded kernels in a float file.

    Args:
        names: of the variants, from the registry of recipes.
        decode: from the model's outputs to probabilities, part of the file.
        calibration: images (N, H, W, C) in 0..255.
        facts: what the files say of themselves.
        trial: for the recipes that choose by measurement.
    """
    trained = _TRAINED[kernel_bits(model)] if is_quantized(model) else {}
    float_file = None
    for name in names:
        if name in trained:
            yield name, describe(convert_quantized(model, decode, ports=trained[name]), facts)
            continue
        float_file = float_file or convert(reference(model, name), decode)
        content = RECIPES.build(name, float_file, calibration, *((trial,) if name in CHOOSING else ()))
        yield name, describe(content, facts)
