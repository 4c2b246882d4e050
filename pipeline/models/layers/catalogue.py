"""Every part a network can be built of, Keras's own and ours: what the tests go through and docs/layers.md lists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from pipeline.models import layers as ours
from pipeline.models.attention import channel_attention, self_attention, spatial_attention, squeeze_excite
from pipeline.models.blocks import ghost_module


@dataclass(frozen=True)
class Part:
    """One part: a layer's class or a function of a tensor, with the arguments that the example has.

    `branches` tensors go in. `not_compiled` says why XLA cannot train the part, where it cannot.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    branches: int = 1
    not_compiled: str = ""

    def apply(self, x: Any) -> Any:
        """Put the part behind a tensor, or a list of `branches`."""
        if isinstance(self.make, type):
            return self.make(**self.options)(x)
        return self.make(x, **self.options, name="part")

    @property
    def written(self) -> str:
        """The example as one would write it."""
        room = "keras.layers" if self.make.__module__.startswith("keras.") else self.make.__module__
        # The rooms of the package show their parts at its door.
        room = "pipeline.models.layers" if room.startswith("pipeline.models.layers") else room
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        given = options if isinstance(self.make, type) else ", ".join(filter(None, ["x", options, "name=..."]))
        return f"{room}.{self.make.__name__}({given})"


_L = keras.layers

PARTS: tuple[Part, ...] = (
    Part("convolution", "convolution", _L.Conv2D, {"filters": 8, "kernel_size": 3}),
    Part("convolution", "strided", _L.Conv2D, {"filters": 8, "kernel_size": 3, "strides": 2, "padding": "same"}),
    Part("convolution", "dilated", _L.Conv2D, {"filters": 8, "kernel_size": 3, "dilation_rate": 2}, "1511.07122"),
    Part("convolution", "grouped", _L.Conv2D, {"filters": 8, "kernel_size": 3, "groups": 2}, "1611.05431"),
    Part("convolution", "depthwise", _L.DepthwiseConv2D, {"kernel_size": 3}, "1704.04861"),
    Part("convolution", "separable", _L.SeparableConv2D, {"filters": 8, "kernel_size": 3}, "1610.02357"),
    Part("convolution", "transposed", _L.Conv2DTranspose, {"filters": 8, "kernel_size": 2, "strides": 2}),
    Part("pooling", "max", _L.MaxPooling2D),
    Part("pooling", "average", _L.AveragePooling2D, {"pool_size": 2}),
    Part("pooling", "global average", _L.GlobalAveragePooling2D, source="1312.4400"),
    Part("pooling", "global max", _L.GlobalMaxPooling2D),
    Part("pooling", "adaptive average", _L.AdaptiveAveragePooling2D, {"output_size": 3}),
    Part("pooling", "adaptive max", _L.AdaptiveMaxPooling2D, {"output_size": 3}),
    Part("pooling", "weighted", ours.weighted_pool, {"pool_size": 2}),
    Part("pooling", "stochastic", ours.StochasticPooling2D, {"pool_size": 2}, "1301.3557"),
    Part("pooling", "generalised mean", ours.GeneralizedMeanPooling2D, {"power": 3.0}, "1711.02512"),
    Part("norm", "batch", _L.BatchNormalization, source="1502.03167"),
    Part("norm", "layer", _L.LayerNormalization, source="1607.06450"),
    Part("norm", "group", _L.GroupNormalization, {"groups": 4}, "1803.08494"),
    Part("norm", "instance", ours.instance_norm, source="1607.08022"),
    Part("norm", "root mean square", _L.RMSNormalization, source="1910.07467"),
    Part("norm", "local response", ours.local_response_norm, {"size": 5}),
    Part("activation", "ReLU", _L.ReLU),
    Part("activation", "ReLU6", _L.ReLU, {"max_value": 6.0}, "1704.04861"),
    Part("activation", "leaky ReLU", _L.LeakyReLU, {"negative_slope": 0.1}),
    Part("activation", "PReLU", _L.PReLU, {"shared_axes": [1, 2]}, "1502.01852"),
    Part("activation", "ELU", _L.ELU, source="1511.07289"),
    Part("activation", "SELU", _L.Activation, {"activation": "selu"}, "1706.02515"),
    Part("activation", "Swish", _L.Activation, {"activation": "silu"}, "1710.05941"),
    Part("activation", "GELU", _L.Activation, {"activation": "gelu"}, "1606.08415"),
    Part("activation", "Mish", _L.Activation, {"activation": "mish"}, "1908.08681"),
    Part("activation", "hard-swish", _L.Activation, {"activation": "hard_silu"}, "1905.02244"),
    Part("activation", "softmax", _L.Softmax),
    Part("regularisation", "dropout", _L.Dropout, {"rate": 0.3}, "1207.0580"),
    Part("regularisation", "spatial dropout", _L.SpatialDropout2D, {"rate": 0.3}, "1411.4280"),
    Part("regularisation", "Gaussian noise", _L.GaussianNoise, {"stddev": 0.1}),
    Part("regularisation", "stochastic depth", ours.stochastic_depth, {"rate": 0.3}, "1603.09382"),
    Part("regularisation", "shake-shake", ours.ShakeShake, source="1705.07485", branches=2),
    Part("regularisation", "drop-block", ours.DropBlock2D, {"rate": 0.3, "block_size": 3}, "1810.12890"),
    Part("regularisation", "style mixing", ours.MixStyle, source="2104.02008"),
    Part("attention", "squeeze-excite", squeeze_excite, {"reduced": 2}, "1709.01507"),
    Part("attention", "over channels", channel_attention, {"reduced": 2}, "1807.06521"),
    Part("attention", "over places", spatial_attention, source="1807.06521"),
    Part("attention", "between places", self_attention, {"heads": 2}, "2101.11605"),
    Part("mixing", "channel shuffle", ours.channel_shuffle, {"groups": 4}, "1707.01083"),
    Part("mixing", "ghost module", ghost_module, {"filters": 8}, "1911.11907"),
    Part("size", "bilinear upsampling", _L.UpSampling2D, {"interpolation": "bilinear"}),
    Part("size", "nearest upsampling", _L.UpSampling2D),
    Part(
        "size",
        "nearest resizing",
        _L.Resizing,
        {"height": 16, "width": 16, "interpolation": "nearest"},
        not_compiled="XLA has no ResizeNearestNeighborGrad",
    ),
)
