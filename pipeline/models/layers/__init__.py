"""Parts of networks that Keras lacks: functions of tensors, and layers where a part draws numbers or has weights.

A saved model that has one of the layers (not of the functions) loads after `import pipeline.models.layers`; every other
model loads without this package. docs/layers.md lists them, with those that Keras has.
"""

from pipeline.models.layers.mixing import channel_shuffle
from pipeline.models.layers.normalisation import instance_norm, local_response_norm
from pipeline.models.layers.pooling import GeneralizedMeanPooling2D, StochasticPooling2D, weighted_pool
from pipeline.models.layers.regularisation import DropBlock2D, MixStyle, ShakeShake, stochastic_depth

__all__ = [
    "DropBlock2D",
    "GeneralizedMeanPooling2D",
    "MixStyle",
    "ShakeShake",
    "StochasticPooling2D",
    "channel_shuffle",
    "instance_norm",
    "local_response_norm",
    "stochastic_depth",
    "weighted_pool",
]
