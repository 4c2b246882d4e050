"""One small network of every family of the zoo, which every battery goes through: a new family needs no edit."""

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.models.weights import derive
from pipeline.registry import MODELS

# A network of KerasHub is what its preset says, which is not here; tests/models/test_hub.py writes one.
NAMES = [name for name in MODELS.representatives() if not name.startswith("hub:")]
_NARROW = {"width": {int: 8, float: 0.25}, "decoder_width": {int: 4}}

every_family = pytest.mark.parametrize("name", NAMES)


def build(name: str, classes: int = 5, shape: tuple[int, int, int] = (32, 32, 3), **options) -> keras.Model:
    """Build a registered model with fresh weights, narrow where its width is an option."""
    fields = MODELS.options(name).model_fields
    narrow = {key: _NARROW[key][type(fields[key].default)] for key in fields if key in _NARROW}
    set_seed(0)
    return MODELS.build(name, shape, classes, **(narrow | options))


def settle(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight of one axis (biases, norms and their statistics) random values unlike the initial ones."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1 and weight.dtype == "float32":
            low, high = (-0.3, 0.3) if weight.name in ("bias", "beta", "moving_mean", "mean") else (0.5, 1.5)
            weight.assign(rng.uniform(low, high, weight.shape))
    derive(model)
    return model
