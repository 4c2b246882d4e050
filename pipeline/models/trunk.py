"""What mobile networks have in common: a stem, and blocks in the levels that their tables give them."""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.models.blocks import conv_norm, image_input
from pipeline.models.stages import has_small_stem, mark, require_stride


def trunk(
    input_shape: tuple[int, int, int],
    blocks: Sequence[tuple[int, Callable[..., Any]]],
    *,
    filters: int,
    stem: str,
    activation: str,
    epsilon: float,
    name: str,
) -> tuple[Any, Any]:
    """Build a 3x3 stem of `filters` channels and the blocks, and mark the levels; return the input and the last level.

    `blocks` are pairs of a level, which is how often the image was halved after the block, stem included, and a
    function `block(x, stride=..., name=...)`. Small images skip the first two halvings. Raises UserError for an image
    smaller than the stride of the last level.
    """
    skipped = 2 if has_small_stem(input_shape, stem) else 0
    require_stride(input_shape, 2 ** (blocks[-1][0] - skipped), name)
    inputs, x = image_input(input_shape)
    stride = 1 if skipped else 2
    x = conv_norm(x, filters, 3, stride=stride, activation=activation, epsilon=epsilon, name="stem")
    for index, (level, block) in enumerate(blocks, 1):
        step = 2 ** max(level - skipped, 0) // stride
        if step > 1:
            x = mark(x, stride)
        x = block(x, stride=step, name=f"block{index}")
        stride *= step
    return inputs, mark(x, stride)
