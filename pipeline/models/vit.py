"""Vision transformers: an image as a sentence of patches (arXiv 2010.11929)."""

from typing import Any, Literal

import keras

from pipeline.errors import UserError
from pipeline.models.blocks import conv, image_input
from pipeline.models.heads import classify, dense_logits
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.models.transformer import add_positions, encoder_blocks, layer_norm, learned
from pipeline.registry import MODELS, Fraction


# Of arXiv 2012.12877, table 1, below base.
@MODELS.register(
    vit_micro_16={"patch": 16, "blocks": 2, "size": 32, "heads": 4},
    vit_tiny_16={"patch": 16, "blocks": 12, "size": 192, "heads": 3},
    vit_small_16={"patch": 16, "blocks": 12, "size": 384, "heads": 6},
    vit_small_32={"patch": 32, "blocks": 12, "size": 384, "heads": 6},
    vit_base_16={"patch": 16, "blocks": 12, "size": 768, "heads": 12},
    vit_base_32={"patch": 32, "blocks": 12, "size": 768, "heads": 12},
)
def vit(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    patch: int,
    blocks: int,
    size: int,
    heads: int,
    pool: Literal["token", "average"] = "token",
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.0,
    stochastic_depth: Fraction = 0.0,
) -> keras.Model:
    """Transformer over patches of the image, 16 or 32 pixels wide, a quarter of that for small ones (arXiv 2010.11929).

    The answer is read from a class token, or from the average of the patches (arXiv 2205.01580), which an integer file
    rounds less: a class token has to share the scale of the patches that it is joined to. There are as many
    position embeddings as the image has patches. The level of the patches is marked behind the last block, or before
    it where there is a class token: what it makes of the patches then leads nowhere.

    Raises:
        UserError: a side of the image is no multiple of the patch.
    """
    name = f"vit_{patch}"
    patch = patch // 4 if has_small_stem(input_shape, stem) else patch
    _require_whole_patches(input_shape, patch, name)
    inputs, x = image_input(input_shape)
    x = conv(x, size, patch, stride=patch, padding="valid", bias=True, name="patches")
    map_shape = x.shape[1:]
    x = keras.layers.Reshape((-1, size), name="patches_tokens")(x)
    if pool == "token":
        x = keras.layers.Concatenate(axis=1, name="class_token_join")([learned(inputs, 1, size, name="class_token"), x])
    x = add_positions(inputs, x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="positions_dropout")(x)
    *others, last = encoder_blocks(blocks, heads, 4 * size, dropout=dropout, stochastic_depth=stochastic_depth)
    for block in others:
        x = block(x)
    if pool == "token":
        token = _token(last(_mark_patches(x, map_shape, patch)), name="class_token_answer")
        logits = dense_logits(layer_norm(token, name="last_norm"), num_classes)
    else:
        x = layer_norm(last(x), name="last_norm")
        logits = classify(mark(keras.layers.Reshape(map_shape, name="last_map")(x), patch), num_classes)
    return keras.Model(inputs, logits, name=name)


def _require_whole_patches(input_shape: tuple[int, int, int], patch: int, name: str) -> None:
    require_stride(input_shape, patch, name)
    height, width, _ = input_shape
    if height % patch or width % patch:
        enough = f"{-(-height // patch) * patch}x{-(-width // patch) * patch}"
        raise UserError(
            f"model {name} cuts the image into patches of {patch}x{patch}: data.image_size {height}x{width} is no "
            f"multiple of that; give {enough}"
        )


def _token(x: Any, *, name: str) -> Any:
    """Take the first token out of (B, N, D): (B, D)."""
    x = keras.layers.Cropping1D((0, x.shape[1] - 1), name=name)(x)
    return keras.layers.Flatten(name=f"{name}_flat")(x)


def _mark_patches(x: Any, map_shape: tuple[int, int, int], patch: int) -> Any:
    """Mark the patches among tokens (B, 1 + N, D) as a map of their level, on the way to the next block."""
    token = keras.layers.Cropping1D((0, x.shape[1] - 1), name="last_token")(x)
    patches = keras.layers.Reshape(map_shape, name="last_map")(keras.layers.Cropping1D((1, 0), name="last_patches")(x))
    patches = keras.layers.Reshape((-1, map_shape[-1]), name="last_tokens")(mark(patches, patch))
    return keras.layers.Concatenate(axis=1, name="last_join")([token, patches])
