"""Levels by stride, and images that are too small for them."""

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.models.stages import has_small_stem, mark, require_size, require_stride, stages


def test_marked_tensors_are_found_by_level():
    inputs = keras.Input((16, 16, 3))
    half = mark(keras.layers.AveragePooling2D(2)(inputs), 2)
    eighth = mark(keras.layers.AveragePooling2D(4)(half), 8)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="c")(eighth))
    found = stages(model)
    assert {level: tensor.shape for level, tensor in found.items()} == {1: half.shape, 3: eighth.shape}


def test_a_model_without_marks_has_no_stages():
    inputs = keras.Input((4,))
    assert stages(keras.Model(inputs, keras.layers.Dense(1, name="cat")(inputs))) == {}


def test_the_message_says_what_to_give():
    with pytest.raises(UserError) as caught:
        require_stride((16, 16, 3), 32, "resnet50")
    assert str(caught.value) == (
        "model resnet50 halves the image 5 times: data.image_size 16x16 is too small; give at least 32x32"
    )


def test_a_side_that_is_long_enough_keeps_its_length():
    with pytest.raises(UserError, match="20x240 is too small; give at least 32x240"):
        require_size((20, 240, 1), 32, "model x")


@given(height=st.integers(1, 100), width=st.integers(1, 100), level=st.integers(0, 6))
def test_exactly_the_images_below_the_stride_are_refused(height, width, level):
    if min(height, width) < 2**level:
        with pytest.raises(UserError):
            require_stride((height, width, 3), 2**level, "x")
    else:
        require_stride((height, width, 3), 2**level, "x")


@pytest.mark.parametrize(
    ("shape", "stem", "small"),
    [
        ((95, 300, 3), "auto", True),
        ((96, 300, 3), "auto", False),
        ((300, 95, 3), "auto", True),
        ((32, 32, 3), "imagenet", False),
        ((224, 224, 3), "small", True),
    ],
)
def test_the_stem_follows_the_shorter_side(shape, stem, small):
    assert has_small_stem(shape, stem) is small
