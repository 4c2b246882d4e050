"""What the demo's tests share: small bundles made by hand, a server that runs, and Chromium that is driven."""

import base64
import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.export.convert import convert
from pipeline.export.demo import open_server
from pipeline.export.interpreter import LiteModel
from pipeline.export.npm import install
from pipeline.registry import RECIPES

HERE = Path(__file__).parent
SECONDS = 240


@dataclass(frozen=True)
class Said:
    """What the page showed after loading and after each step, and what it must not do at all."""

    steps: list[dict[str, Any]]
    violations: list[str]
    foreign: list[str]
    errors: list[str]
    isolated: bool

    @property
    def last(self) -> dict[str, Any]:
        return self.steps[-1]


@dataclass(frozen=True)
class Demo:
    """A bundle that is served."""

    url: str
    folder: Path
    labels: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """Install the pinned playwright-core, and see that the runtime can be had; leave the test out where they cannot."""
    try:
        install(Path(str(HERE.parents[2] / "pipeline" / "export" / "web")))
        return install(HERE)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def drive(node_packages) -> Callable[..., Said]:
    """Return a function that drives the page by steps, with planted faults."""

    def run(url: str, steps: list[list], *, faults: tuple = (), view: dict | None = None) -> Said:
        job = {
            "url": url,
            "chromium": shutil.which("chromium"),
            "modules": str(node_packages),
            "steps": steps,
            "faults": faults,
            "view": view or {},
        }
        done = subprocess.run(
            ["node", HERE / "drive.mjs"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answer = json.loads(done.stdout)
        return Said(answer.pop("said"), **answer)

    return run


@pytest.fixture(scope="session")
def classifier(variants, images, tmp_path_factory, node_packages) -> Iterator[Demo]:
    """Serve every variant of the small classifier."""
    labels = ["ant", "bee", "cat", "dog", "eel"]
    folder = tmp_path_factory.mktemp("classifier")
    write_bundle(folder, variants, images[:4], labels)
    with serve(folder) as served:
        yield served


@pytest.fixture(scope="session")
def segmenter(images, tmp_path_factory, node_packages) -> Iterator[Demo]:
    """Serve a small network that says for each pixel which colour is strongest."""
    inputs = keras.Input((16, 16, 3))
    pick = keras.layers.Conv2D(3, 1, use_bias=False)
    model = keras.Model(inputs, pick(keras.layers.Rescaling(1 / 32)(inputs)))
    pick.set_weights([np.eye(3, dtype=np.float32)[None, None]])
    float_file = convert(model, keras.ops.softmax)
    variants = {name: RECIPES.build(name, float_file, images[:8]) for name in ("float32", "uint8")}
    folder = tmp_path_factory.mktemp("segmenter")
    write_bundle(folder, variants, images[:4], ["red", "green", "blue"])
    with serve(folder) as served:
        yield served


@pytest.fixture(scope="session")
def serving(node_packages):
    """Return the context in which a bundle's folder is served."""
    return serve


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Demo]:
    """Serve a folder in a thread."""
    with open_server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Demo(server.url, folder, (folder / "labels.txt").read_text().splitlines())
        server.shutdown()
        thread.join()


def write_bundle(folder: Path, variants: dict[str, bytes], images: np.ndarray, labels: list[str]) -> None:
    """Write what an export's folder holds, with the answers of ai_edge_litert on `images` as the golden ones."""
    answers = {name: LiteModel(content).predict(images) for name, content in variants.items()}
    for name, content in variants.items():
        (folder / f"{name}.tflite").write_bytes(content)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (folder / "preprocess.json").write_text(Preprocess(images.shape[1:3], images.shape[3]).to_json())
    (folder / "golden.json").write_text(json.dumps(golden(images, answers)))


def golden(images: np.ndarray, answers: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return golden.json's content."""
    pictures = [
        {"id": str(i), "pixels": _text(image), "answers": {name: _text(found[i]) for name, found in answers.items()}}
        for i, image in enumerate(images)
    ]
    shape = next(iter(answers.values())).shape[1:]
    return {"format": 1, "image_shape": images.shape[1:], "output_shape": shape, "images": pictures}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
