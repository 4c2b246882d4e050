"""What the demo's tests share: small bundles made by hand, a server that runs, and Chromium that is driven."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from driving import HERE, serve

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.export.convert import convert
from pipeline.export.golden import write_golden
from pipeline.export.interpreter import LiteModel
from pipeline.export.npm import install
from pipeline.registry import RECIPES

WEB = Path(__file__).parents[3] / "pipeline" / "export" / "web"


@dataclass(frozen=True)
class Demo:
    """A bundle that is served."""

    url: str
    folder: Path

    @property
    def labels(self) -> list[str]:
        return (self.folder / "labels.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """Install the page's runtime and playwright-core; leave the test out where that cannot be done."""
    try:
        install(WEB)
        return install(HERE)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def classifier(variants, images, tmp_path_factory, node_packages) -> Iterator[Demo]:
    """Serve every variant of the small classifier."""
    labels = ["ant", "bee", "cat", "dog", "eel"]
    folder = tmp_path_factory.mktemp("classifier")
    write_bundle(folder, variants, images[:4], labels)
    with serve(folder) as url:
        yield Demo(url, folder)


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
    with serve(folder) as url:
        yield Demo(url, folder)


def write_bundle(folder: Path, variants: dict[str, bytes], images: np.ndarray, labels: list[str]) -> None:
    """Write what an export's folder holds, with the answers of ai_edge_litert on `images` as the golden ones."""
    answers = {name: LiteModel(content).predict(images) for name, content in variants.items()}
    for name, content in variants.items():
        (folder / f"{name}.tflite").write_bytes(content)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    (folder / "preprocess.json").write_text(Preprocess(images.shape[1:3], images.shape[3]).to_json())
    ids = np.arange(len(images)).astype(str)
    write_golden(folder, images, ids, next(iter(answers.values())), answers)
