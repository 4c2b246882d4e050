"""The C++ client compiles without a warning, gives LiteRT's recorded answers, and finds what is planted."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.export.handover import write_clients
from pipeline.export.metadata import Facts

STAND_IN = Path(__file__).parent / "cc"
LIBRARY = Path(find_spec("ai_edge_litert").origin).parent / "libLiteRt.so"


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiler")]
FAULTS = {
    "normalised twice": ("input[i] = pixels[i]", "input[i] = pixels[i] / 255.0f"),
    "mirrored": ("input[i] = pixels[i]", "input[i] = pixels[pixels.size() - 1 - i]"),
    "no number": ("bytes.size());\n    const auto found", "bytes.size());\n    wanted[0] = NAN;\n    const auto found"),
}


@pytest.fixture(scope="module")
def compiler() -> None:
    """Leave out the tests where there is none, or where it lacks the client's JSON reader."""
    command = ["g++", "-fsyntax-only", "-include", "nlohmann/json_fwd.hpp", "-x", "c++", "/dev/null"]
    if shutil.which("g++") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no C++ compiler with nlohmann/json; on Debian: apt-get install g++ nlohmann-json3-dev")


def check(folder: Path) -> subprocess.CompletedProcess:
    """Compile a bundle's client and let it check itself."""
    program = folder / "client"
    source = folder / "clients" / "client.cc"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{STAND_IN}", f"-Wl,-rpath,{LIBRARY.parent}"]
    subprocess.run(["g++", *flags, source, LIBRARY, "-o", program], check=True)
    return subprocess.run([program, folder], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variant", ["float32", "uint8"])
def test_the_client_gives_the_recorded_answers(exported, tmp_path, variant):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    write_clients(folder, Facts.read((folder / f"{variant}.tflite").read_bytes()), "stretch", [variant])
    done = check(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference " in done.stdout


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_found(exported, tmp_path, fault):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    client = folder / "clients" / "client.cc"
    code = client.read_text()
    assert fault[0] in code
    client.write_text(code.replace(*fault))
    assert check(folder).returncode == 1


def test_pixels_of_another_size_are_refused(exported, tmp_path):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    client = folder / "clients" / "client.cc"
    code = client.read_text()
    assert 'Decode(image["pixels"])' in code
    client.write_text(code.replace('Decode(image["pixels"])', "std::vector<uint8_t>(257)"))
    done = check(folder)
    assert done.returncode != 0
    assert "float16.tflite takes 256 values" in done.stderr
