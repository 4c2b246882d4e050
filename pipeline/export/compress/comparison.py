"""What compression has won and lost: the files of a run beside those of the run it was made from, measured together."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import Experiment
from pipeline.evaluation.scoring import keras_predictor, load_model
from pipeline.export.agreement import Agreement, compare_on
from pipeline.export.compress.zipped import zipped_size
from pipeline.export.inputs import Inputs, open_inputs, real_images
from pipeline.export.latency import Latency, measure_all
from pipeline.export.results import tabulate
from pipeline.export.variants import build_variants, describe_model
from pipeline.runs import Run

log = logging.getLogger(__name__)

BASE = "base "  # begins the names of the original's files in tables
_AS_FAST = 1.1  # equal files differ by as much
_UNCOMPRESSED = ("float32", "int8")  # what the base gives without compression


def compare_with_base(
    experiment: Experiment, inputs: Inputs, agreement: Agreement, paths: Mapping[str, Path]
) -> pd.DataFrame | None:
    """Return one row per file, the base's float32 and int8 first; None where the base is no longer there.

    The columns are those of `tabulate`, with `difference` against the base's Keras model on the same test images, and
    `times_smaller`, `times_faster` (of the base's float32 file, on one thread), with the 10th and 90th percentile of
    the ratio over rounds that alternated between the files; `zipped` is bytes after deflate, as in a download.
    """
    base = Run(Path(experiment.compress.base))
    if not base.finished:
        log.info("%s, which this run was made from, is not there: not compared", base.path)
        return None
    log.info("comparing with %s, which this run was made from", base.path)
    with tempfile.TemporaryDirectory() as folder:
        before, base_paths = _answer(base, experiment, inputs, Path(folder))
        together = replace(before, files={**before.files, **agreement.files})
        every = {**base_paths, **paths}
        latency = measure_all(list(every.values()), threads=(1,))
        table = tabulate(together, inputs.task, every, latency, experiment.export.margin)
        table["zipped"] = [zipped_size(path.read_bytes()) for path in every.values()]
    table = table.drop(columns=["max_abs_difference", "mean_abs_difference"])
    return table.assign(**_ratios(table["bytes"], [latency[path, 1] for path in every.values()]))


def shorten(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that fit a terminal, rounded; scores and differences are in percent."""
    return pd.DataFrame(
        {
            "file": table["variant"],
            "KiB": (table["bytes"] / 2**10).map(_short),
            "zip": (table["zipped"] / 2**10).map(_short),
            "smaller": table["times_smaller"].map("{:.1f}×".format),
            "ms": table["latency_ms_p50"].map("{:.3g}".format),
            "faster": table["times_faster"].map("{:.2f}×".format),
            "score": [f"{100 * score:.2f}" for score in table["score"]],
            "points": [f"{points:+.2f}" for points in table["difference"]],
            "verdict": table["verdict"],
        }
    )


def describe(table: pd.DataFrame) -> str:
    """Say in one sentence what the fastest file without a significant loss has won; of equally fast, the smallest."""
    safe = table[(table["verdict"] == "ok") & ~table["variant"].str.startswith(BASE)]
    if safe.empty:
        return "compressed: for no file a loss beyond the margin against the original is excluded"
    fastest = safe[safe["latency_ms_p50"] <= _AS_FAST * safe["latency_ms_p50"].min()]
    best = fastest.loc[fastest["bytes"].idxmin()]
    return (
        f"compressed: {best['variant']} has {best['times_smaller']:.1f} times fewer bytes than the original float32 "
        f"file and is {best['times_faster']:.1f} times as fast ({best['times_faster_p10']:.1f} to "
        f"{best['times_faster_p90']:.1f}), {best['difference']:+.2f} points"
    )


def _answer(base: Run, experiment: Experiment, inputs: Inputs, folder: Path) -> tuple[Agreement, dict[str, Path]]:
    """Write the base's files, and let them and its Keras model answer the test images."""
    own, data = base.experiment, experiment.data
    if own.data.image_size != data.image_size:
        seen = own.data.model_copy(update={"source": data.source})
        inputs = open_inputs(own.model_copy(update={"data": seen, "export": experiment.export}), base.classes)
    model = load_model(base)
    paths = {}
    facts = describe_model(own.model.name, model, inputs.task.classes)
    for variant, content in build_variants(model, _UNCOMPRESSED, inputs.task.decode, inputs.calibration, facts):
        paths[BASE + variant] = folder / f"{variant}.tflite"
        paths[BASE + variant].write_bytes(content)
    batches = real_images(inputs.test, inputs.task, data.batch_size)
    return compare_on(batches, inputs.task, keras_predictor(model, inputs.task), paths), paths


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratios(sizes: pd.Series, latency: Sequence[Latency]) -> dict[str, np.ndarray]:
    rounds = min(len(timing.rounds) for timing in latency)
    times = np.array([timing.rounds[:rounds] for timing in latency])
    low, median, high = np.percentile(times[0] / times, (10, 50, 90), axis=1)
    return {
        "times_smaller": sizes.iloc[0] / sizes,
        "times_faster": median,
        "times_faster_p10": low,
        "times_faster_p90": high,
    }
