"""The whole job: choose how, make the smaller run, score it, export it, and compare it with what it was made from."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.budget import Budget
from pipeline.config import Experiment
from pipeline.evaluation.evaluate import evaluate
from pipeline.export.compress.run import compress_run
from pipeline.export.compress.search import search
from pipeline.export.export import Export, export_run
from pipeline.runs import Run, write_atomically

log = logging.getLogger(__name__)

SEARCHED = "small"  # the recipe that says how long the winner of a search is trained
_SHORTER = 5  # times is the last rung of the search than that


def compress(
    run: Run | Path | str,
    out: Path | str,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    budget: Budget | str | None = None,
    force: bool = False,
) -> Export:
    """Make a smaller run from a finished one, evaluate and export it; `compression` in what is returned compares both.

    Args:
        recipe: a shipped recipe's name, a YAML file, or a compressed run whose stages are to be used.
        overrides: `key=value`, such as compress.channels.ratio=0.5.
        budget: such as "size<60kB, latency<0.4ms, drop<0.5pp": channels, resolution and bits are then searched for.

    Raises:
        UserError: what `Experiment.compressed`, `search`, `compress_run` and `export_run` refuse.
    """
    base = run if isinstance(run, Run) else Run.open(run)
    limits = Budget.parse(budget) if isinstance(budget, str) else budget
    if limits:
        experiment = _searched(base, Run(Path(out)), limits, recipe or SEARCHED, overrides, force)
    else:
        experiment = base.experiment.compressed(base.path, recipe, overrides)
    made = compress_run(experiment, out, force=force and not limits)
    evaluate(made)
    return export_run(made)


def _searched(
    base: Run, out: Run, budget: Budget, recipe: str | Path, overrides: Sequence[str], force: bool
) -> Experiment:
    """Search, and begin the run with what was found; a search that was finished is not repeated."""
    if out.is_run and out.facts.get("budget") == str(budget) and not force:
        return out.experiment
    planned = base.experiment.compressed(base.path, recipe, overrides).compress.channels
    choice = search(base, budget, epochs=max(1, planned.epochs // _SHORTER) if planned else 1)
    log.info(choice.reason)
    experiment = base.experiment.compressed(base.path, recipe, [*choice.overrides, *overrides])
    run = Run.create(out.path, experiment, force=force)
    run.note(budget=str(budget))
    write_atomically(run.search_dir / "reason.txt", choice.reason)
    write_atomically(run.search_dir / "points.csv", choice.points.to_csv(index=False))
    return experiment
