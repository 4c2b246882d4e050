"""CIFAR-10 with the ResNet-8 of MLPerf Tiny: its published training against ours, both as int8 files; then 4 bits.

    python -m benchmarks.compression.cifar10 DATA FOLDER [--epochs 15]

DATA holds train/<class>/*.jpg and test/<class>/*.jpg. Everything is kept in FOLDER; what is there is not made again.
The baseline is the benchmark's own recipe (github.com/mlcommons/tiny, image classification: Adam at 1e-3 times 0.99 per
epoch, batches of 32, L2 of 1e-4 on the kernels, rotations of 15 degrees, shifts of 10 %, flips) in plain Keras `fit`
for the same number of epochs, where the benchmark takes 500; its file is the pipeline's own post-training int8. Ours is
`pipeline train` and `pipeline export`; half the bytes is `pipeline compress` to kernels of 4 bits.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

import pipeline  # noqa: F401  sets TensorFlow's environment

PUBLISHED = 98_496  # bytes of the int8 reference file of MLPerf Tiny


def main() -> None:
    """Make what is missing, then print one table of files that answered the same 5,000 images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data, epochs = arguments.data, arguments.epochs
    ours, half, baseline = (arguments.folder / name for name in ("ours", "half", "baseline.keras"))
    files = "export.variants=[float32, int8]"
    settings = [
        *("model=resnet8", f"data.source.path={data}", "data.batch_size=64", f"train.epochs={epochs}", files),
        *("task.label_smoothing=0.0", "train.optimizer.learning_rate=0.1"),
    ]
    four_bits = ["compress.qat.bits=4", f"compress.qat.epochs={epochs // 2}", "compress.qat.learning_rate=0.02"]
    if not baseline.exists():
        train_baseline(data, baseline, epochs)
    for command in (
        ["train", "cifar10_folder", *settings, "--run", ours],
        ["eval", ours],
        ["export", ours],
        ["compress", ours, "--qat", "--distill", *four_bits, "--out", half],
    ):
        subprocess.run([sys.executable, "-m", "pipeline", *map(str, command)], check=True)
    print(tabulate_all(ours, baseline, {"ours": ours / "export/int8.tflite", "half": half / "export/w4a8.tflite"}))


def train_baseline(data: Path, path: Path, epochs: int) -> None:
    """Train by the published settings, with Keras's own loader, augmentation and `fit`."""
    import keras
    import tensorflow as tf

    from pipeline.registry import MODELS

    keras.utils.set_random_seed(0)
    model = MODELS.build("resnet8", (32, 32, 3), 10)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            layer.kernel.regularizer = keras.regularizers.L2(1e-4)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    augment = keras.Sequential(
        [
            keras.layers.RandomRotation(15 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    images = keras.utils.image_dataset_from_directory(data / "train", image_size=(32, 32), batch_size=None, seed=0)
    batches = images.cache().shuffle(50_000, seed=0).batch(32)
    batches = batches.map(lambda x, y: (augment(x, training=True), y), tf.data.AUTOTUNE).prefetch(2)
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3 * 0.99**epoch)
    model.fit(batches, epochs=epochs, verbose=2, callbacks=[rate])
    model.save(path)


def tabulate_all(run: Path, baseline: Path, files: Mapping[str, Path]) -> str:
    """Score every file on the run's test images, paired with the baseline's int8 file, and time them together."""
    import keras

    from pipeline.evaluation.scoring import keras_predictor
    from pipeline.export.agreement import compare_on
    from pipeline.export.inputs import open_inputs, real_images
    from pipeline.export.latency import measure_all
    from pipeline.export.results import tabulate
    from pipeline.export.variants import build_variants, describe_model
    from pipeline.runs import Run

    opened = Run.open(run)
    inputs = open_inputs(opened.experiment, opened.classes)
    model = keras.saving.load_model(baseline, compile=False)
    facts = describe_model("resnet8", model, inputs.task.classes)
    [(_, content)] = build_variants(model, ["int8"], inputs.task.decode, inputs.calibration, facts)
    file = baseline.with_suffix(".tflite")
    file.write_bytes(content)
    every = {"baseline": file, **files}
    batches = real_images(inputs.test, inputs.task, 250)
    agreement = compare_on(batches, inputs.task, keras_predictor(model, inputs.task), every)
    latency = measure_all(list(every.values()), threads=(1,))
    table = tabulate(agreement, inputs.task, every, latency, 0.5)
    columns = ["variant", "bytes", "latency_ms_p50", "score", "low", "high", "n", "difference", "p_value", "verdict"]
    pd.set_option("display.width", 200)
    return f"{table[columns].round(5).to_string(index=False)}\nMLPerf Tiny's reference file: {PUBLISHED:,} bytes"


if __name__ == "__main__":
    main()
