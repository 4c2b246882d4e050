"""Mark the full-size keras.applications: they take half an hour and are asked for by name."""

import pytest

from pipeline import Experiment, Run, train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/export/compress" in item.path.as_posix() and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.applications)


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
