"""Parts that move features between channels."""

from typing import Any

import keras


def channel_shuffle(x: Any, groups: int, *, name: str) -> Any:
    """Deal the channels of (B, H, W, C) out anew, so that each group gets some of every group (arXiv 1707.01083).

    Channel g * C / groups + i moves to i * groups + g. Raises ValueError where `groups` does not divide the channels.
    """
    height, width, channels = x.shape[1:]
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be shuffled in {groups} groups; give a divisor")
    # Pixels in one axis: four axes are what the delegates of phones can transpose.
    x = keras.layers.Reshape((height * width, groups, channels // groups), name=f"{name}_split")(x)
    x = keras.layers.Permute((1, 3, 2), name=f"{name}_swap")(x)
    return keras.layers.Reshape((height, width, channels), name=f"{name}_merge")(x)
