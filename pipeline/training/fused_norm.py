"""Batch normalization through TensorFlow's one fused op instead of Keras's dozen elementwise ones.

On a CPU with oneDNN this is worth two to three times the speed of a training step. The layers, their variables and
the saved model stay Keras's own: only `call` of each layer instance is replaced, and put back afterwards.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import keras
import tensorflow as tf


@contextlib.contextmanager
def fused_norm(model: keras.Model) -> Iterator[int]:
    """Run the model's batch norms through FusedBatchNormV3 while training; yields how many were replaced.

    Only calls with training=True change. Statistics are per replica, as in Keras. A function that was traced inside
    keeps the fused op after the end.
    """
    replaced = [layer for layer in all_layers(model) if _replaceable(layer)]
    for layer in replaced:
        # Into the instance's dict, past Keras's attribute tracking: `call` of the class is hidden, nothing else.
        vars(layer)["call"] = functools.partial(_call, layer)
    try:
        yield len(replaced)
    finally:
        for layer in replaced:
            del vars(layer)["call"]


def _call(layer: keras.layers.BatchNormalization, inputs, training=None, mask=None):
    if not training or not layer.trainable or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    outputs, mean, variance = fused_batch_norm(inputs, layer.gamma, layer.beta, layer.epsilon)
    for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        # The very expression of Keras, so that rounding is the same.
        moving.assign(moving * layer.momentum + batch * (1.0 - layer.momentum))
    return outputs


def fused_batch_norm(inputs, gamma, beta, epsilon: float):
    """Normalise (N, H, W, C) by its own statistics; return the outputs, and mean and population variance (C,)."""
    channels = inputs.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.ones([channels]) if gamma is None else tf.convert_to_tensor(gamma),
        offset=tf.zeros([channels]) if beta is None else tf.convert_to_tensor(beta),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    # The op returns the sample variance, Keras keeps the population's.
    count = math.prod(inputs.shape[:-1]) if inputs.shape.is_fully_defined() else tf.size(inputs) // channels
    count = tf.cast(count, tf.float32)
    return outputs, mean, variance * ((count - 1.0) / count)


def _replaceable(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, 3)
        and layer.input_spec is not None
        and layer.input_spec.ndim == 4
        and not layer.renorm
        and not layer.synchronized
        and layer.variable_dtype == "float32"
        and layer.compute_dtype != "float64"
    )


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield a model's layers, and those of the models among them."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
