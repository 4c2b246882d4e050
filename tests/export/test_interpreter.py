import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export import flatbuffer
from pipeline.export.interpreter import LiteModel, Port


def port(dtype: str, scale: float = 0.0, zero_point: int = 0) -> Port:
    return Port(index=0, shape=(1, 2), dtype=np.dtype(dtype), scale=scale, zero_point=zero_point)


def test_store_and_load_by_hand():
    np.testing.assert_array_equal(port("int8", 0.5, -3).store(np.array([0.0, 1.0, -1.0, 99.0])), [-3, -1, -5, 127])
    np.testing.assert_array_equal(port("int8", 0.5, -3).load(np.array([-3, -1, 127], np.int8)), [0.0, 1.0, 65.0])
    np.testing.assert_array_equal(port("uint8", 1.0).store(np.array([-4.0, 7.0, 300.0])), [0, 7, 255])
    assert port("float32").store(np.array([1.5])).dtype == np.float32


@given(st.sampled_from(["int8", "uint8", "int16"]), st.floats(1e-3, 2.0), st.integers(-5, 5), st.data())
def test_round_trip_is_off_by_half_a_step_at_most(dtype, scale, zero_point, data):
    limits = np.iinfo(dtype)
    ends = [(end - zero_point) * scale for end in (max(limits.min, -9000), min(limits.max, 9000))]
    real = np.array(data.draw(st.lists(st.floats(*ends), min_size=1, max_size=8)))
    tested = port(dtype, scale, zero_point)
    assert np.abs(tested.load(tested.store(real)) - real).max() <= scale / 2 + 1e-4 * np.abs(real).max() + 1e-6


def test_predict_takes_any_number_of_images_of_any_type(variants, images):
    model = LiteModel(variants["int8"])
    whole = model.predict(images[:3])
    assert whole.shape == (3, 5)
    assert whole.dtype == np.float32
    for image, answer in zip(images, whole, strict=False):
        np.testing.assert_array_equal(model.predict(image[None].astype(np.float64))[0], answer)
    assert model.predict(images[:0]).shape == (0, 5)


def test_two_threads_give_the_same_answers(variants, images):
    one, two = (LiteModel(variants["float32"], threads=threads).predict(images[:4]) for threads in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_images_of_another_size_are_refused(variants, user_error):
    with user_error("(16, 16, 3)", "(8, 8, 3)"):
        LiteModel(variants["float32"]).predict(np.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize("kept", [0, 1, 8, 100, 0.5, 0.99])
def test_truncated_file_is_one_sentence(kept, float_file, tmp_path, user_error):
    path = tmp_path / "cut.tflite"
    path.write_bytes(float_file[: int(kept * len(float_file)) if isinstance(kept, float) else kept])
    with user_error("cut.tflite", "not a .tflite file"):
        LiteModel.open(path)


def test_garbage_is_one_sentence(tmp_path, user_error):
    path = tmp_path / "noise.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + np.random.default_rng(0).bytes(5000))
    with user_error("noise.tflite", "not a .tflite file"):
        LiteModel.open(path)


def test_missing_file_is_one_sentence(tmp_path, user_error):
    with user_error("there is no file", "none.tflite"):
        LiteModel.open(tmp_path / "none.tflite")


def test_file_of_another_maker_is_refused(float_file, user_error):
    model = flatbuffer.read(float_file)
    model.signatureDefs[0].outputs[0].name = b"scores"
    with user_error("serving_default", "probabilities"):
        LiteModel(flatbuffer.write(model))


def test_interpreter_does_not_import_tensorflow():
    code = "import sys, pipeline.export, pipeline.export.interpreter; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
