"""Grad-CAM: which places of a Keras model's last feature map speak for a class."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.registry import suggest
from pipeline.training.pointwise import pointwise_products


def grad_cam(model: keras.Model, image: np.ndarray, label: int, *, layer: str | None = None) -> np.ndarray:
    """Return Grad-CAM of one class: float32 (H, W) at the size of the image, 0 to 1, all 0 where nothing speaks for it.

    The channels of a feature map are weighted by the mean gradient of the class's output with respect to them, summed,
    and cut at 0 (arXiv 1610.02391). The coarse map is enlarged bilinearly.

    Args:
        model: one answer for each image, (B, K); logits, as the gradient of a sure probability is next to nothing.
        image: (H, W, C) in 0..255.
        label: class index.
        layer: by name, in the model or in a model inside it; by default the last one with a map of more than one place.

    Raises UserError where the model has no such layer, or gives something else than one answer for each image.
    """
    if len(model.output_shape) != 2:
        raise UserError(f"Grad-CAM needs one answer for each image, but {model.name} gives {model.output_shape}")
    features, gradient = _features(model, image, label, _find(model, layer))
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    coarse = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    heat = tf.image.resize(coarse, image.shape[:2])[0, ..., 0].numpy()
    return heat / heat.max() if heat.max() > 0 else heat


def _find(model: keras.Model, name: str | None) -> keras.layers.Layer:
    maps = {layer.name: layer for layer in _layers(model) if _has_map(layer)}
    if name is None and maps:
        return list(maps.values())[-1]
    if name not in maps:
        wanted = f"layer {name!r} with a feature map; {suggest(name, maps)}" if name else "layer with a feature map"
        raise UserError(f"{model.name} has no {wanted}")
    return maps[name]


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield all layers from input to output, those of models inside the model in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _has_map(layer: keras.layers.Layer) -> bool:
    # Of the last of its calls, where it is shared; `layer.output` refuses to answer then.
    tensors = layer._inbound_nodes[-1].output_tensors
    shape = tensors[0].shape
    return len(shape) == 4 and shape[1:3] != (1, 1) and not isinstance(layer, keras.layers.InputLayer)


def _features(
    model: keras.Model, image: np.ndarray, label: int, layer: keras.layers.Layer
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the layer's output (1, h, w, C) for the image, and the gradient of the class's output to it, float32."""
    found = []
    call = layer.call

    def watched(*args: Any, **kwargs: Any) -> tf.Tensor:
        output = call(*args, **kwargs)
        tape.watch(output)
        found.append(output)
        return output

    # The output of a layer of an inner model is no tensor of the outer one: it can only be taken while it is computed.
    layer.call = watched
    try:
        with pointwise_products(model), tf.GradientTape() as tape:  # of one image, eagerly: oneDNN's would not do
            score = model(tf.convert_to_tensor(image[None], tf.float32), training=False)[0, label]
    finally:
        del layer.call
    gradient = tape.gradient(score, found[-1], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.cast(found[-1], tf.float32), tf.cast(gradient, tf.float32)
