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
CASES = {
    "clip and average": "clip=0.05,ema=0.9",
    "xla": "xla=1",
    "float16": "precision=mixed_float16,clip=0.05",
    "accumulated": "accumulate=2",
    "frozen": "frozen=1,norm=1,ema=0.9,cpu_ops=1",  # norms that learn would see half a batch on each device
    "taught": "taught=1,xla=1",
}
TOLERANCE = {"float16": 1e-2}


def run(folder: Path, *jobs: str, **environment: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, MAIN.parents[1:3]))} | environment
    command = [sys.executable, MAIN, folder, *jobs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def assert_same(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    with np.load(one / "result.npz") as found, np.load(other / "result.npz") as truth:
        assert len(found.files) == len(truth.files) > 1
        for name in truth.files:
            np.testing.assert_allclose(found[name], truth[name], rtol=tolerance, atol=tolerance / 10)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train every case on one device and on two, and one run with a break, in one process."""
    folder = tmp_path_factory.mktemp("replicas")
    jobs = [f"{name} {kind}={kind},{options}" for name, options in CASES.items() for kind in ("single", "mirrored")]
    norms = "mirrored,norm=1,cpu_ops=1"
    run(folder, *jobs, f"whole={norms}", f"broken={norms},stop=8", f"broken={norms}")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_devices_equal_one(trained, case):
    assert_same(trained / f"{case} mirrored", trained / f"{case} single", TOLERANCE.get(case, 1e-4))


def test_two_devices_resume_where_they_stopped_and_keep_their_norms(trained):
    assert_same(trained / "broken", trained / "whole")


@pytest.mark.slow
def test_two_workers_equal_one_device(tmp_path):
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("localhost", 0))
        workers = [f"localhost:{each.getsockname()[1]}" for each in (first, second)]
    tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}} for index in range(2)]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(run, tmp_path, "two=workers,clip=0.05", TF_CONFIG=json.dumps(task)) for task in tasks]
        jobs.append(pool.submit(run, tmp_path, "one=single,clip=0.05"))
    for job in jobs:
        job.result()
    assert_same(tmp_path / "two", tmp_path / "one")
