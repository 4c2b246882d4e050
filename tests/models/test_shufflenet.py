"""ShuffleNet v2: torchvision's counts, costs, the shuffle by hand, and the half that passes untouched."""

import functools

import keras
import numpy as np
import pytest

from pipeline.models.inspect import summary
from pipeline.registry import MODELS

summarize = functools.cache(summary)

# Trainable parameters and millions of multiply-accumulates as torchvision has them (num_params, _ops), and ours.
FIGURES = {
    "shufflenet_v2_x0_5": (1_366_792, 40),
    "shufflenet_v2_x1_0": (2_278_604, 145),
    "shufflenet_v2_x1_5": (3_503_624, 296),
    "shufflenet_v2_x2_0": (7_393_996, 583),
    "shufflenet_v2_tiny": (76_808, 4.5),
}


@pytest.mark.parametrize(("name", "trainable", "millions"), [(name, *row) for name, row in FIGURES.items()])
def test_networks_have_torchvisions_size(name, trainable, millions):
    assert summarize(name).trainable == trainable
    assert summarize(name).macs / 1e6 == pytest.approx(millions, rel=0.02)


def test_half_of_the_channels_pass_a_block_untouched():
    model = MODELS.build("shufflenet_v2_tiny", (32, 32, 3), 5)
    blocks = [model.get_layer(f"stage2_block{index}_shuffle_merge").output for index in (1, 2)]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    before, after = (np.asarray(x) for x in keras.Model(model.input, blocks)(images))
    np.testing.assert_array_equal(after[..., ::2], before[..., :8])
    assert not np.allclose(after[..., 1::2], before[..., 8:])
