"""MobileNetV3: inverted residuals with channel attention and hard-swish (arXiv 1905.02244)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.attention import squeeze_excite
from pipeline.models.blocks import conv_norm, inverted_residual, scaled
from pipeline.models.heads import dense_logits
from pipeline.models.trunk import trunk
from pipeline.registry import MODELS, Fraction

_EPSILON = 1e-3

# Kernel, expansion, channels, attention, hard-swish instead of ReLU, and level of each block: tables 1 and 2. The
# expansion is a ratio, as the paper's widths of the expanded layer would not scale with the width.
_LARGE = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 2),
    *((5, 3, 40, True, False, 3),) * 3,
    (3, 6, 80, False, True, 4),
    (3, 2.5, 80, False, True, 4),
    *((3, 2.3, 80, False, True, 4),) * 2,
    *((3, 6, 112, True, True, 4),) * 2,
    *((5, 6, 160, True, True, 5),) * 3,
)
_SMALL = (
    (3, 1, 16, True, False, 2),
    (3, 72 / 16, 24, False, False, 3),
    (3, 88 / 24, 24, False, False, 3),
    (5, 4, 40, True, True, 4),
    *((5, 6, 40, True, True, 4),) * 2,
    *((5, 3, 48, True, True, 4),) * 2,
    *((5, 6, 96, True, True, 5),) * 3,
)
_TINY = (
    (3, 1, 16, True, False, 2),
    (3, 4, 32, False, False, 3),
    *((5, 3, 48, True, True, 4),) * 2,
    (5, 4, 64, True, True, 5),
)


@MODELS.register(
    mobilenet_v3_small={"blocks": _SMALL, "units": 1024, "minimalistic": False},
    mobilenet_v3_large={"blocks": _LARGE, "units": 1280, "minimalistic": False},
    mobilenet_v3_small_minimalistic={"blocks": _SMALL, "units": 1024, "minimalistic": True},
    mobilenet_v3_large_minimalistic={"blocks": _LARGE, "units": 1280, "minimalistic": True},
    mobilenet_v3_tiny={"blocks": _TINY, "units": 128, "minimalistic": False},
)
def mobilenet_v3(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[tuple[int, float, int, bool, bool, int], ...],
    units: int,
    minimalistic: bool,
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Stack of inverted residuals with attention and hard-swish; minimalistic: with neither, 3x3 (arXiv 1905.02244)."""
    activation = "relu" if minimalistic else "hard_silu"
    layout = [
        (
            level,
            partial(
                inverted_residual,
                filters=scaled(filters, width),
                expansion=expansion,
                kernel_size=3 if minimalistic else kernel_size,
                activation=activation if hard_swish else "relu",
                attention=_attention if attends and not minimalistic else None,
                epsilon=_EPSILON,
            ),
        )
        for kernel_size, expansion, filters, attends, hard_swish, level in blocks
    ]
    # The stem has 16 channels at every width.
    inputs, x = trunk(
        input_shape, layout, filters=16, stem=stem, activation=activation, epsilon=_EPSILON, name="mobilenet_v3"
    )
    x = conv_norm(x, scaled(x.shape[-1], 6), 1, activation=activation, epsilon=_EPSILON, name="last")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(scaled(units, max(width, 1.0)), name="head")(x)
    x = keras.layers.Activation(activation, name=f"head_{activation}")(x)
    return keras.Model(inputs, dense_logits(x, num_classes, dropout=dropout), name="mobilenet_v3")


def _attention(x: Any, name: str) -> Any:
    return squeeze_excite(x, scaled(x.shape[-1], 0.25), gate="hard_sigmoid", name=name)
