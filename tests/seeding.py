"""Weights that are the same in every run."""

import random


def set_seed(value: int) -> None:
    """Seed the generator of which Keras draws the seeds of initializers, dropout and augmentation layers.

    keras.utils.set_random_seed seeds TensorFlow as well, of which only the order of `model.fit` draws, and which
    empties its cache of kernels for that: TensorFlow 2.21 crashed there, once in some runs of all tests.
    """
    random.seed(value)
