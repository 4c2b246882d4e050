"""The lint: each rule trips where it should and is silent beside it; every model can be looked at."""

import json
import logging
import re
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from depthwise_digits import digits, scaled_apart, trained
from representatives import build, every_family
from troubled import network, pairs, pictures

from pipeline.errors import UserError
from pipeline.export import lint_subject
from pipeline.export.compress.quantize_aware import quantize_aware
from pipeline.export.convert import convert
from pipeline.export.flatbuffer import operators
from pipeline.export.lint import advise, group, lint
from pipeline.export.lint_rules import RULES

PAIRS = pairs()
DOCS = Path(__file__).parents[2] / "docs" / "quantisation.md"


def names(findings: pd.DataFrame, rule: str) -> list[str]:
    return findings.loc[findings["rule"] == rule, "layer"].tolist()


def test_every_rule_has_a_pair():
    assert {rule.name for rule in RULES} == set(PAIRS)
    assert len(RULES) == 12


@pytest.mark.parametrize("rule", sorted(PAIRS))
def test_a_rule_names_its_layer_and_spares_the_twin(rule):
    layer, trips, twin = PAIRS[rule]
    assert names(lint(trips, pictures()), rule)[:1] == [layer]  # what follows a huge range is huge as well
    assert names(lint(twin, pictures()), rule) == []


def test_rules_on_trained_weights_need_images():
    _, trips, _ = PAIRS["kernel_range"]
    found = set(lint(trips)["rule"])
    assert not found & {"kernel_range", "activation_range"}


def test_pooling_over_a_huge_range_is_named():
    _, trips, _ = PAIRS["activation_range"]
    assert names(lint(trips, pictures()), "pooling") == ["pool"]


def test_a_model_with_python_code_is_looked_at_as_far_as_it_goes():
    _, trips, _ = PAIRS["python_code"]
    assert lint(trips, pictures())["rule"].unique().tolist() == ["python_code"]


def test_a_subclassed_model_is_one_sentence():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UserError, match="subclassed"):
        lint(Own())


def test_a_healthy_network_has_no_findings_and_one_scaled_apart_has():
    images = digits()[0][:16]
    assert lint(trained(), images).empty
    apart = scaled_apart(trained())
    depthwise = [layer for layer in apart.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    found = lint(apart, images)
    assert names(found, "activation_range") == [depthwise[1].input._keras_history.operation.name]
    assert names(found, "kernel_range") == [layer.name for layer in depthwise]


def test_a_quantisation_aware_model_is_looked_at_as_the_float_model_it_is():
    _, trips, _ = PAIRS["channels"]
    assert set(lint(quantize_aware(trips))["rule"]) == {"channels"}


def test_layers_of_inner_models_are_found():
    inner = keras.Sequential([keras.Input((16, 16, 8)), keras.layers.UpSampling2D(2, name="inside")], name="inner")
    model = network(lambda x: inner(keras.layers.Conv2D(8, 1)(x)))
    assert names(lint(model), "nearest_upsampling") == ["inside"]


def test_unfolded_norms_are_those_that_stay_in_the_file():
    _, trips, twin = PAIRS["unfolded_norm"]
    made = [[op.name for op in operators(convert(model, keras.ops.softmax))] for model in (trips, twin)]
    assert [each.count("MUL") for each in made] == [2, 1]  # one is the rescaling's


# What a published architecture is made of and an integer file has to live with.
KNOWN = {
    "convnext_micro_tiny": {"float_island"},  # layer normalisation
    **{name: {"unfolded_norm"} for name in ("densenet_tiny", "densenet_bc_tiny")},  # of joined outputs
    **{name: {"unfolded_norm"} for name in ("resnet8_v2", "resnet_v2_tiny", "wrn_10_1")},  # before the convolution
    **{name: {"float_island"} for name in ("vit_micro_16", "cct_tiny")},  # layer norm, attention
    "botnet_tiny": {"float_island", "unfolded_norm"},  # attention, and the norm of what it gives
    "cbam_resnet_tiny": {"float_island", "pooling"},  # the mean and the maximum over channels
}


@every_family
def test_registered_models_are_linted(name):
    found = set(lint(build(name))["rule"])
    assert found - {"channels"} == KNOWN.get(name, set()), "ours are built for integers"


@pytest.mark.slow
def test_applications_give_what_is_known_of_them():
    build = {"weights": None, "input_shape": (64, 64, 3), "classes": 7}
    found = lint(keras.applications.MobileNetV2(**build))
    assert set(found["rule"]) == {"outside_normalization", "softmax_inside"}
    found = lint(keras.applications.DenseNet121(**build))
    assert len(names(found, "unfolded_norm")) == 62  # as many MUL and ADD stay in its file
    assert names(found, "softmax_inside") == ["predictions"]


def test_grouping_keeps_the_order_and_counts_the_rest():
    model = network(lambda x: keras.Sequential([keras.layers.Conv2D(9, 1, name=f"c{i}") for i in range(5)])(x))
    [row] = group(lint(model)).itertuples()
    assert row.layers == "c0, c1, c2 and 1 more"  # the last gives the classes
    assert "9 channels" in row.hurts


def test_the_export_says_the_three_worst_and_writes_all(tmp_path, caplog):
    def body(x):
        x = keras.layers.LayerNormalization()(keras.layers.Conv2D(9, 1)(x))
        x = keras.layers.BatchNormalization()(keras.layers.UpSampling2D(2)(x))
        return keras.layers.Dense(3, activation="softmax")(x)

    with caplog.at_level(logging.INFO, "pipeline"):
        advise(tmp_path, network(body), ["float32", "int8"], pictures())
    assert len([line for line in caplog.messages if line.startswith("lint, ")]) == 3
    assert "lint, float_island at layer_normalization" in caplog.messages[0]
    assert len(pd.read_csv(tmp_path / "lint.csv")) == 5
    advise(tmp_path, network(body), ["float32", "float16"], pictures())
    assert not list(tmp_path.iterdir())


def test_command_on_a_preset_says_that_there_is_nothing(run_cli):
    code, out, err = run_cli("lint", "digits")
    assert (code, out) == (0, "")
    assert "nothing found that would hurt an integer file" in err


def test_command_prints_findings_as_json_and_still_succeeds(run_cli):
    code, out, _ = run_cli("lint", "digits", "model={name: lenet5}", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["layer"] for row in rows if row["rule"] == "channels"] == ["conv1_conv", "dense2"]
    assert set(rows[0]) == {"rule", "layer", "hurts", "mend"}


def test_command_on_a_run_looks_at_its_weights(monkeypatch, run_cli, exported):
    code, out, err = run_cli("lint", exported.run.path)
    assert (code, out) == (0, ""), err
    looked = []
    monkeypatch.setattr(lint_subject, "measure_spreads", lambda graph, images: looked.append(images) or {})
    assert run_cli("lint", exported.run.path)[0] == 0
    assert looked[0].shape == (16, 16, 16, 1)
    assert looked[0].dtype == np.uint8


def test_the_page_has_the_table_of_rules():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(rule.name, rule.hurts, rule.mend) for rule in RULES]
