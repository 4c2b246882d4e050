"""A bundle's zip is that of the certified files, and a zip that is none is named before anything in it is trusted."""

import zipfile
from types import SimpleNamespace

import pytest

from pipeline.export import bundle
from pipeline.export.bundle import pack
from pipeline.export.certificate import write_certificate
from pipeline.export.export import _write_files
from pipeline.export.gates import PASS, Gate
from pipeline.export.verify import verify
from pipeline.runs import Run

ABOUT = {"command": "", "environment": {}, "model": {}, "task": {}, "measure": "accuracy", "margin": 0.5}


@pytest.fixture
def run(tmp_path) -> Run:
    """Return a run whose export holds one certified file."""
    run = Run(tmp_path / "mine")
    run.export_dir.mkdir(parents=True)
    (run.export_dir / "int8.tflite").write_bytes(b"weights" * 100)
    write_certificate(run.export_dir, {"int8": [Gate("golden", "near", "near", PASS)]}, ABOUT)
    return run


def test_a_zip_is_checked_like_its_folder_and_is_not_overwritten(exported, tmp_path, user_error):
    path = pack(exported.run, tmp_path / "model.zip")
    assert all(one.holds for one in verify(path))
    again = pack(exported.run, tmp_path / "again.zip")
    assert again.read_bytes() == path.read_bytes()
    with user_error("is there already", "--force"):
        pack(exported.run, path)
    assert pack(exported.run, path, force=True) == path


def test_only_what_was_certified_is_packed(run, tmp_path, user_error):
    with user_error(f"{tmp_path} is a folder", f"--out {tmp_path}/mine.zip"):
        pack(run, tmp_path, force=True)
    (run.export_dir / "int8.tflite").write_bytes(b"others")
    with user_error("int8.tflite was changed after it was certified"):
        pack(run)
    assert not (tmp_path / "mine.zip").exists()


def test_what_a_killed_export_left_is_not_packed(run):
    for name in (".int8.a1b2c3d4.tflite", ".hidden"):
        (run.export_dir / name).touch()
    inputs = SimpleNamespace(task=SimpleNamespace(classes=["a"]), preprocess=SimpleNamespace(to_json=str))
    _write_files(run, inputs, [("int8", b"weights")])
    found = {path.name for path in run.export_dir.iterdir()}
    assert found == {".hidden", "int8.tflite", "labels.txt", "preprocess.json"}


def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, user_error):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "x")
    with user_error("leaves its folder", "../outside.txt"):
        verify(path)
    assert not (tmp_path / "outside.txt").exists()
    (tmp_path / "no.zip").write_text("no zip")
    with user_error("neither an export folder nor the zip of one"):
        verify(tmp_path / "no.zip")


# Of the last record in the zip's directory: the byte to change, and what to.
@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 77), (16, 0)], ids=["encrypted", "method", "checksum"])
def test_a_damaged_zip_is_called_damaged(run, tmp_path, place, value, user_error):
    path = pack(run)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + place] = value
    path.write_bytes(content)
    with user_error(f"{path} is damaged"):
        verify(path)


def test_damaged_bytes_in_a_zip_are_called_damage(run, user_error):
    path = pack(run)
    content = bytearray(path.read_bytes())
    start = content.index(b"int8.tflite") + len("int8.tflite")
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with user_error(f"{path} is damaged"):
        verify(path)


def test_a_zip_that_cannot_be_laid_out_or_is_too_large_is_refused(tmp_path, monkeypatch, user_error):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("a/b", "x")
    with user_error(f"{path} cannot be unpacked"):
        verify(path)
    monkeypatch.setattr(bundle, "_MOST_BYTES", 1)
    with user_error("unpacks to more than"):
        verify(path)


def test_messages_name_the_zip_and_not_where_it_was_unpacked(run, tmp_path, user_error):
    checks = verify(pack(run))
    assert f"{tmp_path}/mine.zip" in checks[1].found
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "x")
    with user_error(f"{path} has no certificate.json"):
        verify(path)
