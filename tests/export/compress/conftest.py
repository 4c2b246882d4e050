"""A run that several tests of compression begin with."""

import pytest

from pipeline import Experiment, Run, train


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Run:
    """Return a small run on digits of some 95 %."""
    overrides = [
        "data.image_size=[16,16]",
        "data.batch_size=32",
        "data.augment=[]",
        "model={name: simple_cnn, filters: [8, 16], units: 32, dropout: 0.0}",
        "train.epochs=6",
        "train.optimizer={name: adam, learning_rate: 0.01}",
        "export.calibration_images=64",
    ]
    return train(Experiment.load("digits", overrides), tmp_path_factory.mktemp("runs") / "digits")
