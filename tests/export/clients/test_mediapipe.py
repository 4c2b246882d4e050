"""MediaPipe Tasks, which we did not write, gives the answers of LiteRT with the labels from the file's metadata."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.export.convert import convert
from pipeline.export.gates import golden_bound
from pipeline.export.interpreter import OUTPUT, LiteModel
from pipeline.export.metadata import Facts, describe
from pipeline.registry import MODELS, RECIPES

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("MEDIAPIPE_PYTHON", ROOT / ".venv-mediapipe" / "bin" / "python"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="MediaPipe is not installed; make clients installs it"),
]
LABELS = ("cat", "dog", "Größe 7", "a b", "e")
FACTS = Facts("small", LABELS, (16, 16), 3, masks=False)
TAKEN = ("float32", "float16", "dynamic", "uint8")  # int8 and int16 at the ports are not MediaPipe's


def ask(kind: str, content: bytes, images: np.ndarray, folder: Path) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Return MediaPipe's labels and scores, None where it refuses the file."""
    file, given, answers = (folder / name for name in ("model.tflite", "images.npy", "answers.npz"))
    file.write_bytes(content)
    np.save(given, images)
    command = [PYTHON, Path(__file__).parent / "mediapipe_main.py", kind, file, given, answers]
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        return None
    with np.load(answers) as found:
        return tuple(found["labels"].tolist()), found["scores"]


def difference(content: bytes, images: np.ndarray, folder: Path) -> float:
    labels, scores = ask("classifier", content, images, folder)
    assert labels == LABELS
    return float(np.abs(scores - LiteModel(content).predict(images)).max())


@pytest.fixture(scope="module")
def described(variants) -> dict[str, bytes]:
    return {name: describe(content, FACTS) for name, content in variants.items()}


@pytest.mark.parametrize("variant", TAKEN)
def test_the_classifier_gives_our_answers_and_labels(described, images, tmp_path, variant):
    assert difference(described[variant], images[:8], tmp_path) <= golden_bound(variant)


@pytest.mark.parametrize("variant", ["int8", "int16x8"])
def test_integer_ports_are_refused_or_answered_alike(described, images, tmp_path, variant):
    # Documented as refused: the uint8 variant is there for it.
    assert ask("classifier", described[variant], images[:1], tmp_path) is None


def test_grey_images_are_refused(images, tmp_path):
    picture = keras.Input((16, 16, 1))
    model = keras.Model(picture, keras.layers.Dense(len(LABELS))(keras.layers.Flatten()(picture)))
    content = describe(convert(model, keras.ops.softmax), replace(FACTS, channels=1))
    assert ask("classifier", content, images[:1], tmp_path) is None


def test_planted_faults_are_found(described, images, tmp_path):
    content = described["float32"]
    bound = golden_bound("float32")
    _, scores = ask("classifier", content, images[:8, :, :, ::-1], tmp_path)  # BGR for RGB
    assert np.abs(scores - LiteModel(content).predict(images[:8])).max() > bound
    one = np.float32(1.0).tobytes()
    twice = content.replace(b"\x01\0\0\0" + one, b"\x01\0\0\0" + np.float32(127.5).tobytes())
    assert difference(twice, images[:8], tmp_path) > bound  # normalised by the client and in the graph
    swapped = describe(content, Facts("small", ("dog", "cat", *LABELS[2:]), (16, 16), 3, masks=False))
    assert ask("classifier", swapped, images[:1], tmp_path)[0] != LABELS


def test_the_segmenter_gives_our_masks_and_labels(tmp_path):
    set_seed(0)
    model = MODELS.build("unet", (32, 32, 3), len(LABELS), backbone="resnet8")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    float_file = convert(model, keras.ops.softmax)
    for variant in ("float32", "uint8"):
        content = describe(RECIPES.build(variant, float_file, images), Facts("unet", LABELS, (32, 32), 3, masks=True))
        labels, masks = ask("segmenter", content, images, tmp_path)
        assert labels == LABELS
        assert np.abs(masks - LiteModel(content).predict(images)).max() <= golden_bound(variant)


@pytest.mark.parametrize("variant", ["float32", "uint8"])
def test_the_embedder_gives_our_vectors(keras_model, images, tmp_path, variant):
    """It takes any file of one vector: here the features in front of the classifier's last layer."""
    features = keras.Model(keras_model.input, keras_model.layers[-2].output)
    content = RECIPES.build(variant, convert(features, keras.activations.linear), images[:48])
    labels = tuple(f"feature {i}" for i in range(64))
    names, vectors = ask("embedder", describe(content, replace(FACTS, labels=labels)), images[:8], tmp_path)
    expected = LiteModel(content).predict(images[:8])
    assert names == (OUTPUT,)
    assert vectors.shape == expected.shape == (8, 64)
    assert np.abs(vectors - expected).max() <= golden_bound(variant) * expected.max()
