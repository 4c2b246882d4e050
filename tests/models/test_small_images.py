"""Families with a `stem` option skip their first two halvings on small images, and refuse images below their stride."""

import pytest

from pipeline.errors import UserError
from pipeline.models.stages import stages
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

# The levels of larger images: ConvNeXt's stem divides by 4 at once.
LEVELS = {
    "convnext_micro_tiny": [2, 3, 4, 5],
    "efficientnet_lite_tiny": [1, 2, 3, 4, 5],
    "efficientnet_tiny": [1, 2, 3, 4, 5],
    "ghostnet_tiny": [1, 2, 3, 4, 5],
    "mobilenet_v3_tiny": [1, 2, 3, 4, 5],
    "shufflenet_v2_tiny": [1, 2, 3, 4, 5],
}


def levels(name: str, size: int, **options) -> dict[int, int]:
    with without_values():
        model = MODELS.build(name, (size, size, 3), 2, **options)
    return {level: tensor.shape[1] for level, tensor in stages(model).items()}


@pytest.mark.parametrize("name", LEVELS)
def test_small_images_skip_the_first_two_halvings(name):
    assert levels(name, 32) == {level: 32 // 2**level for level in range(4)}
    assert levels(name, 96) == {level: 96 // 2**level for level in LEVELS[name]}
    assert list(levels(name, 32, stem="imagenet")) == LEVELS[name]


@pytest.mark.parametrize("name", LEVELS)
def test_an_image_that_is_too_small_is_refused(name):
    with pytest.raises(UserError, match=r"halves the image 5 times: .* give at least 64x32$"):
        MODELS.build(name, (64, 31, 3), 2, stem="imagenet")
