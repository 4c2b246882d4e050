"""GhostNet: counts, costs, and its modules against the definition."""

import functools

import keras
import numpy as np
import pytest

from pipeline.models.inspect import summary
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

summarize = functools.cache(summary)

# Trainable parameters, by hand from the layers of timm's ghostnet.py (the paper: 5.2 M and 141 M, table 7), and ours.
PARAMETERS = {"ghostnet": 5_182_508, "ghostnet_tiny": 266_720}
# The same at other widths; the paper has 2.6 M and 7.3 M (table 7).
WIDTHS = {0.5: 2_587_292, 1.3: 7_358_820}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_networks_have_their_parameters(name, expected):
    assert summarize(name).trainable == expected


@pytest.mark.parametrize(("width", "expected"), WIDTHS.items())
def test_widths_are_rounded_to_fours(width, expected):
    with without_values():
        model = MODELS.build("ghostnet", width=width)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == expected


def test_the_network_costs_the_published_multiply_accumulates():
    assert summarize("ghostnet").macs / 1e6 == pytest.approx(141, rel=0.005)


@functools.cache
def tiny() -> keras.Model:
    return MODELS.build("ghostnet_tiny", (32, 32, 3), 5)


def test_half_of_a_module_is_filtered_from_the_other_half():
    model = tiny()
    primary, cheap = (model.get_layer(f"block1_expand_{part}_relu") for part in ("primary", "cheap"))
    joined = model.get_layer("block1_expand_join")
    assert (primary.output.shape[-1], cheap.output.shape[-1], joined.output.shape[-1]) == (16, 16, 32)
    assert model.get_layer("block1_expand_cheap_conv").input is primary.output
    assert joined.input[0] is primary.output
    assert joined.input[1] is cheap.output


def test_projections_have_no_activation_and_shortcuts_filter_before_they_project():
    names = [layer.name for layer in tiny().layers]
    assert not [name for name in names if "project" in name and name.endswith("relu")]
    assert [name for name in names if "shortcut" in name and name.endswith("conv")] == [
        f"block{index}_shortcut{part}_conv" for index in (1, 2, 3, 5) for part in ("_depthwise", "")
    ]
    assert tiny().get_layer("block2_shortcut_depthwise_conv").kernel_size == (5, 5)
