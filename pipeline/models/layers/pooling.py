"""Pooling that learns or draws: the kinds that Keras lacks."""

import math
from typing import Any

import keras
from keras import ops


def weighted_pool(x: Any, pool_size: int, *, name: str) -> Any:
    """Sum windows of (B, H, W, C) with learned weights, one set for each channel; they start as those of an average.

    A strided depthwise convolution: the sub-sampling with trainable coefficients of LeCun et al. 1998, "Gradient-based
    learning", with a coefficient for each pixel.
    """
    return keras.layers.DepthwiseConv2D(
        pool_size,
        strides=pool_size,
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(1 / pool_size**2),
        name=name,
    )(x)


@keras.saving.register_keras_serializable("pipeline")
class StochasticPooling2D(keras.layers.Layer):
    """Take one value of each window, drawn with its share of the window's sum (arXiv 1301.3557).

    Without training it gives what that is on average, the sum of squares over the sum. Negative values count as zero,
    so it belongs behind a ReLU; a window of zeros gives zero. (B, H, W, C) becomes (B, H', W', C), without padding.
    """

    def __init__(self, pool_size: int = 2, strides: int | None = None, seed: int | None = None, **kwargs: Any) -> None:
        """Take windows of `pool_size` pixels a side, `strides` apart or side by side."""
        super().__init__(**kwargs)
        self.pool_size, self.strides, self.seed = pool_size, strides or pool_size, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        positive = ops.relu(inputs)
        return self._draw(positive) if training else self._mean(positive)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return batch, *((n - self.pool_size) // self.strides + 1 for n in (height, width)), channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pool_size": self.pool_size, "strides": self.strides, "seed": self.seed}

    def _mean(self, positive: Any) -> Any:
        exact = ops.cast(positive, "float32")  # the square of 256 is beyond float16
        total = ops.average_pool(exact, self.pool_size, self.strides)
        squares = ops.average_pool(ops.square(exact), self.pool_size, self.strides)
        return ops.cast(squares / ops.maximum(total, 1e-7), positive.dtype)  # where the sum is zero, so are the squares

    def _draw(self, positive: Any) -> Any:
        height, width = self.compute_output_shape(positive.shape)[1:3]
        reach = [self.strides * (n - 1) + 1 for n in (height, width)]
        windows = ops.stack(
            [
                positive[:, i : i + reach[0] : self.strides, j : j + reach[1] : self.strides]
                for i in range(self.pool_size)
                for j in range(self.pool_size)
            ]
        )
        # Shares in float32: a running sum in bfloat16 stands still after a few terms.
        running = ops.cumsum(ops.cast(windows, "float32"), axis=0)
        draws = keras.random.uniform(ops.shape(running)[1:], seed=self.seed_generator)
        beyond = ops.cast(running > draws * running[-1], "float32")
        first = beyond - ops.concatenate([ops.zeros_like(beyond[:1]), beyond[:-1]])
        return ops.sum(windows * ops.cast(ops.stop_gradient(first), windows.dtype), axis=0)


@keras.saving.register_keras_serializable("pipeline")
class GeneralizedMeanPooling2D(keras.layers.Layer):
    """Pool (B, H, W, C) to (B, C) by (mean of x^p)^(1/p), with a learned p (arXiv 1711.02512).

    p = 1 is the average; the larger p, the nearer the maximum. Values below `epsilon` count as `epsilon`.
    """

    def __init__(self, power: float = 3.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        """Start from p = `power`, which is above 0."""
        super().__init__(**kwargs)
        self.power, self.epsilon = power, epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # Its logarithm is learned, so that p stays above 0.
        start = keras.initializers.Constant(math.log(self.power))
        self.log_power = self.add_weight(shape=(), initializer=start, name="log_power")

    def call(self, inputs: Any) -> Any:
        # x^3 of values near 0 vanishes in half precision, and with it the root's gradient.
        power = ops.exp(ops.cast(self.log_power, "float32"))
        raised = ops.power(ops.maximum(ops.cast(inputs, "float32"), self.epsilon), power)
        return ops.cast(ops.power(ops.mean(raised, axis=(1, 2)), 1 / power), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power, "epsilon": self.epsilon}
