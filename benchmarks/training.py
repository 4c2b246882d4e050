"""Training steps on the CPU, wall clock and processor time: ours, Keras `fit` with and without its switches, PyTorch.

    python -m benchmarks.training [--torch-python PYTHON] [--models lenet5 ...] [--rounds N]

PYTHON is an interpreter that has torch and NumPy (or set TORCH_PYTHON); without it that side is not measured.
Every side trains the same architecture with SGD and momentum on batches that lie ready in memory, forward, backward,
update and accuracy included. Each runs in a process of its own, because oneDNN is chosen when TensorFlow starts; the
sides take turns, so that whatever else the machine does falls on all of them. The processor time of a step, all
threads together, hardly feels other programs: on a busy machine believe it rather than the wall clock.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Step = tuple[float, float]  # seconds of one step: wall clock, processor

CLASSES, BATCHES = 10, 4  # distinct batches that a side goes through again and again


@dataclass(frozen=True)
class Case:
    """One architecture: its options, its input, and how many steps one measurement takes."""

    model: str
    shape: tuple[int, int, int]
    batch_size: int
    steps: int
    options: dict[str, Any]


CASES = {
    "lenet5": Case("lenet5", (32, 32, 1), 128, 64, {}),
    "resnet18": Case("resnet18", (32, 32, 3), 128, 8, {"width": 16, "stem": "small"}),
    "mobilenet_v2": Case("mobilenet_v2", (96, 96, 3), 64, 8, {"width": 0.35, "stem": "imagenet"}),
}

# Environment and settings of each side; `target` is what ours must be times this side.
SIDES: dict[str, dict[str, Any]] = {
    "ours": {},
    "Keras fit as it comes": {"onednn": None, "target": 2.5},
    "Keras fit, oneDNN off": {"onednn": "0", "target": 2.5},
    "Keras fit, oneDNN, XLA, K steps": {"onednn": "1", "xla": True, "many": True, "target": 1.0},
    "Keras fit, oneDNN, K steps": {"onednn": "1", "xla": False, "many": True, "target": 1.0},
    "PyTorch": {"target": 1.2},
}


def main() -> None:
    """Measure every case, or be one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON"))
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--side", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(*arguments.side)
        return
    for name in arguments.models:
        compare(CASES[name], arguments)


