"""The command line: parse, call one function, print a table. No logic."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.budget import Budget
from pipeline.config import Experiment, find_config
from pipeline.errors import UserError
from pipeline.quiet import quiet
from pipeline.runs import Run
from pipeline.terminal import complain, print_table, say

if TYPE_CHECKING:
    from pipeline.export.export import Export

app = typer.Typer(
    name="pipeline",
    help="From labelled images to a vision model that is proven to work on a phone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name, a YAML file, or a run folder.")]
_Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in train.epochs=3")]
_Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def train(
    config: _Config = "digits",
    overrides: _Overrides = None,
    run: Annotated[Path | None, typer.Option(help="Where to write it; runs/<config name> if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete the run that is there and start over.")] = False,
) -> None:
    """Train an experiment; an interrupted run is continued."""
    config, overrides = _split(config, overrides)
    experiment = Experiment.load(config, overrides)
    _start_tensorflow()
    from pipeline.training.train import train as train_run

    done = train_run(experiment, run or Path("runs") / _name(config), force=force)
    say(f"trained {done.path}; next: pipeline eval {done.path}")


@app.command("eval")
def evaluate(
    run: _Run = Path("runs/digits"),
    overrides: _Overrides = None,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    as_json: _Json = False,
) -> None:
    """Score a trained run, every figure with its 95 % interval."""
    _start_tensorflow()
    from pipeline.evaluation.evaluate import evaluate as evaluate_run

    result = evaluate_run(run, split=split, overrides=overrides or ())
    print_table(result.table(), as_json)
    say(f"report: {result.report_path}")


@app.command()
def export(run: _Run = Path("runs/digits"), overrides: _Overrides = None, as_json: _Json = False) -> None:
    """Export .tflite files and compare each with the Keras model: answers, size, speed."""
    _start_tensorflow()
    from pipeline.export.export import export_run

    result = export_run(run, overrides or ())
    print_table(result.results if as_json else result.table(), as_json)
    say(result.verdict)
    say(f"report: {result.report_path}")
    _certified(result)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A run's export folder, the run, or its zip.")],
    as_json: _Json = False,
) -> None:
    """Check an exported bundle again, from what lies in it alone."""
    _start_tensorflow()
    from pipeline.export.verify import to_table
    from pipeline.export.verify import verify as verify_bundle

    checks = verify_bundle(bundle)
    print_table(to_table(checks), as_json)
    wrong = [f"{one.of}: {one.name}: {one.found}" for one in checks if not one.holds]
    if wrong:
        raise UserError(f"{bundle} is not what its certificate says: {'; '.join(wrong)}")
    say(f"{bundle} is what its certificate says: {len(checks)} checks")


@app.command()
def bundle(
    run: _Run = Path("runs/digits"),
    out: Annotated[Path | None, typer.Option(help="Where to write it; RUN.zip if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Pack a run's exported files into one zip for whoever builds the app."""
    _start_tensorflow()
    from pipeline.export.bundle import pack

    written = pack(Run.open(run), out, force=force)
    say(f"bundle: {written}, {written.stat().st_size:,} bytes; check it with: pipeline verify {written}")


@app.command()
def compress(
    run: _Run = Path("runs/digits"),
    overrides: _Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="A name (pipeline list compressions) or a YAML file.")] = None,
    channels: Annotated[float | None, typer.Option(help="Take this part of the channels out, 0 to 1.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Make this part of the weights zero, 0 to 1.")] = None,
    clusters: Annotated[int | None, typer.Option(help="Let each kernel have this many distinct weights.")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Train with the rounding of the int8 file.")] = False,
    equalise: Annotated[bool, typer.Option("--equalise", help="Balance the ranges of neighbouring layers.")] = False,
    distill: Annotated[bool, typer.Option("--distill", help="Learn from the answers of RUN.")] = False,
    budget: Annotated[str | None, typer.Option(help='As in "size<60kB, latency<0.4ms, drop<0.5pp".')] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; RUN-<recipe> if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete the run that is there and start over.")] = False,
    as_json: _Json = False,
) -> None:
    """Make a smaller, faster run from a run, then evaluate, export and compare it."""
    stages = {
        "channels.ratio": channels,
        "sparsity.target": sparsity,
        "clusters.count": clusters,
        "qat.bits": 8 if qat else None,
        "equalise": "true" if equalise else None,
        "distill.weight": 0.9 if distill else None,
    }
    flags = [f"compress.{key}={value}" for key, value in stages.items() if value is not None]
    changes, limits = [*flags, *(overrides or [])], Budget.parse(budget) if budget else None
    base = Run.open(run)
    out = out or Path(f"{run}-{Path(recipe).stem if recipe else 'budget' if budget else 'compressed'}")
    # Wrong requests end here, before TensorFlow starts.
    base.experiment.compressed(run, recipe or ("small" if budget else None), changes)
    _start_tensorflow()
    from pipeline.export.compress.comparison import describe, shorten
    from pipeline.export.compress.compress import compress as compress_into

    result = compress_into(base, out, recipe=recipe, overrides=changes, budget=limits, force=force)
    print_table(result.compression if as_json else shorten(result.compression), as_json)
    say(describe(result.compression))
    say(f"report: {result.report_path}")
    _certified(result)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_TFLITE", help="A run folder or an exported .tflite.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    as_json: _Json = False,
) -> None:
    """Say what is in images, with a run's Keras model or an exported file."""
    _start_tensorflow()
    import pandas as pd

    from pipeline.export.predict import predict as predict_images
    from pipeline.export.predict import to_table

    found = predict_images(model, images)
    print_table(pd.DataFrame(found) if as_json else to_table(found), as_json)


