"""Noise for training that Keras has no layer of its own for; without training each part is silent."""

import math
from typing import Any

import keras
from keras import ops


def stochastic_depth(x: Any, rate: float, *, name: str) -> Any:
    """Drop the whole branch `x` (B, H, W, C) of an image with probability `rate`, before it is added to its shortcut.

    arXiv 1603.09382, with what is kept scaled up by 1 / (1 - rate), so that inference needs no change. A rate of 0 adds
    no layer.
    """
    return keras.layers.Dropout(rate, noise_shape=(None, 1, 1, 1), name=name)(x) if rate else x


@keras.saving.register_keras_serializable("pipeline")
class ShakeShake(keras.layers.Layer):
    """Add two branches with random weights that sum to 1, and send gradients back with other random weights.

    Shake-shake regularisation, arXiv 1705.07485, its "shake-shake-image": both draws are uniform and one per image.
    Without training it is the mean of the branches.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        """Call it on a list of two tensors of one shape (B, ...)."""
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: list[Any], training: bool = False) -> Any:
        one, other = inputs
        if not training:
            return (one + other) / 2
        shape = (ops.shape(one)[0], *[1] * (len(one.shape) - 1))
        forward, backward = (
            keras.random.uniform(shape, dtype=one.dtype, seed=self.seed_generator) for _ in ("forward", "backward")
        )
        difference = one - other
        # The value has the forward weight, the gradient the backward one.
        return other + backward * difference + ops.stop_gradient((forward - backward) * difference)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("pipeline")
class DropBlock2D(keras.layers.Layer):
    """Set squares of each channel of (B, H, W, C) to zero while training (DropBlock, arXiv 1810.12890, algorithm 1).

    About `rate` of the values go, in squares of `block_size` a side that lie inside the map, and the others are scaled
    up so that their number and sum stay. On a map that is smaller than the square, the square is the map.
    """

    def __init__(self, rate: float, block_size: int = 7, seed: int | None = None, **kwargs: Any) -> None:
        """Drop with probability `rate`; raises ValueError for one outside [0, 1)."""
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of {self.name} cannot be {rate}; give one from 0 to below 1")
        self.rate, self.block_size, self.seed = rate, block_size, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return inputs
        height, width = inputs.shape[1:3]
        block = min(self.block_size, height, width)
        starts = (height - block + 1, width - block + 1)  # the places where a square can have its first corner
        chance = self.rate * height * width / (block**2 * starts[0] * starts[1])
        shape = (ops.shape(inputs)[0], *starts, inputs.shape[-1])
        corners = ops.cast(keras.random.uniform(shape, seed=self.seed_generator) < chance, "float32")
        around = ((0, 0), (block - 1, block - 1), (block - 1, block - 1), (0, 0))
        kept = 1 - ops.max_pool(ops.pad(corners, around), block, strides=1)
        scale = ops.cast(ops.size(kept), "float32") / ops.maximum(ops.sum(kept), 1)
        return inputs * ops.cast(kept * scale, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "block_size": self.block_size, "seed": self.seed}


@keras.saving.register_keras_serializable("pipeline")
class MixStyle(keras.layers.Layer):
    """Give the maps (B, H, W, C) of an image a share of the next one's means and deviations while training.

    MixStyle, arXiv 2104.02008, for the first stages of a network: shares come from Beta(alpha, alpha), one an image, a
    batch is changed with probability `rate`, and no gradient runs through means and deviations. The next image of the
    batch takes the place of a drawn one, since batches are shuffled.
    """

    def __init__(self, alpha: float = 0.1, rate: float = 0.5, seed: int | None = None, **kwargs: Any) -> None:
        """Mix with probability `rate`; raises ValueError for one outside [0, 1], or an alpha that is not positive."""
        super().__init__(**kwargs)
        if not (alpha > 0 and 0 <= rate <= 1):
            raise ValueError(
                f"{self.name} cannot have alpha {alpha} and rate {rate}; give a positive alpha, and a rate from 0 to 1"
            )
        self.alpha, self.rate, self.seed = alpha, rate, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        x = ops.cast(inputs, "float32")
        mean, variance = (ops.stop_gradient(moment) for moment in ops.moments(x, axes=(1, 2), keepdims=True))
        deviation = ops.sqrt(variance + 1e-6)
        mixed = keras.random.uniform((), seed=self.seed_generator) < self.rate
        share = self._draw(ops.shape(x)[0]) * ops.cast(mixed, "float32")
        new_mean, new_deviation = (own + share * (ops.roll(own, -1, axis=0) - own) for own in (mean, deviation))
        return ops.cast((x - mean) / deviation * new_deviation + new_mean, inputs.dtype)

    def _draw(self, count: Any) -> Any:
        """Draw (B, 1, 1, 1) from Beta(alpha, alpha) in closed form, since XLA has no gamma distribution.

        Devroye 1996, "Random variate generation in one line of code", section on the symmetric beta distribution.
        """
        radius, angle = (keras.random.uniform((count, 1, 1, 1), seed=self.seed_generator) for _ in ("radius", "angle"))
        cosine, power = ops.cos(2 * math.pi * angle), radius ** (1 / self.alpha)
        return 0.5 + 0.5 * cosine / ops.sqrt(cosine**2 + power / (1 - power) + 1e-12)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "rate": self.rate, "seed": self.seed}
