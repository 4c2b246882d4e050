"""Which files the demo takes, and how far apart it lets their answers be."""

import zipfile

import pytest

from pipeline.export import bundle, demo
from pipeline.export.gates import golden_bound
from pipeline.registry import RECIPES


def test_what_was_never_finished_is_no_variant(tmp_path, user_error):
    (tmp_path / ".int8.a1b2c3d4.tflite").touch()
    with user_error("has no .tflite files"):
        demo.open_server(tmp_path)


def test_a_zip_that_is_too_large_is_refused(tmp_path, monkeypatch, user_error):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("int8.tflite", "weights")
    monkeypatch.setattr(bundle, "_MOST_BYTES", 6)
    with user_error("unpacks to more than"):
        demo.open_server(path)


@pytest.mark.parametrize("name", ["float32", "float16", "weight_int4", "dynamic", "int8"])
def test_the_certificate_allows_what_the_demo_allows(name, float_file, images):
    allowed = demo.tolerance(RECIPES.build(name, float_file, images[:8]))
    assert allowed == pytest.approx(golden_bound(name), rel=2e-3)
