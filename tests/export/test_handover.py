"""What is handed over: the card tells the truth, and the clients are of this model and do what they say."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config import Experiment
from pipeline.data.preprocess import Preprocess
from pipeline.export.handover import CLIENTS, write_card, write_clients
from pipeline.export.interpreter import Port
from pipeline.export.metadata import Facts

MEDIAPIPE = "MediaPipeClient.kt"


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
        ('["probabilities"][0]', '["probabilities"][0] * np.nan'),
    ],
)
def test_the_python_client_finds_planted_faults(exported, tmp_path, fault, planted):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    client = folder / "clients" / "client.py"
    code = client.read_text()
    assert fault in code
    client.write_text(code.replace(fault, planted))
    done = run_client(folder, "--check")
    assert done.returncode == 1
    assert done.stdout.startswith("largest difference "), done.stderr


@pytest.mark.parametrize(("steps", "code"), [(1, 0), (2, 1)])
def test_an_integer_file_may_be_one_step_of_its_output_off(exported, tmp_path, steps, code):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    write_clients(folder, Facts.read((folder / "uint8.tflite").read_bytes()), "stretch", ["uint8"])
    golden = json.loads((folder / "golden.json").read_text())
    answers = np.frombuffer(base64.b64decode(golden["images"][0]["answers"]["uint8"]), "<f4").copy()
    answers[0] += np.float32(steps / 256)
    golden["images"][0]["answers"]["uint8"] = base64.b64encode(answers.tobytes()).decode()
    (folder / "golden.json").write_text(json.dumps(golden))
    assert run_client(folder, "--check").returncode == code


def test_the_python_client_wants_as_many_labels_as_the_file_has(exported, tmp_path):
    folder = Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))
    names = [f"{digit}\u2028" for digit in range(10)]  # not the end of a line in labels.txt
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    assert run_client(folder, "--check").returncode == 0
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in [*names, "10"]), encoding="utf-8")
    done = run_client(folder, "--check")
    assert done.returncode == 1
    assert "float16.tflite has 10 classes, but labels.txt has 11 lines" in done.stderr


def test_the_python_client_answers_as_predict_does(exported, tmp_path):
    digit = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 52), np.uint8))
    digit.save(tmp_path / "digit.png")
    from pipeline import predict

    [found] = predict(exported.run.export_dir / "float16.tflite", [tmp_path / "digit.png"])
    done = run_client(exported.run.export_dir, tmp_path / "digit.png")
    label, share = re.search(r"\.png (\d) (\d\.\d+),", done.stdout).groups()
    assert label == found.labels[0]
    assert float(share) == pytest.approx(found.probabilities[0], abs=0.01)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_python_client_resizes_as_the_model_was_trained(exported, tmp_path, resize):
    facts = Facts("any", ("a", "b"), (24, 32), 3, masks=False)
    write_clients(tmp_path, facts, resize, ["float32"])
    for name in ("float32.tflite", "labels.txt"):  # only to be loaded
        shutil.copy(exported.run.export_dir / name, tmp_path)
    colours = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(colours).resize((130, 90), Image.BICUBIC).save(tmp_path / "photo.png")
    found = read_by_client(tmp_path)
    wanted = Preprocess((24, 32), 3, resize).read_file(tmp_path / "photo.png").astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert np.mean(found == wanted) > 0.9


def test_the_python_client_keeps_the_high_byte_of_sixteen_bits(exported, tmp_path):
    write_clients(
        tmp_path, Facts.read((exported.run.export_dir / "float32.tflite").read_bytes()), "stretch", ["float32"]
    )
    for name in ("float32.tflite", "labels.txt"):
        shutil.copy(exported.run.export_dir / name, tmp_path)
    values = np.random.default_rng(2).integers(0, 65536, (40, 52), np.uint16)
    Image.fromarray(values).save(tmp_path / "photo.png")
    found = read_by_client(tmp_path)
    wanted = Preprocess(found.shape[:2], 1).read_file(tmp_path / "photo.png").astype(int)
    assert np.abs(found - wanted).max() <= 1


def read_by_client(folder: Path) -> np.ndarray:
    """Read photo.png with the folder's client."""
    code = "import client, numpy; numpy.save('found.npy', client.read('photo.png'))"
    environment = os.environ | {"PYTHONPATH": "clients"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)
    return np.load(folder / "found.npy").astype(int)


def test_every_client_names_this_model(exported):
    folder = exported.run.export_dir / "clients"
    names = {path.name for path in folder.iterdir()}
    assert names == set(CLIENTS) - {MEDIAPIPE}  # the images are grey, which MediaPipe does not take
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert "float16" in text
        assert len(text.splitlines()) < 100
        assert "{{" not in text.replace("{{}}", "")


