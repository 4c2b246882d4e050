"""A finished run of a small untrained model, made by hand: evaluation needs no training."""

import keras
import numpy as np
import pandas as pd
import pytest
from seeding import set_seed

from pipeline.config import Experiment
from pipeline.runs import Run, write_atomically

DIGITS = tuple("0123456789")


def linear_model(shape, classes, *, per_pixel):
    image = keras.Input(shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    if per_pixel:
        return keras.Model(image, keras.layers.Conv2D(classes, 3, padding="same")(x))
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def finished_run(path, overrides, classes, model):
    run = Run.create(path, Experiment.load("digits", overrides))
    run.note(classes=list(classes))
    write_atomically(run.model_path, model.save)
    epochs = np.arange(1, 4)
    history = pd.DataFrame(
        {"epoch": epochs, "step": epochs, "learning_rate": 0.1, "loss": 1 / epochs, "val_loss": 1.1 / epochs}
    )
    write_atomically(run.history_path, history.to_csv(index=False))
    return run


@pytest.fixture(scope="session")
def make_run():
    """Return a function of folder, overrides, classes, and whether there is an answer for each pixel."""

    def make(path, overrides, classes, *, per_pixel=False):
        set_seed(0)
        data = Experiment.load("digits", overrides).data
        model = linear_model((*data.image_size, data.channels), len(classes), per_pixel=per_pixel)
        return finished_run(path, overrides, classes, model)

    return make


@pytest.fixture(scope="session")
def make_digits_run(make_run):
    """Return a function that makes a new run of digits in a folder."""
    small = ["data.image_size=[8,8]", "data.channels=1", "data.batch_size=128", "data.augment=[]"]
    return lambda path: make_run(path, small, DIGITS)


@pytest.fixture
def digits_run(make_digits_run, tmp_path):
    return make_digits_run(tmp_path / "digits")
