import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from seeding import set_seed

from pipeline import export
from pipeline.config import Experiment
from pipeline.data.preprocess import Preprocess
from pipeline.evaluation.statistics import wilson
from pipeline.export.answers import repeat_comparison
from pipeline.export.inputs import open_inputs, real_images
from pipeline.export.interpreter import LiteModel
from pipeline.export.results import verdict
from pipeline.runs import Run, write_atomically
from pipeline.tasks.base import share_of

COLUMNS = [
    "variant",
    "file",
    "bytes",
    "measure",
    "score",
    "low",
    "high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "verdict",
    "images_needed",
    "max_abs_difference",
    "mean_abs_difference",
    "latency_ms_p10",
    "latency_ms_p50",
    "latency_ms_p90",
    "memory_mb",
    "latency_ms_p10_2t",
    "latency_ms_p50_2t",
    "latency_ms_p90_2t",
    "memory_mb_2t",
    "noisiest_layer",
    "noisiest_db",
]


def test_every_file_is_there(exported):
    variants = {f"{name}.tflite" for name in exported.run.experiment.export.variants}
    assert len(variants) == 6
    assert {path.name for path in exported.run.export_dir.iterdir()} == variants | {
        "MODEL_CARD.md",
        "measures.csv",
        "per_class_change.csv",
        "flips.json",
        "calibration.csv",
        "calibration_error.csv",
        "clients",
        "labels.txt",
        "preprocess.json",
        "golden.npz",
        "lint.csv",
        "golden.json",
        "answers.npz",
        "certificate.json",
        "parity.csv",
        "results.csv",
    }
    assert (exported.run.export_dir / "labels.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    assert "int16x8" in exported.report_path.read_text(encoding="utf-8")
    assert exported.report_path.stat().st_size < 5_000_000


def test_table_has_its_columns_and_agrees_with_itself(exported):
    results = exported.results
    assert list(results.columns) == COLUMNS
    assert list(results["variant"]) == exported.run.experiment.export.variants
    pd.testing.assert_frame_equal(pd.read_csv(exported.run.export_dir / "results.csv"), results)
    assert len(exported.table()) == 6
    for row in results.itertuples():
        assert row.bytes == (exported.run.export_dir / row.file).stat().st_size
        assert row.n == 899
        expected = wilson(round(row.score * row.n), row.n)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
        assert row.low <= row.score <= row.high
        assert row.difference_low <= row.difference <= row.difference_high
        assert 0 < row.latency_ms_p10 <= row.latency_ms_p50 <= row.latency_ms_p90
        assert 0 <= row.mean_abs_difference <= row.max_abs_difference
        assert 10 < row.memory_mb < 200


def test_float32_is_the_keras_model(exported):
    row = exported.results.set_index("variant").loc["float32"]
    assert row["max_abs_difference"] < 1e-4
    assert (row["difference"], row["p_value"], row["verdict"]) == (0.0, 1.0, "ok")
    assert row["score"] > 0.3, "two epochs must teach something"


def test_sizes_are_in_the_expected_order(exported):
    sizes = exported.results.set_index("variant")["bytes"]
    assert sizes["float32"] > 1.5 * sizes["float16"] > 1.5 * sizes["dynamic"]
    assert sizes[["int8", "uint8", "int16x8"]].max() < sizes["float16"]


def test_verdict_names_the_fastest_file(exported):
    fastest = exported.results.loc[exported.results["latency_ms_p50"].idxmin(), "variant"]
    assert f"fastest here: {fastest}" in exported.verdict
    for row in exported.results.itertuples():
        assert row.variant in exported.verdict
        assert row.verdict in ("ok", "not shown", "worse")


def test_golden_outputs_can_be_made_again(exported):
    with np.load(exported.run.export_dir / "golden.npz") as golden:
        assert golden["images"].dtype == np.uint8
        assert golden["images"].shape == (8, 16, 16, 1)
        assert len(set(golden["ids"])) == 8
        for name in exported.run.experiment.export.variants:
            model = LiteModel.open(exported.run.export_dir / f"{name}.tflite")
            np.testing.assert_array_equal(model.predict(golden["images"]), golden[name])
        np.testing.assert_allclose(golden["float32"], golden["keras"], atol=1e-5)


def test_preprocess_json_says_how_to_make_the_pixels(exported):
    text = (exported.run.export_dir / "preprocess.json").read_text()
    assert Preprocess.from_json(text) == Preprocess((16, 16), 1, "stretch")
    assert json.loads(text)["pixel_range"] == [0, 255]


def test_calibration_sees_training_images_of_every_class_without_augmentation(exported):
    experiment = exported.run.experiment.replace(["data.augment=[{name: rotation, degrees: 90}]"])
    inputs = open_inputs(experiment, exported.run.classes)
    plain = open_inputs(exported.run.experiment, exported.run.classes)
    np.testing.assert_array_equal(inputs.calibration, plain.calibration)
    assert inputs.calibration.shape == (64, 16, 16, 1)
    seen = {image.tobytes() for image in inputs.calibration}
    assert len(seen) > 60
    tested = np.concatenate([pixels for pixels, _ in real_images(inputs.test, inputs.task, 64)])
    assert len(tested) == 899
    assert not seen & {image.tobytes() for image in tested}


@pytest.fixture
def segmentation_run(tmp_path) -> Run:
    """A finished run of an untrained network that labels pixels."""
    overrides = [
        "task=segmentation",
        "data={source: {name: scenes, train: 24, test: 12}, image_size: [24, 24], channels: 3, batch_size: 5}",
        "model={name: unet, backbone: resnet8, decoder_width: 4}",
        "export={variants: [float32, int8], calibration_images: 8}",
    ]
    experiment = Experiment.load("digits", overrides)
    run = Run.create(tmp_path / "scenes", experiment)
    run.note(classes=list(classes_of(experiment)))
    set_seed(0)
    image = keras.Input((24, 24, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    model = keras.Model(image, keras.layers.Conv2D(len(run.classes), 1)(x))
    write_atomically(run.model_path, model.save)
    return run


def classes_of(experiment: Experiment) -> tuple[str, ...]:
    from pipeline.registry import SOURCES

    return SOURCES.build(experiment.data.source.name, **experiment.data.source.options).classes


def test_segmentation_is_exported_and_compared_by_the_bootstrap(segmentation_run):
    done = export(segmentation_run)
    assert done.report_path.stat().st_size < 5_000_000
    table = done.results.set_index("variant")
    assert list(table.index) == ["float32", "int8"]
    assert set(table["measure"]) == {"mean_iou"}
    assert set(table["n"]) == {12}
    assert table.loc["float32", "max_abs_difference"] < 1e-4
    assert table.loc["float32", "verdict"] == "ok"
    assert table.loc["int8", "mean_abs_difference"] < 0.05
    model = LiteModel.open(segmentation_run.export_dir / "int8.tflite")
    assert model.output.shape == (1, 24, 24, len(segmentation_run.classes))


def test_exporting_fewer_variants_leaves_no_stale_file(segmentation_run):
    segmentation_run.export_dir.mkdir()
    stale = segmentation_run.export_dir / "float16.tflite"
    stale.write_bytes(b"of an earlier model")
    done = export(segmentation_run.path, ["export.variants=[float32]"])
    assert not stale.exists()
    assert list(done.results["variant"]) == ["float32"]


def test_overrides_that_belong_to_the_model_are_refused(exported, user_error):
    with user_error("export", "data.source", "trained model"):
        export(exported.run, ["model.filters=[4]"])


def test_a_source_with_other_classes_is_refused(exported, tmp_path, user_error):
    table = tmp_path / "others.csv"
    rows = []
    for i in range(12):
        name = f"{i}.png"
        keras.utils.save_img(tmp_path / name, np.full((8, 8, 1), 20 * i, np.uint8), scale=False)
        rows.append({"path": name, "label": "ab"[i % 2], "split": ["train", "test"][i // 6]})
    pd.DataFrame(rows).to_csv(table, index=False)
    with user_error("classes"):
        export(exported.run, [f"data.source={{name: table, path: {table}}}"])


def test_unfinished_run_and_unreadable_model_are_one_sentence(exported, tmp_path, user_error):
    with user_error("nowhere", "does not exist"):
        export(tmp_path / "nowhere")
    run = Run.create(tmp_path / "broken", exported.run.experiment)
    run.note(classes=list(exported.run.classes))
    with user_error("has not finished training"):
        export(run.path)
    run.model_path.write_bytes(exported.run.model_path.read_bytes()[:1000])
    with user_error("model.keras", "cannot be read as a Keras model"):
        export(run.path)


@pytest.mark.parametrize(
    "code",
    [
        "import pipeline.export; pipeline.export",
        "from pipeline import export; export",
        "import pipeline.export.latency, pipeline; pipeline.export",
        "from pipeline.export import latency; from pipeline import export; export",
    ],
)
def test_export_is_callable_whatever_is_imported_first(code):
    check = (
        f"{code}\nimport sys\nfrom pipeline import export\nassert callable(export)\nimport pipeline.export.recipes\n"
    )
    check += "assert pipeline.export is export and 'tensorflow' not in sys.modules"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", check], check=True, cwd=root)


def test_verdict_of_the_table_is_that_of_its_interval(exported):
    margin = exported.run.experiment.export.margin
    measure = share_of("correct")
    for row in exported.results.itertuples():
        score, comparison = repeat_comparison(exported.run.export_dir, measure, row.variant)
        assert score == row.score
        assert row.verdict == verdict(comparison, margin)
        assert (row.verdict == "ok") == (row.images_needed <= row.n)
