"""Golden answers: what each file gave for a few test images, for any client to compare itself with.

    python -m pipeline.export.golden FOLDER

runs every file of a bundle in this clean process, without TensorFlow, and prints JSON: the largest difference to the
recorded answers for each variant.
"""

import argparse
import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.export.interpreter import LiteModel
from pipeline.runs import write_atomically

ARRAYS, TEXT = "golden.npz", "golden.json"
FORMAT = 1
# What a client's answer may differ by from the recorded one. Float kernels differ in the order of their sums; integer
# ones by one step of the output, which is 1/256 for probabilities. Files that round activations while running are in
# between: the last bit of a sum can move one by a step, and all that follows from it (5.9e-3 was seen on a U-Net).
FLOAT_ANSWER, INTEGER_ANSWER, HYBRID_ANSWER = 2e-6, 1 / 256, 0.02
_MOST_MASKS = 2  # in golden.json: a mask has thousands of probabilities
_OWN = ("images", "ids", "keras")  # the other arrays are variants
_ROOT = Path(__file__).resolve().parents[2]


def write_golden(
    folder: Path, images: np.ndarray, ids: np.ndarray, keras: np.ndarray, answers: dict[str, np.ndarray]
) -> None:
    """Write golden.npz, and golden.json for clients without NumPy.

    Args:
        images: uint8 (N, H, W, C), as the model gets them.
        keras: the Keras model's probabilities, float32 (N, ...).
        answers: each variant's, likewise.
    """
    arrays = {"images": images, "ids": ids, "keras": keras, **answers}
    write_atomically(folder / ARRAYS, lambda temporary: np.savez_compressed(temporary, **arrays))
    shown = len(images) if keras.ndim == 2 else min(_MOST_MASKS, len(images))
    pictures = [
        {
            "id": str(name),
            "pixels": _encode(image, np.uint8),
            "answers": {variant: _encode(values[index], "<f4") for variant, values in answers.items()},
        }
        for index, (name, image) in enumerate(zip(ids[:shown], images[:shown], strict=True))
    ]
    shapes = {"image_shape": list(images.shape[1:]), "output_shape": list(keras.shape[1:])}
    write_atomically(folder / TEXT, json.dumps({"format": FORMAT, **shapes, "images": pictures}, indent=1) + "\n")


def replay(folder: Path, python: Sequence[str] = (sys.executable,)) -> dict[str, float]:
    """Run every variant of a bundle in a clean process; return its largest difference, nan where it does not run.

    Args:
        folder: of the bundle.
        python: the command of the interpreter: another one's, or an emulated one's.
    """
    with np.load(folder / ARRAYS) as golden:
        variants = [name for name in golden.files if name not in _OWN]
    done = subprocess.run(
        [*python, "-m", __name__, str(folder.resolve())],
        capture_output=True,
        text=True,
        cwd=_ROOT,  # so that `-m` finds this package, installed or not
        check=False,
    )
    found = json.loads(done.stdout) if done.returncode == 0 else {}
    return {name: found.get(name, float("nan")) for name in variants}


def differences(folder: Path) -> dict[str, float]:
    """Run every variant in this process, and compare."""
    found = {}
    with np.load(folder / ARRAYS) as golden:
        for variant in (name for name in golden.files if name not in _OWN):
            try:
                answers = LiteModel.open(folder / f"{variant}.tflite").predict(golden["images"])
                found[variant] = float(np.abs(answers - golden[variant]).max())
            except (UserError, RuntimeError, ValueError):  # one bad file is no reason to leave out the others
                continue
    return found


def _encode(values: np.ndarray, dtype: object) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def main() -> None:
    """Compare the folder of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    print(json.dumps(differences(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
