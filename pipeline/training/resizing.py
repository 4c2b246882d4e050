"""Progressive resizing: small images first, at a fraction of the cost, and whole ones at the end.

fastai's way to win DAWNBench, and section 4 of EfficientNetV2 (arXiv 2104.00298), here without its growing
regularisation. Weights do not depend on the size of the image where a network is convolutional up to a global pooling.
"""

from collections.abc import Sequence

import keras

from pipeline.errors import UserError
from pipeline.sections.training import SizePhase
from pipeline.tasks.base import Task

Size = tuple[int, int]


def size_of(epoch: int, epochs: int, phases: Sequence[SizePhase]) -> Size | None:
    """Return the images' height and width in an epoch (0 is the first) of a run of `epochs`, None for the whole size.

    The last epoch is always at whole size.
    """
    passed = 0.0
    for phase in phases:
        passed += phase.share
        if epoch < min(round(passed * epochs), epochs - 1):
            return phase.size
    return None


def at_size(model: keras.Model, size: Size, task: Task) -> keras.Model:
    """Return the model for images of another size: the same layers, with the same variables.

    Raises UserError for a size above the model's own, and for a model that works at its own size only.
    """
    _, *own, channels = model.input_shape
    if size[0] > own[0] or size[1] > own[1]:
        raise UserError(
            f"train.curriculum.sizes: {size[0]} × {size[1]} is larger than data.image_size, {own[0]} × {own[1]}; "
            "give sizes up to that one",
            usage=True,
        )
    try:
        image = keras.Input((*size, channels), name=model.inputs[0].name, dtype=model.inputs[0].dtype)
        other = keras.models.clone_model(model, input_tensors=image, clone_function=lambda layer: layer)
        task.check(other)
    except (ValueError, UserError):
        raise UserError(
            f"train.curriculum.sizes: {model.name} works at {own[0]} × {own[1]} pixels only, not at {size[0]} × "
            f"{size[1]}; take a network that is convolutional up to a global pooling, or larger sizes"
        ) from None
    return other
