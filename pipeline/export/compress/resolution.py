"""Smaller images: the same weights on another input size, and a model that sees small images enlarged."""

import keras

from pipeline.errors import UserError
from pipeline.models.weights import put


def at_resolution(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Return a copy with the same weights that takes images of another (height, width).

    Raises UserError where a layer's weights depend on the size, as those of a dense layer after flattening do.
    """
    image = keras.Input((*image_size, model.inputs[0].shape[-1]), name=model.inputs[0].name)
    try:
        copy = keras.models.clone_model(model, input_tensors=image)
        put(copy, model.get_weights())
    except ValueError as error:
        size = "×".join(map(str, image_size))
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{model.name!r} cannot take images of {size}: {reason}; keep data.image_size") from None
    return copy


def enlarging(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Return a model that enlarges images of `image_size` to the size that `model` was made for."""
    image = keras.Input((*image_size, model.inputs[0].shape[-1]), name=model.inputs[0].name)
    height, width = model.inputs[0].shape[1:3]
    # Not the Resizing layer: it turns a plain call into training mode for all that comes after it.
    return keras.Model(image, model(keras.ops.image.resize(image, (height, width))), name=model.name)
