"""The whole job: choose how, make the smaller run, score it, export it, and compare it with what it was made from."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.budget import Budget
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate
from pipeline.export.compress.run import compress_run, require_other_folder
from pipeline.export.compress.search import search
from pipeline.export.export import Export, export_run
from pipeline.runs import Run, differences, value_at, write_atomically
from pipeline.training.learned import origin

log = logging.getLogger(__name__)

SEARCHED = "small"  # the recipe that says how long the winner of a search is trained
_SHORTER = 5  # times is the last rung of the search than that
_FOUND = ("compress.channels.ratio", "compress.qat.bits", "compress.qat.wide_ends", "data.image_size")  # by a search


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
        budget: such as "size<60kB, latency<0.4ms, drop<0.5pp": channels, resolution and bits are then searched for,
            whatever the recipe says of them; overrides must not.

    Raises:
        UserError: what `Experiment.compressed`, `search`, `compress_run` and `export_run` refuse.
    """
    base = run if isinstance(run, Run) else Run.open(run)
    require_other_folder(base, out)  # which `force` would delete
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
    planned = base.experiment.compressed(base.path, recipe, overrides).compress.channels
    _require_free(overrides)
    request = {"base": origin(base.path, "run"), "recipe": str(recipe), "overrides": list(overrides)}
    if _was_searched(out, {"budget": str(budget), **request}, force):
        return out.experiment
    choice = search(base, budget, epochs=max(1, planned.epochs // _SHORTER) if planned else 1, channels=planned)
    log.info(choice.reason)
    experiment = base.experiment.compressed(base.path, recipe, [*overrides, *choice.overrides])
    variants = experiment.export.variants
    if choice.variant not in variants:
        experiment = experiment.replace([f"export.variants=[{', '.join([*variants, choice.variant])}]"])
    run = Run.create(out.path, experiment, force=force)
    run.note(budget=str(budget), searched=request)
    write_atomically(run.search_dir / "reason.txt", choice.reason)
    write_atomically(run.search_dir / "points.csv", choice.points.to_csv(index=False))
    return experiment


def _require_free(overrides: Sequence[str]) -> None:
    """Raise UserError where an override sets what the search is to find."""
    for override in overrides:
        key, _, text = override.partition("=")
        value = yaml.safe_load(text)
        for found in _FOUND:
            inner = found.removeprefix(f"{key}.")
            whole = inner != found and (value is None or value_at(value, inner) is not None)
            if key == found or whole:
                raise UserError(f"a budget finds {found} by itself; leave out {override!r}, or the budget", usage=True)


def _was_searched(out: Run, request: dict[str, Any], force: bool) -> bool:
    """Say whether a run begins with what this search found; refuse before the search what could not be written."""
    if out.is_run and not force:
        there = {"budget": out.facts.get("budget"), **out.facts.get("searched", {})}
        if differing := differences(there, request):
            raise UserError(
                f"{out.path} is not the run of this search ({', '.join(differing)} differ); give --force to delete it "
                "and start over, or name another --out"
            )
        return True
    out.require_no_other()
    return False
