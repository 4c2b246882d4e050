import contextlib
import logging

import keras
import pytest
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.sections import Train
from pipeline.training import runtime as module
from pipeline.training.runtime import choose, dtype_policy, onednn


def settings(**changes) -> Train:
    return Train.model_construct(**{name: field.default for name, field in Train.model_fields.items()} | changes)


@pytest.fixture
def ampere(monkeypatch):
    pretend(monkeypatch, (8, 0))


def pretend(monkeypatch, capability: tuple[int, int]) -> None:
    device = tf.config.LogicalDevice("/device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [device] if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device] if kind == "GPU" else [])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)


def test_on_a_cpu(caplog):
    with caplog.at_level(logging.INFO):
        found = choose(settings(), batch_size=128, image_size=(32, 32))
    assert (found.precision, found.xla, found.cpu_ops, found.replicas) == ("float32", False, True, 1)
    assert found.facts()["onednn"] is onednn() is True
    [message] = caplog.messages
    assert message == "runtime: 1 × CPU, float32, no XLA, fused batch norm, oneDNN, 32 steps per call"


def test_without_onednn_it_warns(monkeypatch, caplog):
    monkeypatch.setattr(module, "onednn", lambda: False)
    choose(settings(), batch_size=1, image_size=(8, 8))
    assert "import pipeline before tensorflow, or set TF_ENABLE_ONEDNN_OPTS=1" in caplog.text


@pytest.mark.parametrize(
    ("flags", "warns"), [(["avx2", "avx512f"], True), (["avx512_bf16"], False), (["bf16"], False), ([], False)]
)
def test_bfloat16_that_the_processor_lacks_is_warned_of(monkeypatch, caplog, flags, warns):
    monkeypatch.setattr(module, "instructions", lambda: flags)
    assert choose(settings(precision="mixed_bfloat16"), batch_size=1, image_size=(8, 8)).precision == "mixed_bfloat16"
    assert ("no bfloat16 instructions" in caplog.text) is warns


def test_on_a_recent_gpu(ampere):
    found = choose(settings(), batch_size=128, image_size=(224, 224))
    assert (found.device, found.precision, found.xla, found.cpu_ops) == ("GPU", "mixed_bfloat16", True, False)


def test_on_an_old_gpu(monkeypatch):
    pretend(monkeypatch, (7, 5))
    assert choose(settings(), batch_size=1, image_size=(8, 8)).precision == "float32"


def test_what_is_set_is_not_overruled(ampere):
    found = choose(
        settings(precision="float32", xla=False, steps_per_call=3, strategy="single"), batch_size=1, image_size=(8, 8)
    )
    assert (found.precision, found.xla, found.steps_per_call) == ("float32", False, 3)


def test_xla_on_a_cpu_keeps_kerass_norm():
    assert not choose(settings(xla=True), batch_size=1, image_size=(8, 8)).cpu_ops


@pytest.mark.parametrize(
    ("batch_size", "side", "accumulate", "steps"), [(128, 32, 1, 32), (64, 96, 1, 7), (64, 224, 1, 1), (64, 48, 4, 7)]
)
def test_steps_per_call_follow_the_pixels(batch_size, side, accumulate, steps):
    found = choose(settings(accumulate=accumulate), batch_size=batch_size, image_size=(side, side))
    assert found.steps_per_call == steps


def test_a_batch_that_cannot_be_divided(monkeypatch):
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", property(lambda self: 2))
    with pytest.raises(
        UserError, match=r"data.batch_size 33 cannot be divided among 2 devices; make it a multiple of 2"
    ):
        choose(settings(), batch_size=33, image_size=(8, 8))


def test_several_workers_need_their_addresses(monkeypatch):
    with pytest.raises(UserError, match="multi_worker needs TF_CONFIG"):
        choose(settings(strategy="multi_worker"), batch_size=8, image_size=(8, 8))
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(UserError, match="TF_CONFIG is not JSON"):
        choose(settings(), batch_size=8, image_size=(8, 8))


def test_the_policy_is_put_back():
    with contextlib.suppress(RuntimeError), dtype_policy("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        raise RuntimeError
    assert keras.config.dtype_policy().name == "float32"
