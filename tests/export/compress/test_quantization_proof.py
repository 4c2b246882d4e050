"""What quantisation breaks in a depthwise network, and what repairs it (n = 597 test digits)."""

import keras
import numpy as np
import pytest
from depthwise_digits import accuracy, digits, fit, scaled_apart, trained

from pipeline.export import recipes
from pipeline.export.compress.equalise import correct_bias, equalise
from pipeline.export.compress.quantize_aware import calibrate, quantize_aware
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel

POINT = 0.01
EPOCHS, RATE = 8, 3e-3  # of the training that repairs, and of its control


def post_training(model: keras.Model) -> float:
    """Return the accuracy of the int8 file that needs no training."""
    train, _, test, _ = digits()
    return accuracy(LiteModel(recipes.int8(convert(model, keras.ops.softmax), train[:100])).predict(test))


def keras_accuracy(model: keras.Model) -> float:
    return accuracy(model.predict(digits()[2], verbose=0))


def aware(model: keras.Model, *, bits: int, epochs: int) -> keras.Model:
    rounded = quantize_aware(model, weights=bits)
    calibrate(rounded, [digits()[0][:512]])
    return fit(rounded, epochs=epochs, learning_rate=RATE) if epochs else rounded


@pytest.fixture(scope="module")
def broken() -> keras.Model:
    return scaled_apart(trained())


def test_scaling_channels_apart_changes_nothing_but_the_int8_file(broken):
    assert keras_accuracy(broken) == pytest.approx(keras_accuracy(trained()), abs=0.002)
    assert keras_accuracy(trained()) > 0.95
    assert post_training(trained()) > keras_accuracy(trained()) - POINT
    assert post_training(broken) < keras_accuracy(broken) - 0.3


def test_equalisation_repairs_it_without_training(broken):
    repaired = equalise(broken)
    test = digits()[2]
    expected = broken.predict(test, verbose=0)
    assert np.abs(repaired.predict(test, verbose=0) - expected).max() < 1e-4 * np.abs(expected).max()
    assert post_training(repaired) > keras_accuracy(broken) - POINT


def test_training_with_rounding_repairs_it_too_and_the_file_agrees(broken):
    model = aware(broken, bits=8, epochs=EPOCHS)
    # The file had lost more than 30 points. What is left, 1.7 here, differs between trainings by as much.
    assert keras_accuracy(model) > keras_accuracy(broken) - 2.5 * POINT
    test = digits()[2]
    file = LiteModel(convert_quantized(model, keras.ops.softmax)).predict(test)
    assert (file.argmax(1) == model.predict(test, verbose=0).argmax(1)).mean() >= 0.99


def test_the_same_training_in_float_does_not(broken):
    control = fit(scaled_apart(trained()), epochs=EPOCHS, learning_rate=RATE)
    assert post_training(control) < keras_accuracy(broken) - 10 * POINT


def test_training_recovers_what_four_bits_lose():
    before, after = (keras_accuracy(aware(trained(), bits=4, epochs=epochs)) for epochs in (0, EPOCHS))
    assert before < keras_accuracy(trained()) - POINT
    assert after > keras_accuracy(trained()) - POINT


def test_corrected_biases_recover_some_of_it_without_training():
    corrected = correct_bias(trained(), digits()[0][:128], bits=4)
    assert (
        keras_accuracy(aware(corrected, bits=4, epochs=0)) > keras_accuracy(aware(trained(), bits=4, epochs=0)) + POINT
    )