def compare(case: Case, arguments: argparse.Namespace) -> None:
    """Let the sides take turns; print medians, and the median of the rounds' ratios."""
    print(f"{case.model}, {case.shape[0]}×{case.shape[1]}, batch {case.batch_size}", flush=True)
    names = [name for name in arguments.sides if name != "PyTorch" or arguments.torch_python]
    sides = {name: Side(case, name, arguments.torch_python) for name in names}
    measured: dict[str, list[Step]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            measured[name].append(side.measure())
    for side in sides.values():
        side.close()
    for name, steps in measured.items():
        wall, processor = (statistics.median(values) for values in zip(*steps, strict=True))
        line = f"  {name:<34}{case.batch_size / wall:8.0f} images/s, a step {1000 * wall:7.1f} ms"
        line += f", processor {1000 * processor:7.1f} ms"
        if name != "ours" and "ours" in measured:
            pairs = list(zip(steps, measured["ours"], strict=True))
            ratios = [statistics.median(theirs[i] / ours[i] for theirs, ours in pairs) for i in range(2)]
            line += f"   ours is {ratios[0]:5.2f}× (processor {ratios[1]:5.2f}×, target {SIDES[name]['target']}×)"
        print(line, flush=True)
    if "PyTorch" not in sides:
        print("  PyTorch: not measured (give --torch-python)")


class Side:
    """A process that answers the seconds of a step, wall clock and processor, for each line it is sent."""

    def __init__(self, case: Case, name: str, torch_python: str | None) -> None:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
        if onednn := SIDES[name].get("onednn"):
            environment["TF_ENABLE_ONEDNN_OPTS"] = onednn
        if name == "PyTorch":
            script = Path(__file__).with_name("training_torch.py")
            command = [torch_python, str(script), case.model, str(case.batch_size), str(case.steps)]
        else:
            command = [sys.executable, "-m", "benchmarks.training", "--side", case.model, name]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.measure()  # compiles

    def measure(self) -> Step:
        print("go", file=self._process.stdin, flush=True)
        wall, processor = self._process.stdout.readline().split()
        return float(wall), float(processor)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve(model: str, side: str) -> None:
    """Answer each line on stdin with the seconds of a step on stdout."""
    case = CASES[model]
    measure = ours(case) if side == "ours" else keras_fit(case, **SIDES[side])
    for _ in sys.stdin:
        print(*measure(), flush=True)


def clocks() -> Step:
    """Return wall clock and processor time, all threads together, in seconds."""
    return time.perf_counter(), time.process_time()


def per_step(start: Step, end: Step, steps: int) -> Step:
    """Return the seconds of one step on both clocks."""
    return (end[0] - start[0]) / steps, (end[1] - start[1]) / steps


def batches(case: Case) -> Any:
    """Return an endless dataset of random images and labels that lie ready in memory."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCHES, case.batch_size, *case.shape)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, (BATCHES, case.batch_size))]
    dataset = tf.data.Dataset.from_tensor_slices((images, targets)).repeat()
    return dataset.prefetch(tf.data.AUTOTUNE)


def ours(case: Case) -> Callable[[], Step]:
    """Return a measurement of the loop's own compiled call, as the rule of `auto` sets it up."""
    import pipeline  # noqa: F401, I001  sets TensorFlow's environment
    import contextlib

    import keras
    import tensorflow as tf

    from pipeline.sections import Train
    from pipeline.registry import MODELS, OPTIMIZERS, SCHEDULES, TASKS
    from pipeline.training.pointwise import faster_ops
    from pipeline.training.runtime import choose
    from pipeline.training.step import Meters, Parts, training_call

    keras.utils.set_random_seed(0)
    settings = Train(optimizer="sgd")
    runtime = choose(settings, batch_size=case.batch_size, image_size=case.shape[:2])
    model = MODELS.build(case.model, case.shape, CLASSES, **case.options)
    task = TASKS.build("classification", tuple("0123456789"), None)
    optimizer = OPTIMIZERS.build("sgd", model, None, learning_rate=0.01, momentum=0.9)
    parts = Parts(model, task, optimizer, SCHEDULES.build("constant", 0.01, 1), None, Meters(task), Meters(task))
    call, iterator = training_call(parts, runtime, 1), iter(batches(case))

    def measure() -> Step:
        start, left = clocks(), case.steps
        with faster_ops(model) if runtime.cpu_ops else contextlib.nullcontext():
            while left:
                steps = min(runtime.steps_per_call, left)
                call(iterator, tf.constant(0, tf.int64), tf.constant(steps), tf.constant(1.0)).numpy()
                left -= steps
        return per_step(start, clocks(), case.steps)

    return measure


def keras_fit(case: Case, *, xla: bool | str = "auto", many: bool = False, **_: Any) -> Callable[[], Step]:
    """Return a measurement of `fit` between the ends of its first and its last call, so without its start."""
    import keras

    from pipeline.registry import MODELS

    keras.utils.set_random_seed(0)
    model = MODELS.build(case.model, case.shape, CLASSES, **case.options)
    per_call = min(case.steps, 32) if many else 1
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=xla,
        steps_per_execution=per_call,
    )
    dataset = batches(case)

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.ends: list[Step] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(clocks())

    def measure() -> Step:
        clock = Clock()
        model.fit(dataset, steps_per_epoch=per_call + case.steps, verbose=0, callbacks=[clock])
        return per_step(clock.ends[0], clock.ends[-1], case.steps)

    return measure


if __name__ == "__main__":
    main()
