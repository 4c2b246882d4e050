"""What is handed over: the card tells the truth, and the clients are of this model and do what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.preprocess import Preprocess
from pipeline.export.handover import CLIENTS, write_clients
from pipeline.export.metadata import Facts


def run_client(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, folder / "clients" / "client.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_the_python_client_gives_the_recorded_answers(exported):
    done = run_client(exported.run.export_dir, "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("largest difference ")


@pytest.mark.parametrize(
    ("fault", "planted"),
    [
        ("pixels[None].astype", "(pixels[None] / 255).astype"),  # normalised twice: the rescaling is in the file
        ("pixels[None].astype", "pixels[None, :, ::-1].astype"),  # mirrored
        ('["answers"]["float16"]', '["answers"]["int8"]'),  # another variant's answers
    ],
)
def test_the_python_client_finds_planted_faults(exported, tmp_path, fault, planted):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    client = folder / "clients" / "client.py"
    code = client.read_text()
    assert fault in code
    client.write_text(code.replace(fault, planted))
    assert run_client(folder, "--check").returncode == 1


def test_the_python_client_answers_as_predict_does(exported, tmp_path):
    digit = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 52), np.uint8))
    digit.save(tmp_path / "digit.png")
    from pipeline import predict

    [found] = predict(exported.run.export_dir / "float16.tflite", [tmp_path / "digit.png"])
    done = run_client(exported.run.export_dir, tmp_path / "digit.png")
    assert f"{found.labels[0]} {found.probabilities[0]:.2f}" in done.stdout, done.stderr


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_python_client_resizes_as_the_model_was_trained(exported, tmp_path, resize):
    facts = Facts("any", ("a", "b"), (24, 32), 3, masks=False)
    write_clients(tmp_path, facts, resize, ["float32"])
    shutil.copy(exported.run.export_dir / "float32.tflite", tmp_path)  # only to be loaded
    (tmp_path / "labels.txt").write_text("a\nb\n")
    colours = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(colours).resize((130, 90), Image.BICUBIC).save(tmp_path / "photo.png")
    code = "import client, numpy; numpy.save('found.npy', client.read('photo.png'))"
    environment = os.environ | {"PYTHONPATH": "clients"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    found = np.load(tmp_path / "found.npy").astype(int)
    wanted = Preprocess((24, 32), 3, resize).read_file(tmp_path / "photo.png").astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert np.mean(found == wanted) > 0.9


def test_every_client_names_this_model(exported):
    folder = exported.run.export_dir / "clients"
    names = {path.name for path in folder.iterdir()}
    assert names == set(CLIENTS) - {"MediaPipeClient.kt"}  # the images are grey, which MediaPipe does not take
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert "float16" in text
        assert len(text.splitlines()) < 100
        assert "{{" not in text.replace("{{}}", "")


def test_clients_of_bytes_and_masks_and_of_nothing(tmp_path):
    facts = Facts("unet", ("road", "sky"), (8, 12), 3, masks=True)
    assert {path.name for path in write_clients(tmp_path, facts, "stretch", ["int8", "uint8"])} == set(CLIENTS)
    assert "Uint8Array.from(pixels)" in (tmp_path / "clients" / "client.mjs").read_text()
    assert "ImageSegmenter" in (tmp_path / "clients" / "MediaPipeClient.kt").read_text()
    assert "output + 192" in (tmp_path / "clients" / "client.cc").read_text()
    assert write_clients(tmp_path, facts, "stretch", ["int8"]) == []
    assert list((tmp_path / "clients").iterdir()) == []


def test_the_card_has_the_figures(exported):
    card = (exported.run.export_dir / "MODEL_CARD.md").read_text(encoding="utf-8")
    for row in exported.results.itertuples():
        assert f"| `{row.file}` | {row.bytes:,} | {row.score:.4f} |" in card
    assert "digits" in card
    assert "simple_cnn" in card
    assert "16 × 16, grey" in card
