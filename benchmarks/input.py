"""Images per second from JPEG (500×375) to augmented 224×224 batches: ours, Keras layers, and a PyTorch DataLoader.

    python -m benchmarks.input [--torch-python PYTHON]     three sides alternate, medians, ratios
    python -m benchmarks.input --memory                    peak memory of one epoch over 50,000 files

PYTHON is an interpreter that has torch, Pillow and NumPy (or set TORCH_PYTHON); without it that side is not measured.
Every side decodes, resizes as its library does by default, and flips, rotates, zooms, shifts and changes brightness,
contrast and saturation by the same ranges. Ours is what `pipeline train` runs on files that do not fit the cache.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline  # noqa: F401  sets TensorFlow's environment

BATCH = 64
SIZE = (224, 224)
WARM_UP = 2  # batches before the clock starts
GEOMETRY_AND_COLOR = [
    ("flip", {}),
    ("rotation", {"degrees": 15.0}),
    ("zoom", {"amount": 0.2}),
    ("translation", {"height": 0.1, "width": 0.1}),
    ("brightness", {"amount": 0.2}),
    ("contrast", {"amount": 0.2}),
    ("saturation", {"amount": 0.2}),
]
POLICY = [("rand_augment", {"operations": 2, "magnitude": 9.0})]

Batches = Callable[[], Iterator]


def write_images(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> None:
    """Write textured JPEGs of quality 90 into two class folders; noise of several scales has the detail of photos."""
    rng = np.random.default_rng(0)
    for index in range(count):
        picture = np.zeros((size[1], size[0], 3))
        for cells, weight in ((4, 90), (16, 50), (64, 30), (256, 12)):
            coarse = rng.normal(0, weight, (cells, cells, 3))
            layers = [Image.fromarray(coarse[..., c].astype(np.float32)).resize(size, Image.BICUBIC) for c in range(3)]
            picture += np.stack([np.asarray(layer) for layer in layers], axis=-1)
        path = folder / f"class{index % 2}" / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(picture + 120, 0, 255).astype(np.uint8)).save(path, quality=90)


def ours(folder: Path, augment: list) -> Batches:
    """Return our batches, decoded anew from files."""
    import tensorflow as tf

    from pipeline.data.files import labelled_files
    from pipeline.data.input import prepare
    from pipeline.data.preprocess import Preprocess

    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    split = labelled_files(folder, names, [int(name[5]) for name in names])
    options = {"fields": ("label",), "classes": 2, "cache_bytes": 0, "max_corrupt": 0.0, "name": "train"}
    prepared = prepare(split, Preprocess(SIZE), **options)
    dataset = prepared.training(
        batch_size=BATCH,
        augment=augment,
        seed=0,
        start_step=0,
        total_steps=10**6,
        encode=lambda batch: tf.one_hot(batch["label"], 2),
    )
    return lambda: iter(dataset)


def keras_layers(folder: Path, *, policy: bool) -> Batches:
    """Return Keras's own batches: its folder reader and its preprocessing layers in a map."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    if policy:
        stack = [layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9)]
    else:
        stack = [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(15 / 360),
            layers.RandomZoom(0.2),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomBrightness(0.2, value_range=(0, 255)),
            layers.RandomContrast(0.2, value_range=(0, 255)),
            layers.RandomSaturation((0.4, 0.6), value_range=(0, 255)),
        ]

    @tf.autograph.experimental.do_not_convert
    def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in stack:
            images = layer(images, training=True)
        return images, labels

    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=SIZE, batch_size=BATCH, label_mode="categorical", verbose=False
    )
    dataset = dataset.repeat().map(change, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return lambda: iter(dataset)


def rate(batches: Batches, count: int) -> float:
    """Return images per second over `count` batches of a fresh iterator, after the warm-up."""
    iterator = batches()
    for _ in range(WARM_UP):
        next(iterator)
    start = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return count * BATCH / (time.perf_counter() - start)


class TorchLoader:
    """The PyTorch side, in a process of another interpreter that answers one rate for each line it is sent."""

    def __init__(self, python: str, folder: Path) -> None:
        script = Path(__file__).with_name("input_torch.py")
        self._process = subprocess.Popen(
            [python, str(script), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def rate(self, count: int) -> float:
        print(count, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(sides: dict[str, Callable[[], float]], rounds: int, targets: dict[str, float]) -> None:
    """Measure the sides in turn and print medians, and the median of the rounds' ratios against the first side."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            rates[name].append(measure())
    first = next(iter(rates))
    for name, measured in rates.items():
        line = f"  {name:<28}{statistics.median(measured):8.0f} images/s"
        if name in targets:
            ratio = statistics.median(a / b for a, b in zip(rates[first], measured, strict=True))
            line += f"   ours is {ratio:5.2f}× (target {targets[name]}×)"
        print(line, flush=True)


def speed(torch_python: str | None) -> None:
    """Print both comparisons."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder, 400)
        torch = TorchLoader(torch_python, folder) if torch_python else None
        fused, layers = ours(folder, GEOMETRY_AND_COLOR), keras_layers(folder, policy=False)
        sides = {"ours": lambda: rate(fused, 12), "Keras layers": lambda: rate(layers, 6)}
        if torch:
            sides["PyTorch DataLoader, 2 workers"] = lambda: torch.rate(12)
        print("flip, rotate, zoom, shift, brightness, contrast, saturation")
        compare(sides, 5, {"Keras layers": 3, "PyTorch DataLoader, 2 workers": 1})
        if torch:
            torch.close()
        else:
            print("  PyTorch DataLoader: not measured (give --torch-python)")
        policy, keras_policy = ours(folder, POLICY), keras_layers(folder, policy=True)
        print("RandAugment, 2 operations of magnitude 9")
        compare(
            {"ours": lambda: rate(policy, 8), "Keras RandAugment": lambda: rate(keras_policy, 2)},
            3,
            {"Keras RandAugment": 8},
        )


def memory(files: int = 50_000, distinct: int = 300) -> None:
    """Print the peak memory of the process that goes once through `files` JPEGs that do not fit the cache."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder, distinct, SIZE)
        originals = sorted(folder.rglob("*.jpg"))
        for index in range(files - distinct):
            original = originals[index % distinct]
            os.link(original, original.with_name(f"copy{index:06}.jpg"))
        start = time.perf_counter()
        iterator = ours(folder, GEOMETRY_AND_COLOR)()
        verified = time.perf_counter()
        for _ in range(files // BATCH):
            next(iterator)
        done = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{files:,} files: checked in {verified - start:.0f} s, one epoch in {done - verified:.0f} s")
        print(f"peak memory of the process {peak:.2f} GiB (target below 2)")


def main() -> None:
    """Run the comparison, or the memory measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON"))
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
    else:
        speed(arguments.torch_python)


if __name__ == "__main__":
    main()