def test_clients_of_bytes_and_masks_and_of_nothing(tmp_path):
    facts = Facts("unet", ("road", "sky"), (8, 12), 3, masks=True)
    assert {path.name for path in write_clients(tmp_path, facts, "stretch", ["int8", "uint8"])} == set(CLIENTS)
    assert "Uint8Array.from(pixels)" in (tmp_path / "clients" / "client.mjs").read_text()
    assert "ImageSegmenter" in (tmp_path / "clients" / MEDIAPIPE).read_text()
    assert "shares of the pixels" in (tmp_path / "clients" / "client.py").read_text()
    assert ".setMaxResults" not in (tmp_path / "clients" / MEDIAPIPE).read_text()
    assert "output + 192" in (tmp_path / "clients" / "client.cc").read_text()
    assert write_clients(tmp_path, facts, "stretch", ["int8"]) == []
    assert list((tmp_path / "clients").iterdir()) == []


def test_clients_of_several_heads_answer_for_each(tmp_path):
    facts = Facts("any", ("hue=red", "hue=blue", "size=small", "size=large", "size=huge"), (24, 32), 3, masks=False)
    write_clients(tmp_path, facts, "stretch", ["float32"])
    assert ".setMaxResults(-1)" in (tmp_path / "clients" / MEDIAPIPE).read_text()
    assert "for start, end in [(0, 2), (2, 5)]]" in (tmp_path / "clients" / "client.py").read_text()


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_mediapipe_has_a_client_only_where_images_are_stretched(tmp_path, resize):
    facts = Facts("any", ("a", "b"), (24, 32), 3, masks=False)
    write_clients(tmp_path, facts, "stretch", ["float32"])
    assert {path.name for path in write_clients(tmp_path, facts, resize, ["float32"])} == set(CLIENTS) - {MEDIAPIPE}
    assert not (tmp_path / "clients" / MEDIAPIPE).exists()


FLOATS = Port(0, (1, 10), np.dtype("float32"), 0.0, 0)
BYTES = Port(0, (1, 10), np.dtype("int8"), 1.0, -128), Port(1, (1, 10), np.dtype("int8"), 1 / 256, -128)
WORDS = Port(0, (1, 10), np.dtype("int16"), 255 / 32767, 0), Port(1, (1, 10), np.dtype("int16"), 1 / 32768, 0)
PORTS = {"float32": (FLOATS, FLOATS), "int8": BYTES, "int16x8": WORDS}


def card(folder: Path, variant: str, labels: tuple[str, ...], command: str) -> str:
    row = {"variant": variant, "file": f"{variant}.tflite", "bytes": 1000, "measure": "accuracy", "n": 100}
    row |= dict.fromkeys(("score", "low", "high", "difference", "difference_low", "difference_high"), 0.5)
    facts = Facts("any", labels, (24, 32), 3, masks=False)
    experiment = Experiment.load("digits")
    path = write_card(folder, experiment, 10, facts, pd.DataFrame([row]), PORTS, {variant: "certified"}, command)
    return path.read_text(encoding="utf-8")


def test_the_card_names_clients_only_where_there_are_some(tmp_path):
    assert "`clients/` has code for `float32.tflite`" in card(tmp_path, "float32", ("a", "b"), "pipeline export")
    assert "clients/" not in card(tmp_path, "int8", ("a", "b"), "pipeline export")


@pytest.mark.parametrize(
    ("variant", "ports"),
    [
        ("float32", "float32: pixel | float32: p"),
        ("int8", "int8: pixel - 128 | int8: p = 0.00390625 × (q + 128)"),
        ("int16x8", "int16: pixel / 0.00778221992 | int16: p = 3.05175781e-05 × q"),
    ],
)
def test_the_card_says_how_each_file_is_fed_and_read(tmp_path, variant, ports):
    assert f"| `{variant}.tflite` | {ports} | 1,000 |" in card(tmp_path, variant, ("a", "b"), "pipeline export")


def test_free_texts_are_no_markup_in_the_card(tmp_path):
    text = card(
        tmp_path, "int8", ("a|b", "`c`", "*d*", "traffic_light", "_e_", "__f__", "~g~ &amp;"), "pipeline export `runs`"
    )
    assert "(a\\|b, \\`c\\`, \\*d\\*, traffic_light, \\_e\\_, \\_\\_f\\_\\_, \\~g\\~ \\&amp;)" in text
    assert " by `` pipeline export `runs` ``.\n" in text


def test_the_card_has_the_figures(exported):
    card = (exported.run.export_dir / "MODEL_CARD.md").read_text(encoding="utf-8")
    for row in exported.results.itertuples():
        assert f" | {row.bytes:,} | {row.score:.4f} |" in card
    assert "digits" in card
    assert "simple_cnn" in card
    assert "16 × 16, grey" in card
