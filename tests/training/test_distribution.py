import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

MAIN = Path(__file__).parent / "replicas_main.py"


def run_all(*jobs: tuple[str, Path, list[str], dict[str, str]], succeed: bool = True) -> list[str]:
    """Run processes side by side (strategy, folder, options, environment) and return what they print."""

    def run(job: tuple[str, Path, list[str], dict[str, str]]) -> subprocess.CompletedProcess:
        strategy, folder, options, environment = job
        folder.mkdir(exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(MAIN.parents[2])} | environment
        command = [sys.executable, MAIN, strategy, folder, *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    with ThreadPoolExecutor(len(jobs)) as pool:
        done = list(pool.map(run, jobs))
    for process in done:
        assert (process.returncode == 0) == succeed, process.stderr
    return [process.stderr for process in done]


def result(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "result.npz") as file:
        return [file[name] for name in file.files]


def assert_same(found: list[np.ndarray], truth: list[np.ndarray], tolerance: float = 1e-4) -> None:
    assert len(found) == len(truth) > 1
    for a, b in zip(found, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize(
    "options",
    [["clip=0.05", "ema=0.9"], ["xla=1"], ["precision=mixed_float16", "clip=0.05"], ["accumulate=2"]],
    ids=lambda options: ",".join(options),
)
def test_two_devices_equal_one(tmp_path, options):
    mirrored, single = tmp_path / "mirrored", tmp_path / "single"
    run_all(("mirrored", mirrored, options, {}), ("single", single, options, {}))
    assert_same(result(mirrored), result(single), 1e-2 if "precision=mixed_float16" in options else 1e-4)


def test_two_devices_resume_where_they_stopped_and_keep_their_norms(tmp_path):
    whole, broken, options = tmp_path / "whole", tmp_path / "broken", ["norm=1", "fused=1"]
    run_all(("mirrored", whole, options, {}))
    [output] = run_all(("mirrored", broken, [*options, "stop=8"], {}), succeed=False)
    assert "KeyboardInterrupt" in output
    run_all(("mirrored", broken, options, {}))
    assert_same(result(broken), result(whole))


@pytest.mark.slow
def test_two_workers_equal_one_device(tmp_path):
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("localhost", 0))
        workers = [f"localhost:{each.getsockname()[1]}" for each in (first, second)]
    folder, single = tmp_path / "workers", tmp_path / "single"
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    jobs = [("workers", folder, ["clip=0.05"], {"TF_CONFIG": json.dumps(task)}) for task in tasks]
    run_all(*jobs, ("single", single, ["clip=0.05"], {}))
    assert_same(result(folder), result(single))
