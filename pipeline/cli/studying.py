"""Commands whose answer takes more than one run."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import (
    Config,
    Json,
    Overrides,
    RunFolder,
    app,
    config_name,
    split_overrides,
    start_tensorflow,
)
from pipeline.config import Experiment
from pipeline.runs import beside
from pipeline.studies.space import settings_of
from pipeline.terminal import print_table, say


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated; each against the first.")],
    split: Annotated[str, typer.Option(help="On which split's images.")] = "test",
    as_json: Json = False,
) -> None:
    """Compare runs image by image: every measure with its interval and its paired test."""
    start_tensorflow()
    from pipeline.studies.compare import compare_runs

    found = compare_runs(runs, split=split)
    if len(found.settings) and not as_json:
        print_table(found.settings, as_json=False, title="what differs")
    print_table(found.scores if as_json else found.table(), as_json)
    say(found.summary())


@app.command()
def pseudo(
    run: RunFolder,
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of unlabelled images.")],
    out: Annotated[Path, typer.Option(help="The folder to write labels.csv and student.yaml into.")],
    threshold: Annotated[float, typer.Option(help="The least confidence of a label.")] = 0.95,
    precision: Annotated[float | None, typer.Option(help="Instead: the share of labels that is to be right.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write OUT anew if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Label images with a trained run, where it is sure, for a student to learn from."""
    start_tensorflow()
    from pipeline.studies.pseudo_label import pseudo_label

    found = pseudo_label(run, images, out, threshold=threshold, precision=precision, force=force)
    print_table(found.thresholds, as_json)
    if not as_json:
        print_table(found.counts, as_json=False)
    say(found.summary())
    say(f"train the student with: pipeline train {out / 'student.yaml'} --run {beside(run, 'student')}")


@app.command()
def crossval(
    config: Config = "digits",
    overrides: Overrides = None,
    folds: Annotated[int, typer.Option(help="Into how many parts the training images are cut.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Where to write it; runs/<config name>-folds if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Train once for each part of the training images, held out as test: where images are few."""
    config, overrides = split_overrides(config, overrides)
    experiment = Experiment.load(config, [*overrides, f"data.folds={{of: {folds}}}"])
    start_tensorflow()
    from pipeline.studies.cross_validate import cross_validate

    found = cross_validate(experiment, out or Path("runs") / f"{config_name(config)}-folds", of=folds)
    print_table(found.summary, as_json)
    say(f"each fold is a run in {found.folder}; their scores: {found.folder / 'folds.csv'}")


@app.command()
def ablate(
    config: Config = "digits",
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Leave out this ingredient; may be given again.")] = None,
    split: Annotated[str, typer.Option(help="Whose images are scored.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; runs/<config name>-ablation if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what each ingredient is worth: train without each in turn, over several seeds."""
    config, overrides = split_overrides(config, overrides)
    experiment = Experiment.load(config, overrides)
    start_tensorflow()
    from pipeline.studies.ablate import ablate as ablate_experiment

    folder = out or Path("runs") / f"{config_name(config)}-ablation"
    found = ablate_experiment(experiment, folder, seeds=seeds, only=only or (), split=split)
    print_table(found.table, as_json)
    say(f"{found.measure} on {split}; each training is a run in {found.folder}")


@app.command()
def rates(
    config: Config = "digits",
    overrides: Overrides = None,
    low: Annotated[float, typer.Option(help="The first learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The last one.")] = 1.0,
    steps: Annotated[int, typer.Option(help="How many steps there are from one to the other.")] = 100,
    show: Annotated[Path | None, typer.Option(help="Draw the test and the schedule here.")] = None,
    as_json: Json = False,
) -> None:
    """Find a learning rate: train some steps while it rises, and draw the schedule beside it."""
    config, overrides = split_overrides(config, overrides)
    experiment = Experiment.load(config, overrides)
    start_tensorflow()
    from pipeline.studies.rates import find_rates

    found = find_rates(experiment, low=low, high=high, steps=steps, picture=show)
    if as_json:
        print_table(found.tested, as_json)
    say(found.summary())
    if show:
        say(f"picture: {show}")


@app.command()
def tune(
    config: Config = "digits",
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="How many are tried; search.trials if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write it; runs/<config name>-search if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Search the experiment's section `search` for better settings; goes on where it stopped."""
    config, overrides = split_overrides(config, overrides)
    count = [] if trials is None else [f"search.trials={trials}"]
    experiment = Experiment.load(config, [*overrides, *count])
    settings_of(experiment)
    start_tensorflow()
    from pipeline.studies.tune import tune as tune_experiment

    found = tune_experiment(experiment, out or Path("runs") / f"{config_name(config)}-search")
    if found is None:
        say("this worker is done; the chief prints what was found")
        return
    print_table(found.table if as_json else found.shown(), as_json)
    say(found.summary())
    say(f"train it again with: pipeline train {found.folder / 'best.yaml'}; its run: {found.best.path}")
