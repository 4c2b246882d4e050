"""What the export's tests share: a small network, its float file, and every variant of it."""

import keras
import numpy as np
import pytest
from small import network

from pipeline import export, train
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.export.convert import convert
from pipeline.export.export import Export
from pipeline.registry import RECIPES


@pytest.fixture(scope="session")
def keras_model() -> keras.Model:
    return network()


@pytest.fixture(scope="session")
def float_file(keras_model) -> bytes:
    return convert(keras_model, keras.ops.softmax)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Pictures of different colours and textures; none has the darkest or the brightest pixel."""
    rng = np.random.default_rng(0)
    colours = rng.integers(20, 236, (96, 1, 1, 3))
    texture = rng.normal(0, rng.uniform(1, 60, (96, 1, 1, 1)), (96, 16, 16, 3))
    return np.clip(colours + texture, 5, 250).astype(np.uint8)


@pytest.fixture(scope="session")
def expected(keras_model, images) -> np.ndarray:
    return keras.ops.softmax(keras_model(images.astype("float32"), training=False)).numpy()


@pytest.fixture(scope="session")
def variants(float_file, images) -> dict[str, bytes]:
    """Every registered recipe's file, calibrated on half of the images."""
    return {name: RECIPES.build(name, float_file, images[:48]) for name in RECIPES.names()}


@pytest.fixture(scope="session")
def variant_files(variants, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    for name, content in variants.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in variants}


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Export:
    """Return the export, in every variant, of a small network trained on digits for two epochs."""
    overrides = [
        "data.image_size=[16,16]",
        "data.augment=[]",
        "model={name: simple_cnn, filters: [8, 16], units: 32}",
        "train.epochs=2",
        "export.calibration_images=64",
    ]
    run = train(Experiment.load("digits", overrides), tmp_path_factory.mktemp("runs") / "digits")
    return export(run)


@pytest.fixture
def user_error():
    """Return a context that expects a UserError with all of these words in its one sentence."""

    class Expected:
        def __init__(self, *words: str) -> None:
            self.words = words

        def __enter__(self) -> None:
            return None

        def __exit__(self, kind, error, trace) -> bool:
            assert kind is UserError, f"no UserError but {error!r}"
            text = str(error)
            missing = [word for word in self.words if word not in text]
            assert not missing, f"{missing} are not in {text!r}"
            assert "\n" not in text
            return True

    return Expected
