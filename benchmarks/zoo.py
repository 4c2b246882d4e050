"""The table of docs/zoo.md: what every model of the registry costs, and what it learns in a short training.

    python -m benchmarks.zoo                    # count and measure what is missing, the smallest models first
    python -m benchmarks.zoo --minutes 20       # begin no further measurement after that
    python -m benchmarks.zoo --write            # write docs/zoo.md of what was measured

Each figure is kept in docs/zoo.csv as soon as it is known, so that the table can be made in pieces, on any day; it is
committed with the page.
"""

import argparse
import datetime
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pipeline  # noqa: F401  sets TensorFlow's environment, which has to be before Keras is imported

# isort: split
import keras
import numpy as np
import pandas as pd

from pipeline.config import Experiment
from pipeline.data.opening import decode_split
from pipeline.evaluation.scoring import keras_predictor, load_model, score
from pipeline.export.latency import measure_all
from pipeline.export.variants import build_variants, describe_model
from pipeline.models.inspect import summarize, summary
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS
from pipeline.runs import environment, write_atomically
from pipeline.training.setup import open_task
from pipeline.training.train import train

PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"
TABLE = PAGE.with_suffix(".csv")
FILES = ("float32", "int8")
DIGITS_UP_TO = 300  # million multiply-accumulates at the size of the digits: larger ones train for minutes to an hour
EPOCHS = 10
SETTINGS = ["data.augment=[]", f"train.epochs={EPOCHS}"]
COLUMNS = ["input", "classes", "parameters", "macs", "measured", "float32_bytes", "float32_ms", "int8_bytes", "int8_ms"]
COLUMNS += ["digits_macs", "accuracy", "low", "high", "n"]
TEXT = """# Zoo

What every model of the registry costs, and what it learns in a short training: a first idea of which to try. The
command `python -m benchmarks.zoo --write` makes this page.

- **Parameters and multiply-accumulates** are counted at the model's reference input and classes.
- **Files and milliseconds** are of that same model with new weights, on which neither depends: the float32 and the int8
  file, as `pipeline export` makes them, and the median time of one image on one thread, the two files in turns.
- **Digits** is the accuracy on the {images} test images of the preset `digits` with its 95 % interval, after {epochs}
  epochs over its 808 training images, of 32×32×1 pixels, without augmentation and with one seed:
  `pipeline train digits model=NAME {settings}`.
  It says how soon a network learns there, not how good it becomes: one that was made for large photographs does not in
  so few steps. A segmentation network has a dash, and so has one of more than {digits} million multiply-accumulates at
  that size, which trains for minutes to an hour.

All files are measured before the trainings, the smallest first; what has not been yet has a dash, too.

Milliseconds measured on {measured}.
Where other work shares the cores, they are upper bounds; believe the ratio of a row's two files, and only for such a
processor. Without instructions for products of bytes (avx512_vnni, avx_vnni, asimddp in `pipeline doctor`) int8 makes a
file small, and seldom much faster.

"""
HEAD = (
    "| model | input → classes | parameters | MACs (M) | float32 KiB | int8 KiB | float32 ms | int8 ms | digits |",
    "|---|---|--:|--:|--:|--:|--:|--:|---|",
)


def count(name: str) -> dict[str, Any]:
    """Count a model at its reference input."""
    cost = summary(name)
    shape = "×".join(map(str, cost.input_shape))
    return {"input": shape, "classes": cost.classes, "parameters": cost.parameters, "macs": cost.macs}


def measure_files(name: str) -> dict[str, Any]:
    """Write a model's files, and return their bytes, their median milliseconds on one thread, and where and when."""
    keras.utils.set_random_seed(0)
    model = MODELS.build(name)
    classes = [str(index) for index in range(model.output.shape[-1])]
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input.shape[1:]), np.uint8)
    facts = describe_model(name, model, classes)
    machine, day = environment(), datetime.datetime.now(datetime.UTC)
    processor = f"{machine['processor']} ({', '.join(machine['instructions'])})"
    row = {"measured": f"{machine['cores']} cores of an {processor}, {day.day} {day:%B %Y}"}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for variant, content in build_variants(model, FILES, keras.ops.softmax, images, facts):
            paths[variant] = Path(folder) / f"{variant}.tflite"
            paths[variant].write_bytes(content)
        latency = measure_all(list(paths.values()), threads=(1,))
        for variant, path in paths.items():
            row |= {f"{variant}_bytes": path.stat().st_size, f"{variant}_ms": latency[path, 1].p50}
    return row


