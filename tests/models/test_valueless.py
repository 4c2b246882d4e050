"""Networks without values: their weights are never filled, whatever Keras builds afterwards."""

import contextlib

import keras

from pipeline.models.valueless import without_values

drawn = []


@keras.saving.register_keras_serializable("tests")
def noted(shape: tuple[int, ...], dtype: str | None = None) -> object:
    """Initialise with ones, and note for which shape."""
    drawn.append(tuple(shape))
    return keras.ops.ones(shape, dtype)


def network(units: int) -> keras.Model:
    image = keras.Input((3,))
    return keras.Model(image, keras.layers.Dense(units, kernel_initializer=noted)(image))


def test_what_is_built_inside_is_never_filled_and_what_waits_outside_is():
    drawn.clear()
    with keras.StatelessScope():
        waiting = network(5)
        with without_values():
            assert network(7).count_params() == 28
    with keras.StatelessScope():
        network(6)
    assert drawn == [(3, 5), (3, 6)]
    assert waiting(keras.ops.ones((1, 3))).shape == (1, 5)


def test_an_error_inside_leaves_nothing_waiting():
    drawn.clear()
    with contextlib.suppress(ZeroDivisionError), without_values():
        network(7)
        raise ZeroDivisionError  # as a network that cannot be built does
    with keras.StatelessScope():
        network(6)
    assert drawn == [(3, 6)]
