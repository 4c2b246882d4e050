"""Commands that make a model and look at what it is made of."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import Config, Json, Overrides, RunFolder, app, config_name, split_overrides, start_tensorflow
from pipeline.config import Experiment, find_config
from pipeline.terminal import print_table, print_tables, say


@app.command()
def train(
    config: Config = "digits",
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option(help="Where to write it; runs/<config name> if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete the run that is there and start over.")] = False,
) -> None:
    """Train an experiment; an interrupted run is continued."""
    config, overrides = split_overrides(config, overrides)
    experiment = Experiment.load(config, overrides)
    start_tensorflow()
    from pipeline.training.train import train as train_run

    done = train_run(experiment, run or Path("runs") / config_name(config), force=force)
    say(f"trained {done.path}; next: pipeline eval {done.path}")


@app.command("eval")
def evaluate(
    run: RunFolder = Path("runs/digits"),
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Other images: data.source.path=OTHER")
    ] = None,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    tta: Annotated[str | None, typer.Option(help="Average answers over views: flip or crops.")] = None,
    as_json: Json = False,
) -> None:
    """Score a trained run, every figure with its 95 % interval."""
    start_tensorflow()
    from pipeline.evaluation.evaluate import evaluate as evaluate_run

    result = evaluate_run(run, split=split, overrides=overrides or (), tta=tta)
    print_table(result.table(), as_json)
    say(f"report: {result.report_path}")


@app.command()
def data(
    config: Config = "digits",
    overrides: Overrides = None,
    show: Annotated[Path | None, typer.Option(help="Write a picture of augmented training images here.")] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Find copies, near copies, leaks and rare classes.")] = False,
    as_json: Json = False,
) -> None:
    """Look at an experiment's images: counts, classes, what cannot be read, what is there twice."""
    config, overrides = split_overrides(config, overrides)
    experiment = Experiment.load(config, overrides)
    start_tensorflow()
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
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what in a model will hurt its integer files, layer by layer, and how to mend it."""
    config, overrides = split_overrides(config, overrides)
    find_config(config)
    start_tensorflow()
    from pipeline.export.lint import group, lint_path

    found = lint_path(config, overrides)
    if as_json or len(found):
        print_table(found if as_json else group(found), as_json)
    say(f"{len(found)} findings; all are advice" if len(found) else "nothing found that would hurt an integer file")


@app.command("inspect")
def inspect_layers(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run, a .keras file or a model's name.")],
    show: Annotated[Path | None, typer.Option(help="Write a picture of what the layers see here.")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="Measure what each layer sees; minutes for a large model.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what each layer of a model costs and sees: weights, work, memory, receptive field."""
    start_tensorflow()
    from pipeline.evaluation import inspection

    opened = inspection.open_model(model)
    table = inspection.inspect_model(opened)
    if effective:
        table = inspection.measure_fields(opened, table)
    print_table(table if as_json else inspection.shorten(table), as_json)
    say(inspection.describe(table))
    if show:
        for row in inspection.draw_inspection(opened, table, show).itertuples():
            say(f"{row.layer} sees {row.sees:g} pixels, effectively {row.effectively:.0f}")
        say(f"picture: {show}")


@app.command("list")
def list_entries(
    kind: Annotated[str | None, typer.Argument(help="sources, augmentations, models, tasks, ...")] = None,
    as_json: Json = False,
) -> None:
    """List what an experiment can name; `list models` counts parameters and MACs."""
    from pipeline import listing

    tables = listing.tables(kind)
    if kind is None:
        print_tables(tables, as_json)
    else:
        print_table(tables[kind], as_json, title=kind)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has: versions, devices, and the choices training will make."""
    start_tensorflow()
    from pipeline.training.machine import describe_machine

    print_table(describe_machine(), as_json)
