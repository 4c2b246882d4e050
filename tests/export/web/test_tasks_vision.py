"""MediaPipe Tasks for the web gives the answers of LiteRT in Chromium, with the labels from the file's metadata."""

import base64
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np
import pytest
from driving import HERE, in_browser, serve
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export.convert import convert
from pipeline.export.gates import golden_bound
from pipeline.export.interpreter import LiteModel
from pipeline.export.loopback import Page
from pipeline.export.metadata import Facts, describe
from pipeline.export.npm import install
from pipeline.registry import MODELS, RECIPES

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FOLDER = HERE / "tasks_vision"
LABELS = ("cat", "dog", "Größe 7", "a b", "e")
SWAPPED = ("dog", "cat", *LABELS[2:])
FACTS = Facts("small", LABELS, (16, 16), 3, masks=False)
TAKEN = ("float32", "float16", "dynamic", "uint8")
REFUSED = ("int8", "int16x8")  # whose ports are not MediaPipe's
BGR = ["/ask.js", "pixels[3 * i + c]", "pixels[3 * i + 2 - c]"]


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """The page that asks, and what it runs: all from this machine."""
    try:
        package = install(FOLDER) / "@mediapipe" / "tasks-vision"
    except UserError as error:
        pytest.skip(str(error))
    script = "text/javascript; charset=utf-8"
    return {
        "/": Page(FOLDER / "index.html", "text/html; charset=utf-8"),
        "/ask.js": Page(FOLDER / "ask.js", script),
        "/runtime/vision_bundle.mjs": Page(package / "vision_bundle.mjs", script),
        "/runtime/wasm.js": Page(package / "wasm" / "vision_wasm_internal.js", script),
        "/runtime/wasm.wasm": Page(package / "wasm" / "vision_wasm_internal.wasm", "application/wasm"),
    }


def ask(
    pages: dict[str, Page], kind: str, files: dict[str, bytes], images: np.ndarray, faults: Sequence[list] = ()
) -> dict[str, dict]:
    """Return MediaPipe's `labels` and `scores` for each file, or why it was `refused`; it may speak to nobody else."""
    table = {f"/{name}.tflite": Page(content, "application/octet-stream") for name, content in files.items()}
    pictures = [base64.b64encode(image.tobytes()).decode() for image in images]
    shape = images.shape[1:3]
    with serve(pages | table) as url:
        said = in_browser("ask.mjs", url, kind=kind, files=list(table), images=pictures, shape=shape, faults=faults)
    assert said["violations"] == said["foreign"] == said["errors"] == []
    return dict(zip(files, said["answers"].values(), strict=True))


def difference(answer: dict, content: bytes, images: np.ndarray) -> float:
    expected = LiteModel(content).predict(images)
    return float(np.abs(np.reshape(answer["scores"], expected.shape) - expected).max())


@pytest.fixture(scope="module")
def described(variants) -> dict[str, bytes]:
    return {name: describe(variants[name], FACTS) for name in (*TAKEN, *REFUSED)}


@pytest.fixture(scope="module")
def answers(pages, described, images) -> dict[str, dict]:
    swapped = describe(described["float32"], replace(FACTS, labels=SWAPPED))
    return ask(pages, "classifier", described | {"swapped": swapped}, images[:8])


@pytest.mark.parametrize("variant", TAKEN)
def test_the_classifier_gives_our_answers_and_labels(answers, described, images, variant):
    assert tuple(answers[variant]["labels"]) == LABELS
    assert difference(answers[variant], described[variant], images[:8]) <= golden_bound(variant)


@pytest.mark.parametrize("variant", REFUSED)
def test_integer_ports_are_refused(answers, variant):
    assert "refused" in answers[variant]


def test_red_for_blue_is_found(pages, described, images):
    files = {name: described[name] for name in ("float32", "uint8")}
    for name, answer in ask(pages, "classifier", files, images[:8], faults=[BGR]).items():
        assert difference(answer, files[name], images[:8]) > golden_bound(name)


def test_swapped_labels_are_found(answers):
    assert tuple(answers["swapped"]["labels"]) == SWAPPED


def test_the_segmenter_gives_our_masks_and_labels(pages):
    set_seed(0)
    model = MODELS.build("unet", (32, 32, 3), len(LABELS), backbone="resnet8")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    float_file = convert(model, keras.ops.softmax)
    facts = Facts("unet", LABELS, (32, 32), 3, masks=True)
    files = {name: describe(RECIPES.build(name, float_file, images), facts) for name in ("float32", "uint8")}
    for name, answer in ask(pages, "segmenter", files, images).items():
        assert tuple(answer["labels"]) == LABELS
        assert difference(answer, files[name], images) <= golden_bound(name), name
