"""Every command in the README is run, as it stands there, in a copy of this checkout with shorter trainings."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.registry import MODELS

ROOT = Path(__file__).parent.parent
TEST_COMMAND = "make test"  # what runs this very test
# The presets that the commands use, and what is done to the copy's: how good the long trainings are is measured by
# benchmarks.main_job and benchmarks.compression, and that every variant is exported by tests/export.
_TWO_FILES = (r"\Z", "export: {variants: [float32, int8]}\n")
SHORTER = {
    "digits.yaml": [(r"epochs: \d+", "epochs: 6"), _TWO_FILES],
    "folder.yaml": [_TWO_FILES],
    "compress/small.yaml": [(r"epochs: \d+", "epochs: 2")],
}


def commands() -> list[str]:
    """Return the lines of the README's `sh` blocks, without comments, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_readme_has_the_two_commands_that_do_it_all():
    assert commands()[0] == "make train eval export"
    assert TEST_COMMAND in commands()


def test_readme_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(targets) > 15
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy what git tracks, with this environment in place of .venv, and photos as the README supposes them."""
    copy = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for name, changes in SHORTER.items():
        preset = copy / "pipeline" / "presets" / name
        text = preset.read_text(encoding="utf-8")
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count, f"{name} has no {pattern}"
        preset.write_text(text, encoding="utf-8")
    environment = copy / ".venv"
    environment.mkdir()
    (environment / "bin").symlink_to(Path(sys.executable).parent)
    (environment / ".installed-dev").touch()
    for kind, color in (("ripe", (200, 40, 40)), ("unripe", (60, 180, 60))):
        folder = copy / "photos" / kind
        folder.mkdir(parents=True)
        for index in range(20):
            Image.new("RGB", (120 + index, 100), color).save(folder / f"{index}.jpg")
    return copy


@pytest.mark.slow
def test_every_command_runs(checkout: Path):
    ran = [line for line in commands() if line != TEST_COMMAND]
    assert len(ran) >= 6
    # Two workers share the cores: TensorFlow's own thread pools are left alone, only the terminal is told to be plain.
    environment = {**os.environ, "TERM": "dumb", "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(checkout)  # the copy's presets, not those of the checkout that is installed
    said = {}
    for line in ran:
        done = subprocess.run(["bash", "-c", line], cwd=checkout, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        said[line] = done.stdout
    assert {name for name in MODELS.names() if ":" not in name} <= set(said["pipeline list models"].split())
    assert (checkout / "runs" / "digits" / "report.html").is_file()
    assert (checkout / "runs" / "mine" / "export" / "int8.tflite").is_file()
