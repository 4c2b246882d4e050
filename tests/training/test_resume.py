"""A run that is killed at any moment and continued ends with the weights of one that never was, bit for bit."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

MAIN = Path(__file__).parent / "resume_main.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(MAIN.parents[2])}


def command(folder: Path, moment: str) -> list[str]:
    return [sys.executable, str(MAIN), str(folder), moment]


def train(folder: Path, moment: str = "never") -> int:
    done = subprocess.run(command(folder, moment), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def result(folder: Path) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    with (folder / "history.csv").open() as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    return keras.models.load_model(folder / "model.keras").get_weights(), rows


def assert_equal(folder: Path, reference: Path) -> None:
    (found, rows), (truth, true_rows) = result(folder), result(reference)
    assert rows == true_rows
    assert len(rows) == 3
    assert [a.tobytes() for a in found] == [b.tobytes() for b in truth]
    assert not [path for path in folder.rglob(".*")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert train(folder) == 0
    return folder


def test_killed_in_an_epoch_while_saving_and_at_the_end(tmp_path, reference):
    for moment in ("step:3", "saving:2", "model"):
        assert train(tmp_path / "run", moment) == -signal.SIGKILL
    assert train(tmp_path / "run") == 0
    assert_equal(tmp_path / "run", reference)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, reference):
    rng, kills, folder = random.Random(0), 0, tmp_path / "run"
    while not (folder / "model.keras").exists():
        before = files(folder / "checkpoints")
        with subprocess.Popen(command(folder, "never"), env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
            # Most of its life the process imports TensorFlow: wait until it saves for the first time.
            while process.poll() is None and files(folder / "checkpoints") == before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
        assert process.returncode in (0, -signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2
    assert_equal(folder, reference)