@app.command()
def demo(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run, its export folder, or a zip of it.")],
    port: Annotated[int, typer.Option(help="On this machine; 0 takes a free one.")] = 8765,
    variant: Annotated[str | None, typer.Option(help="Which file answers first.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
) -> None:
    """Try the exported files in the browser: pictures, camera, all variants side by side."""
    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401
    from pipeline.export.demo import demo as serve

    serve(source, port=port, variant=variant, show=not no_open)


@app.command()
def data(
    config: _Config = "digits",
    overrides: _Overrides = None,
    show: Annotated[Path | None, typer.Option(help="Write a picture of augmented training images here.")] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Find copies, near copies, leaks and rare classes.")] = False,
    as_json: _Json = False,
) -> None:
    """Look at an experiment's images: counts, classes, what cannot be read, what is there twice."""
    config, overrides = _split(config, overrides)
    experiment = Experiment.load(config, overrides)
    _start_tensorflow()
    from pipeline.evaluation.preview import examine, preview

    counts = preview(experiment, picture=show)
    if not (audit and as_json):
        print_table(counts, as_json)
    if show:
        say(f"picture: {show}")
    if audit:
        found = examine(experiment)
        if as_json or len(found):
            print_table(found, as_json)
        if found.empty:
            say("no picture is there twice, and no class is rare")


@app.command()
def lint(
    config: Annotated[str, typer.Argument(metavar="CONFIG_OR_RUN", help="As for train, or a finished run.")] = "digits",
    overrides: _Overrides = None,
    as_json: _Json = False,
) -> None:
    """Say what in a model will hurt its integer files, layer by layer, and how to mend it."""
    config, overrides = _split(config, overrides)
    find_config(config)
    _start_tensorflow()
    from pipeline.export.lint import group, lint_path

    found = lint_path(config, overrides)
    if as_json or len(found):
        print_table(found if as_json else group(found), as_json)
    say(f"{len(found)} findings; all are advice" if len(found) else "nothing found that would hurt an integer file")


@app.command("list")
def list_entries(
    kind: Annotated[str | None, typer.Argument(help="sources, augmentations, models, tasks, ...")] = None,
    as_json: _Json = False,
) -> None:
    """List what an experiment can name; `list models` counts parameters and MACs."""
    from pipeline import listing

    for title, table in listing.tables(kind).items():
        print_table(table, as_json, title=title)


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Say what this machine has: versions, devices, and the choices training will make."""
    _start_tensorflow()
    from pipeline.training.machine import describe_machine

    print_table(describe_machine(), as_json)


def main() -> None:
    """Run the command line; a UserError is one sentence and exit code 2 (usage) or 1 (a failed job)."""
    log, handler = logging.getLogger("pipeline"), _Plain()
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        app()
    except UserError as error:
        complain(str(error))
        sys.exit(2 if error.usage else 1)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # `pipeline list | head`
        sys.stderr.close()
        sys.exit(0)
    finally:
        log.removeHandler(handler)


def _start_tensorflow() -> None:
    """Import TensorFlow without the lines that its C++ libraries print before they have read any log level."""
    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401
        import tensorflow  # noqa: F401


class _Plain(logging.Handler):
    """Print the rooms' messages to stderr as they are; stdout is for results."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _certified(result: "Export") -> None:
    """Say what the certificate says, and fail the job where a file fails a gate."""
    certificate = result.certificate
    failures = certificate.failures()
    if failures:
        raise UserError(f"not certified: {'; '.join(failures)}")
    say(f"certificate: {certificate.summary()}")


def _split(config: str, overrides: list[str] | None) -> tuple[str, list[str]]:
    """Let `pipeline train train.epochs=3` mean the default preset with an override."""
    if "=" in config:
        return "digits", [config, *(overrides or [])]
    return config, overrides or []


def _name(config: str) -> str:
    path = find_config(config)
    return path.parent.name if path.name == "experiment.yaml" else path.stem
