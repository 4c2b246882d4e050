"""keras.applications through channel pruning and quantisation-aware training: what works, and how fast it is.

    python -m benchmarks.compression.applications [--networks ResNet50 ...] [--size 96]

Random weights: structure and speed only. Prints the support table of docs/compression.md.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

import pipeline  # noqa: F401  sets TensorFlow's environment
from pipeline.export.compress import calibrate, convert_quantized, float_islands, mask_channels, prune_channels
from pipeline.export.compress.quantize_aware import quantize_aware
from pipeline.export.convert import convert
from pipeline.export.latency import measure_all

NETWORKS = (
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetV2B0",
    "ResNet50",
    "DenseNet121",
    "InceptionV3",
    "Xception",
    "NASNetMobile",
    "ConvNeXtTiny",
)
HEAD = ("network", "parameters", "pruned", "apart from masked", "float32 ms", "pruned ms", "faster", "QAT", "float")


def main() -> None:
    """Print one row per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for name in arguments.networks:
        print("| " + " | ".join(row(name, arguments.size)) + " |", flush=True)
        keras.backend.clear_session()


def row(name: str, size: int) -> tuple[str, ...]:
    """Prune half of a network's channels, measure both, and train and convert it with rounding."""
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(input_shape=(size, size, 3), weights=None, classes=1000, classifier_activation=None)
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3)).astype("float32")
    pruned = prune_channels(model, 0.5)
    expected = mask_channels(model, 0.5)(images, training=False).numpy()
    apart = np.abs(pruned(images, training=False).numpy() - expected).max() / np.abs(expected).max()
    before, after = _time(model, pruned)
    aware = quantize_aware(model)
    aware.compile(keras.optimizers.SGD(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = aware.train_on_batch(images, np.arange(8))
    calibrate(aware, [images])
    content = convert_quantized(aware, lambda outputs: outputs)
    return (
        name,
        f"{model.count_params():,}",
        f"{pruned.count_params():,}",
        f"{apart:.0e}",
        f"{before:.2f}",
        f"{after:.2f}",
        f"{before / after:.2f}×",
        f"loss {loss:.2f}, {len(content) / 2**20:.1f} MiB",
        str(len(float_islands(aware))),
    )


def _time(*models: keras.Model) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.tflite" for index in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            path.write_bytes(convert(model, lambda outputs: outputs))
        measured = measure_all(paths, threads=(1,))
        return [measured[path, 1].p50 for path in paths]


if __name__ == "__main__":
    main()
