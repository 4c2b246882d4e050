"""From training to certificate with networks unlike those of the other tests: attention, norms that stand alone."""

import pytest

from pipeline import Experiment, export, train

SETTINGS = ["train.epochs=1", "data.augment=[]", "export.variants=[float32, float16]", "export.calibration_images=32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["botnet_tiny", "densenet_bc_tiny", "vit_micro_16"])
def test_a_run_is_trained_and_certified(name, tmp_path):
    run = train(Experiment.load("digits", [f"model={name}", *SETTINGS]), tmp_path / "run")
    assert export(run).certificate.failures() == []
