"""ARM64's kernels, emulated, give the answers that were recorded on this machine."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from aarch64 import replay

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not replay.EMULATOR.is_file(), reason="no emulator of ARM64 here; make aarch64 installs it"),
]


@pytest.fixture
def answer(monkeypatch, capsys):
    """Return a function that replays a folder: the exit code, and the verdict on each variant."""

    def run(folder: Path) -> tuple[int, dict[str, str]]:
        monkeypatch.setattr("sys.argv", ["replay.py", str(folder)])
        with pytest.raises(SystemExit) as ended:
            replay.main()
        lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
        return ended.value.code, {cells[1].strip(): cells[-2].strip() for cells in lines}

    return run


def test_every_variant_gives_the_recorded_answers(exported, answer):
    assert answer(exported.run.export_dir) == (0, dict.fromkeys(exported.results["variant"], "agrees"))


def test_other_answers_and_a_broken_file_are_found(exported, answer, tmp_path):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["float32"] = arrays["float32"] + np.float32(1e-5)
    np.savez(folder / "golden.npz", **arrays)
    (folder / "int8.tflite").write_bytes(b"no model")
    code, verdicts = answer(folder)
    assert code == 1
    wrong = {name: verdict for name, verdict in verdicts.items() if verdict != "agrees"}
    assert wrong == {"float32": "differs", "int8": "did not run"}
