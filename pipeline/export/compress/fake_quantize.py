"""Layers that train as the integer file will compute: values are rounded to a grid, gradients pass straight through.

The rounding is TensorFlow's fake_quant (arXiv 1712.05877), which TFLiteConverter reads as scale and zero point.
Keras reaches it on every backend through `keras.quantizers`, but only inside `call`: a symbolic call drops the bits.
"""

from typing import Any

import keras
from keras import ops

_round_to_grid = keras.quantizers.fake_quant_with_min_max_vars

# What the integer kernels give, whatever the file says: scales 1/256 from 0 and 1/128 around 0.
SIGMOID_RANGE, TANH_RANGE = (0.0, 255 / 256), (-1.0, 127 / 128)

# A channel whose weights are all zero still needs a scale above zero.
_SMALLEST = 1e-9


@keras.saving.register_keras_serializable(package="pipeline")
class FakeQuantize(keras.layers.Layer):
    """Round a tensor to 256 levels between a low and a high that follow what passes through.

    While training, each place (`slot`) keeps moving averages of its batches' minimum and maximum, zero included. All
    places share one grid, from the lowest low to the highest high: so the tensors that a concatenation joins, or a
    pooling reads and gives, have one scale, as LiteRT's kernels demand. Until anything was seen, values pass as they
    are. With `fixed`, the range is that one for ever: pixels, or a sigmoid's output.
    """

    def __init__(
        self, *, slots: int = 1, fixed: tuple[float, float] | None = None, momentum: float = 0.99, **kwargs: Any
    ) -> None:
        """Take the number of places that share the range, or a fixed range (low <= 0 < high)."""
        # In float32 under every policy: 256 levels are more than bfloat16 can tell apart.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.slots, self.momentum = slots, momentum
        self.fixed = tuple(fixed) if fixed else None
        self.observing = False  # set by calibration: follow the ranges without training

    def build(self, input_shape: Any) -> None:
        """Create the averages of each place."""
        if not self.fixed:
            self.low, self.high = (
                self.add_weight(name=name, shape=(self.slots,), initializer="zeros", trainable=False)
                for name in ("low", "high")
            )

    def call(self, x: Any, slot: int = 0, training: bool = False) -> Any:
        """Round `x`, which comes from place number `slot`."""
        if self.fixed:
            return _round_to_grid(x, *self.fixed)
        if training or self.observing:
            self._follow(ops.stop_gradient(x), slot)
        low, high = ops.min(self.low), ops.max(self.high)
        seen = high > low
        return ops.where(seen, _round_to_grid(x, low, ops.where(seen, high, low + 1.0)), x)

    def _follow(self, x: Any, slot: int) -> None:
        here = ops.one_hot(slot, self.slots)
        lowest, highest = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
        # The first batch counts in full: an average that starts at zero would clip for a hundred steps.
        rate = here * ops.where(self.high > self.low, 1.0 - self.momentum, 1.0)
        self.low.assign(self.low + rate * (lowest - self.low))
        self.high.assign(self.high + rate * (highest - self.high))

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the grid so far; (0, 0) when nothing was seen."""
        return self.fixed or (float(ops.min(self.low)), float(ops.max(self.high)))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        mine = {"slots": self.slots, "fixed": self.fixed, "momentum": self.momentum}
        return {**super().get_config(), **mine}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape, unchanged."""
        return input_shape


class _QuantizedKernel:
    """What the layers below share: a float kernel, trained as it is, and its rounded copy, computed with.

    Symmetric around zero, so that zeros stay zeros, and without the lowest level (-127..127, or -7..7): that is what
    integer kernels want.
    """

    def __init__(self, *args: Any, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bits = bits

    def rounded_kernel(self) -> Any:
        """Return the kernel as the integer file will hold it: one scale per output channel."""
        return self._rounded(self.kernel)

    def _rounded(self, kernel: Any, axis: int | None = -1) -> Any:
        dtype, kernel = kernel.dtype, ops.cast(kernel, "float32")
        others = None if axis is None else tuple(range(len(kernel.shape) - 1))
        limit = ops.maximum(ops.stop_gradient(ops.max(ops.abs(kernel), axis=others)), _SMALLEST)
        rounded = _round_to_grid(kernel, -limit, limit, num_bits=self.bits, narrow_range=True, axis=axis)
        return ops.cast(rounded, dtype)

    def _with_bias(self, outputs: Any) -> Any:
        return ops.add(outputs, self.bias) if self.use_bias else outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable(package="pipeline")
class QuantizedConv2D(_QuantizedKernel, keras.layers.Conv2D):
    """Convolve with a kernel rounded per output channel."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve with the rounded kernel."""
        return super().convolution_op(inputs, self._rounded(kernel))


@keras.saving.register_keras_serializable(package="pipeline")
class QuantizedDepthwiseConv2D(_QuantizedKernel, keras.layers.DepthwiseConv2D):
    """Convolve each channel with a kernel rounded per output channel."""

    def rounded_kernel(self) -> Any:
        """Round (H, W, C, multiplier) over C and multiplier together: fake_quant knows only the last axis."""
        shape = self.kernel.shape
        flat = ops.reshape(self.kernel, (*shape[:2], shape[2] * shape[3]))
        return ops.reshape(self._rounded(flat), shape)

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel."""
        options = {"padding": self.padding, "dilation_rate": self.dilation_rate, "data_format": self.data_format}
        return self._with_bias(ops.depthwise_conv(inputs, self.rounded_kernel(), strides=self.strides, **options))


@keras.saving.register_keras_serializable(package="pipeline")
class QuantizedConv2DTranspose(_QuantizedKernel, keras.layers.Conv2DTranspose):
    """Convolve transposed with a kernel rounded to one scale: its output channels are not on the last axis."""

    def rounded_kernel(self) -> Any:
        """Return the kernel on one grid."""
        return self._rounded(self.kernel, axis=None)

    def call(self, inputs: Any) -> Any:
        """Convolve with the rounded kernel."""
        outputs = ops.conv_transpose(
            inputs,
            self.rounded_kernel(),
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return self._with_bias(outputs)


@keras.saving.register_keras_serializable(package="pipeline")
class QuantizedDense(_QuantizedKernel, keras.layers.Dense):
    """Multiply by a kernel rounded to one scale: the converter transposes it and would lose the channels' axis."""

    def rounded_kernel(self) -> Any:
        """Return the kernel on one grid."""
        return self._rounded(self.kernel, axis=None)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Multiply by the rounded kernel."""
        return self._with_bias(ops.matmul(inputs, self.rounded_kernel()))


@keras.saving.register_keras_serializable(package="pipeline")
class QuantizedSilu(keras.layers.Layer):
    """Compute x * sigmoid(x) as LiteRT does: the sigmoid is a tensor of its own, on the grid of its kernel."""

    def call(self, x: Any) -> Any:
        """Multiply by the rounded sigmoid."""
        return x * _round_to_grid(ops.sigmoid(x), *SIGMOID_RANGE)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape, unchanged."""
        return input_shape


QUANTIZED = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    keras.layers.Conv2DTranspose: QuantizedConv2DTranspose,
    keras.layers.Dense: QuantizedDense,
}
