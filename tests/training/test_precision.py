import keras
import numpy as np
import pytest
from tiny import loop, pictures, runtime

from pipeline.training.train import as_float32

# What rounding may cost on this problem: bfloat16 has 8 bits of mantissa, float16 has 11.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.05, "mixed_float16": 0.02}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return loop(tmp_path_factory.mktemp("float32"), epochs=5).run()


@pytest.mark.parametrize("xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_every_precision_reaches_the_loss_of_float32(tmp_path, reference, precision, xla):
    it = loop(tmp_path, choices=runtime(precision=precision, xla=xla), epochs=5)
    rows = it.run()
    assert it.model.layers[2].compute_dtype == precision.removeprefix("mixed_")
    for name in ("loss", "val_loss"):
        found, truth = [row[name] for row in rows], [row[name] for row in reference]
        np.testing.assert_allclose(found, truth, rtol=TOLERANCE[precision], atol=TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_fused_norm_works_in_mixed_precision(tmp_path, reference, precision):
    rows = loop(tmp_path, choices=runtime(precision=precision, cpu_ops=True), epochs=5).run()
    found, truth = [row["loss"] for row in rows], [row["loss"] for row in reference]
    np.testing.assert_allclose(found, truth, rtol=0.05, atol=0.05)


def test_overflow_in_float16_skips_the_step_and_lowers_the_scale(tmp_path):
    it = loop(tmp_path, choices=runtime(precision="mixed_float16", steps_per_call=1), epochs=1)
    it.parts.optimizer.dynamic_scale.assign(2.0**60)
    before = it.model.layers[-1].kernel.numpy()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.layers[-1].kernel.numpy())

    it.settings = type(it.settings)(epochs=1, callbacks=(Watch(),))
    it.run()
    np.testing.assert_array_equal(seen[0], before)
    assert float(it.parts.optimizer.dynamic_scale.numpy()) == 2.0**54


def test_a_mixed_model_is_rebuilt_in_float32(tmp_path):
    it = loop(tmp_path, choices=runtime(precision="mixed_bfloat16"), epochs=1)
    it.run()
    rebuilt = as_float32(it.model)
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    images, _ = pictures()
    np.testing.assert_allclose(rebuilt.predict(images, verbose=0), it.model.predict(images, verbose=0), atol=0.05)
    assert as_float32(rebuilt) is rebuilt
    rebuilt.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), rebuilt.predict(images, verbose=0), atol=1e-6)
