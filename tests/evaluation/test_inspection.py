"""The table of a model's layers, the measured receptive field, and the picture of both."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.evaluation import inspection
from pipeline.registry import MODELS


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return MODELS.build("resnet8", (24, 32, 3), 4, width=4)


@pytest.fixture(scope="module")
def table(model):
    return inspection.inspect_model(model)


def test_one_row_per_layer_with_all_that_is_known(model, table):
    assert sorted(table["layer"]) == sorted(layer.name for layer in model.layers)
    rows = table.set_index("layer")
    stem = rows.loc["stem_conv"]
    assert (stem["parameters"], stem["macs"]) == (108, 24 * 32 * 108)
    assert (stem["output"], stem["output_bytes"]) == ([24, 32, 4], 24 * 32 * 4 * 4)
    assert stem["alive_bytes"] == 24 * 32 * (3 + 4) * 4
    assert (stem["field"], stem["field_stride"], stem["field_centre"]) == ([3, 3], [1, 1], [0, 0])
    # Stem, two convolutions of each stage, the second and third of which open with a stride: 3, 7, 9, 13, 17, 25; then
    # all of a map of 6x8 at stride 4.
    assert rows.loc["logits", "field"] == [25 + 5 * 4, 25 + 7 * 4]
    assert table["parameters"].sum() == model.count_params()


def test_the_table_for_reading_and_its_sentence(model, table):
    short = inspection.shorten(table).set_index("layer")
    assert short.loc["stem_conv", ["output", "KiB", "sees", "stride"]].tolist() == ["24×32×4", 12, "3", "1"]
    assert short.loc["logits", "sees"] == "45×53"
    said = inspection.describe(table)
    assert f"{model.count_params():,} parameters" in said
    assert "at most 36 KiB of activations at once" in said  # three maps of the first stage


def test_the_measured_field_of_one_convolution_is_its_kernel():
    x = keras.Input((9, 9, 1), name="image")
    layer = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, name="conv")
    one = keras.Model(x, layer(x))
    kernel = np.array([[1.0, -2, 0.02], [4, 1, 1], [0, 1, 1]])
    layer.set_weights([kernel[..., None, None]])
    matters = inspection.effective_field(one, "conv", np.zeros((2, 9, 9, 1)))
    expected = np.zeros((9, 9))
    expected[3:6, 3:6] = np.abs(kernel) / 4
    np.testing.assert_allclose(matters, expected, atol=1e-7)
    assert inspection.effective_size(matters) == pytest.approx(np.sqrt(7))  # 0.02 of 4 does not count
    flat = keras.Model(x, keras.layers.Flatten(name="flat")(layer.output))
    with pytest.raises(UserError, match="'flat' gives"):
        inspection.effective_field(flat, "flat", np.zeros((1, 9, 9, 1)))


def test_random_convolutions_see_less_than_they_could():
    """The effective field grows with the square root of the depth only (Luo et al., arXiv 1701.04128)."""
    x = inputs = keras.Input((65, 65, 1))
    set_seed(0)
    for index in range(16):
        x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{index}")(x)
    deep = keras.Model(inputs, x)
    images = np.random.default_rng(0).uniform(0, 255, (2, 65, 65, 1))
    sizes = [inspection.effective_size(inspection.effective_field(deep, f"conv{n - 1}", images)) for n in (4, 16)]
    assert sizes[1] < 0.75 * 33
    assert 1.5 < sizes[1] / sizes[0] < 3  # not the 33 / 9 of the theory


def test_every_layer_with_a_place_is_measured(model, table, tmp_path):
    measured = inspection.measure_fields(model, table).set_index("layer")
    sizes = measured["effective"]
    assert sizes["image"] == sizes["rescaling"] == 1
    assert 1 < sizes["stem_conv"] <= 3
    assert sizes[["pool", "logits"]].isna().all()
    within = measured["field"].map(lambda field: np.sqrt(np.prod(field)))
    assert (sizes.dropna() <= within[sizes.notna()] + 1e-9).all()
    drawn = inspection.draw_inspection(model, table, tmp_path / "seen.png").set_index("layer")["effectively"]
    assert drawn.to_dict() == sizes[drawn.index].to_dict()
    assert inspection.shorten(measured.reset_index())["uses"].count() == sizes.count()


def test_the_picture_shows_the_stages(model, table, tmp_path):
    measured = inspection.draw_inspection(model, table, tmp_path / "seen.png")
    assert list(measured["layer"]) == ["c0", "c1", "c2"]
    assert (measured["effectively"] <= measured["sees"]).all()
    with Image.open(io.BytesIO((tmp_path / "seen.png").read_bytes())) as picture:
        assert picture.width > 1000
        assert np.asarray(picture).std() > 20


def test_layers_are_shown_where_nothing_is_marked():
    lenet = MODELS.build("lenet5")
    assert inspection._layers_to_show(lenet, inspection.inspect_model(lenet)) == ["conv1_conv", "conv2_conv"]


def test_a_model_of_any_size_has_no_costs(tmp_path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs)).save(tmp_path / "any.keras")
    with pytest.raises(UserError, match="takes images of any size"):
        inspection.open_model(str(tmp_path / "any.keras"))


def test_models_come_from_names_runs_and_files(model, make_run, tmp_path):
    run = make_run(tmp_path / "run", [], "0123456789")
    assert inspection.open_model(str(run.path)).count_params() == keras.saving.load_model(run.model_path).count_params()
    assert inspection.open_model("lenet5").name == "lenet5"
    model.save(tmp_path / "mine.keras")
    assert inspection.open_model(str(tmp_path / "mine.keras")).count_params() == model.count_params()
    (tmp_path / "broken.keras").write_text("nothing")
    with pytest.raises(UserError, match=r"broken\.keras cannot be read as a Keras model"):
        inspection.open_model(str(tmp_path / "broken.keras"))
    with pytest.raises(UserError, match="is not a run"):
        inspection.open_model(str(tmp_path))
