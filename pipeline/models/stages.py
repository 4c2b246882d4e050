"""The stage contract: a backbone marks the output of each resolution level, where decoders and necks find it."""

import re
from typing import Any

import keras

from pipeline.errors import UserError

# Below this many pixels on the shorter side, five halvings would leave a map of at most 2x2 to classify from.
_SMALL_IMAGE = 96


def mark(x: Any, stride: int) -> Any:
    """Name a tensor as the output of level c<k>, where `stride` = 2**k."""
    return keras.layers.Activation("linear", name=f"c{stride.bit_length() - 1}")(x)


def stages(model: keras.Model) -> dict[int, Any]:
    """Return the marked tensors by level, finest first; empty where a model marks none."""
    named = {layer.name: layer for layer in model.layers if re.fullmatch(r"c\d", layer.name)}
    return {int(name[1:]): named[name].output for name in sorted(named)}


def require_stride(input_shape: tuple[int, int, int], stride: int, name: str) -> None:
    """Raise UserError when an image is smaller than the model's stride, so that its last map would be all padding."""
    halvings = stride.bit_length() - 1
    require_size(input_shape, stride, f"model {name} halves the image {halvings} times")


def require_size(input_shape: tuple[int, int, int], least: int, reason: str) -> None:
    """Raise UserError when a side of the image is shorter than `least` pixels; `reason` opens the sentence."""
    height, width, _ = input_shape
    if min(height, width) < least:
        enough = f"{max(height, least)}x{max(width, least)}"
        raise UserError(f"{reason}: data.image_size {height}x{width} is too small; give at least {enough}")


def has_small_stem(input_shape: tuple[int, int, int], stem: str) -> bool:
    """Say whether a network leaves out its first two halvings: where `stem` says so, or is `auto` below 96 pixels."""
    return stem == "small" or (stem == "auto" and min(input_shape[:2]) < _SMALL_IMAGE)