def learn_digits(name: str) -> dict[str, float]:
    """Train a model on the digits for a short time, and return its accuracy on the test images, with its interval.

    Only its multiply-accumulates at their size are returned where it has too many, or is no classifier.
    """
    with without_values():
        small = MODELS.build(name, (32, 32, 1), 10)
    row = {"digits_macs": summarize(small).macs}
    if row["digits_macs"] > 1e6 * DIGITS_UP_TO or len(small.output.shape) > 2:
        return row
    experiment = Experiment.load("digits", [f"model={name}", *SETTINGS])
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(train(experiment, Path(folder) / "run"))
    source, task = open_task(experiment)
    prepared = decode_split(experiment.data, source.splits["test"], task.fields, len(source.classes), "test")
    scored = score(keras_predictor(model, task), prepared, task, experiment.data.batch_size, worst=0)
    found = scored.intervals(task)["accuracy"]
    return row | {"accuracy": found.value, "low": found.low, "high": found.high, "n": found.n}


def missing(table: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield what is still to measure, as a model and the function for it: counts, files, digits, small models first.

    All files come before all trainings, so that one processor has the milliseconds of all.
    """
    names = [name for name in MODELS.names() if ":" not in name]
    yield from ((name, count) for name in names if name not in table.index)
    for column, measure in (("int8_ms", measure_files), ("digits_macs", learn_digits)):
        yield from ((name, measure) for name, row in table.sort_values("macs").iterrows() if np.isnan(row[column]))


def read(path: Path) -> pd.DataFrame:
    """Read what was measured, by the model's name; nothing at the first time."""
    if path.exists():
        return pd.read_csv(path, index_col="name")
    return pd.DataFrame(columns=COLUMNS, index=pd.Index([], name="name"))


def fill(path: Path, seconds: float) -> None:
    """Measure what is missing, and write the table after each measurement; begin none after so many seconds."""
    start = time.monotonic()
    while (job := next(missing(read(path)), None)) is not None and time.monotonic() - start < seconds:
        name, measure = job
        found = measure(name)
        logging.info("%s: %s", name, found)
        table = read(path).astype(object)
        for column, value in found.items():
            table.loc[name, column] = value
        write_atomically(path, table.to_csv())
        keras.backend.clear_session()


def line(name: str, row: pd.Series) -> str:
    """Write one model as a line of the table."""

    def cell(column: str, factor: float, form: str, significant: str = "") -> str:
        rounded = float(format(factor * row[column], significant))
        return "—" if np.isnan(rounded) else format(rounded, form)

    kib = [cell(f"{file}_bytes", 1 / 1024, ",.0f") for file in FILES]
    ms = [cell(f"{file}_ms", 1, ",g", significant=".3g") for file in FILES]
    value, low, high = (cell(column, 100, ".1f") for column in ("accuracy", "low", "high"))
    digits = value if value == "—" else f"{value} % [{low}, {high}]"
    counts = [f"{row['input']} → {row['classes']:.0f}", f"{row['parameters']:,.0f}", f"{row['macs'] / 1e6:,.1f}"]
    return f"| {' | '.join([name, *counts, *kib, *ms, digits])} |"


def page(table: pd.DataFrame) -> str:
    """Write the page of a table of measurements, the smallest model first."""
    facts = {"digits": DIGITS_UP_TO, "epochs": EPOCHS, "settings": " ".join(SETTINGS)}
    facts |= {"images": f"{table['n'].max():.0f}", "measured": "; ".join(sorted(set(table["measured"].dropna())))}
    rows = [line(name, row) for name, row in table.sort_values("macs").iterrows()]
    return "\n".join([*TEXT.format(**facts).splitlines(), *HEAD, *rows]) + "\n"


def main() -> None:
    """Measure for a while, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no measurement after so many")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} of what is known, and measure nothing")
    arguments = parser.parse_args()
    if arguments.write:
        PAGE.write_text(page(read(TABLE)), encoding="utf-8")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fill(TABLE, 60 * arguments.minutes)


if __name__ == "__main__":
    main()
