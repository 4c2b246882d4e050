import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.export import latency
from pipeline.export.latency import Latency, measure_all


def test_quantiles_by_hand():
    rounds = [np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])]
    found = Latency.of(2, rounds, 40.0)
    assert (found.p10, found.p50, found.p90) == (1.5, 3.5, 5.5)
    assert found.rounds == (2.0, 5.0)
    assert (found.threads, found.memory_mb) == (2, 40.0)


def test_files_are_timed_in_processes_of_their_own(variant_files):
    paths = [variant_files["float32"], variant_files["int16x8"]]
    found = measure_all(paths, threads=(1, 2))
    assert set(found) == {(path, threads) for path in paths for threads in (1, 2)}
    for (_, threads), each in found.items():
        assert each.threads == threads
        assert 0 < each.p10 <= each.p50 <= each.p90
        assert len(each.rounds) == latency.ROUNDS
        # This test's process holds TensorFlow, some 500 MiB: it must not be counted.
        assert 10 < each.memory_mb < 200
    # Reference kernels: many times slower, whatever the machine does meanwhile.
    assert found[paths[1], 1].p50 > 2 * found[paths[0], 1].p50


def test_slow_files_get_fewer_rounds(variant_files, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS_PER_FILE", 1e-4)
    [found] = measure_all([variant_files["int16x8"]], threads=(1,)).values()
    assert len(found.rounds) == 3


def test_module_prints_json(variant_files):
    command = [sys.executable, "-m", "pipeline.export.latency", str(variant_files["int8"]), "--runs", "20"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["threads"] == 1
    assert 0 < found["p10"] <= found["p50"] <= found["p90"]


def test_process_imports_no_tensorflow():
    code = (
        "import runpy, sys; sys.argv = ['latency', 'none.tflite']\n"
        "try: runpy.run_module('pipeline.export.latency', run_name='__main__')\n"
        "except SystemExit as end: assert 'none.tflite' in str(end)\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_unreadable_file_is_one_sentence(content, tmp_path, user_error):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with user_error("bad.tflite", "could not be measured"):
        latency.measure(path)
