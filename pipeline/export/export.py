"""From a finished run to measured .tflite files: convert once, quantise every variant, compare each with Keras."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from pipeline.config import FREE
from pipeline.evaluation.report import write_report
from pipeline.evaluation.scoring import keras_predictor, load_model
from pipeline.export import certificate
from pipeline.export.agreement import compare_on
from pipeline.export.answers import write_answers
from pipeline.export.certify import Evidence, certify
from pipeline.export.changes import write_changes
from pipeline.export.compress.comparison import compare_with_base
from pipeline.export.golden import write_golden
from pipeline.export.inputs import Inputs, open_inputs, real_images
from pipeline.export.latency import measure_all
from pipeline.export.lint import advise
from pipeline.export.parity import check_layers, noisiest_layers
from pipeline.export.reliability import write_reliability
from pipeline.export.results import fastest, summary, tabulate
from pipeline.export.trial import open_trial
from pipeline.export.variants import build_variants, describe_model
from pipeline.registry import RECIPES
from pipeline.runs import Run, write_atomically

log = logging.getLogger(__name__)

_PARITY_IMAGES = 8  # whose values inside are compared, layer by layer


@dataclass(frozen=True)
class Export:
    """What was exported: the run, the whole table (export/results.csv), one sentence on speed and losses, the gates.

    Of a compressed run also the table that compares it with its base (export/compression.csv).
    """

    run: Run
    results: pd.DataFrame
    verdict: str
    certificate: certificate.Certificate
    compression: pd.DataFrame | None = None

    @property
    def report_path(self) -> Path:
        return self.run.report_path

    def table(self) -> pd.DataFrame:
        """Return the table of the terminal; `results` has every column."""
        return summary(self.results)


def export_run(run: Run | Path | str, overrides: Sequence[str] = ()) -> Export:
    """Export a finished run into its `export` folder: .tflite files, labels, preprocessing, golden outputs, table.

    Raises UserError for a run that is not finished, an operator that LiteRT does not have, a variant that does not
    hold what its name says.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    experiment = run.experiment.replace(overrides, only=("export", *FREE))
    model = load_model(run)
    inputs = open_inputs(experiment, run.classes)
    variants, task = experiment.export.variants, inputs.task
    facts, trial = describe_model(experiment.model.name, model, task.classes), open_trial(run, experiment)
    build = partial(build_variants, model, variants, task.decode, inputs.calibration, facts, trial)
    paths = _write_files(run, inputs, build())
    advise(run.export_dir, model, variants, inputs.calibration)
    layers = check_layers(model, paths, inputs.calibration[:_PARITY_IMAGES])
    write_atomically(run.export_dir / "parity.csv", layers.to_csv(index=False))
    log.info("comparing %d files with the Keras model on %d test images", len(paths), inputs.test.count)
    predict = keras_predictor(model, task)
    agreement = compare_on(real_images(inputs.test, task, experiment.data.batch_size), task, predict, paths)
    log.info("timing each file in a process of its own")
    latency = measure_all(list(paths.values()))
    results = tabulate(agreement, task, paths, latency, experiment.export.margin).merge(noisiest_layers(layers))
    outputs = {variant: answers.golden for variant, answers in agreement.files.items()}
    write_golden(run.export_dir, agreement.images, agreement.ids, agreement.keras.golden, outputs)
    write_answers(run.export_dir, agreement, task)
    write_reliability(run.export_dir, agreement, task)
    alone = {variant: latency[path, 1] for variant, path in paths.items()}
    write_changes(run.export_dir, agreement, task, predict, alone)
    write_atomically(run.export_dir / "results.csv", results.to_csv(index=False))
    compression = compare_with_base(experiment, inputs, agreement, paths) if experiment.compress else None
    if compression is not None:
        write_atomically(run.export_dir / "compression.csv", compression.to_csv(index=False))
    log.info("certifying: every file is made once more, and answers in a clean process")
    rebuilt = {variant: certificate.sha256(content) for variant, content in build()}
    evidence = Evidence(facts, model.count_params(), paths, layers, results, latency, rebuilt)
    certified = certify(run, experiment, evidence)
    write_report(run)
    verdict = f"{fastest(alone)}; {_losses(results, experiment.export.margin)}"
    return Export(run, results, verdict, certified, compression)


def _write_files(run: Run, inputs: Inputs, files: Iterable[tuple[str, bytes]]) -> dict[str, Path]:
    (run.export_dir / certificate.FILE).unlink(missing_ok=True)  # it would vouch for files that are about to change
    for unfinished in run.export_dir.glob(".*.*"):  # of an export that was killed while it wrote
        unfinished.unlink()
    log.info("converting the model to .tflite")
    paths = {}
    for variant, content in files:
        paths[variant] = run.export_dir / f"{variant}.tflite"
        write_atomically(paths[variant], content)
    for variant in set(RECIPES.names()) - set(paths):  # of an earlier export: results.csv will not know them
        (run.export_dir / f"{variant}.tflite").unlink(missing_ok=True)
    write_atomically(run.export_dir / "labels.txt", "".join(f"{name}\n" for name in inputs.task.classes))
    write_atomically(run.export_dir / "preprocess.json", inputs.preprocess.to_json())
    return paths


def _losses(results: pd.DataFrame, margin: float) -> str:
    groups = {name: ", ".join(rows["variant"]) for name, rows in results.groupby("verdict", sort=False)}
    sentences = {
        "ok": f"a loss of more than {margin:g} points is excluded for {{}}",
        "not shown": "not shown on this many test images for {}",
        "worse": f"certain to lose more than {margin:g} points: {{}}",
    }
    return "; ".join(sentence.format(groups[name]) for name, sentence in sentences.items() if name in groups)
