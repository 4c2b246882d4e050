"""What a search may try: each value is checked against the experiment, without TensorFlow, before anything runs."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.sections import Range, Search

# These decide what a score is measured on, or are no part of a training.
_FIXED = ("task.name", "data.source", "data.validation", "data.folds", "train.seed", "export", "compress", "search")
_INSIDE = 0.618  # of a range: a place that is no integer where integers are needed


def settings_of(experiment: Experiment) -> Search:
    """Return the experiment's section `search`, each key and value of its space checked.

    Raises UserError, in one sentence, for no such section, an unknown key, or a value that cannot be.
    """
    search = experiment.search
    if search is None:
        raise UserError("the experiment has no section search; docs/studies.md shows one", usage=True)
    for key in search.space:
        if any(f"{key}.".startswith(f"{one}.") for one in _FIXED) or key == "task":
            raise UserError(
                f"search.space: {key} is the same for all trials, or no scores could be compared; take it out",
                usage=True,
            )
    if search.method == "hyperband" and "train.epochs" in search.space:
        raise UserError(
            "search.space: hyperband chooses train.epochs itself, up to the experiment's; take it out", usage=True
        )
    for values in _corners(search):
        apply(experiment, values)
    return search


def apply(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """Return the experiment of one trial, without its section `search`; a name comes before its options."""
    plain = experiment.model_copy(update={"search": None})
    overrides = [f"{key}={_as_yaml(values[key])}" for key in sorted(values, key=_depth)]
    try:
        return plain.replace(overrides)
    except UserError as error:
        given = ", ".join(override.replace("=", ": ", 1) for override in overrides)
        reason = str(error).removeprefix("the experiment: ")
        raise UserError(f"search.space: {reason} (tried {given})", usage=True) from None


def _corners(search: Search) -> Iterator[dict[str, Any]]:
    """Yield assignments that have every value once, beside each choice of names that other keys belong to."""
    every = {key: _ends(values) for key, values in search.space.items()}
    roots = [key for key in every if any(_is_within(other, key) for other in every if other != key)]
    first = {key: values[0] for key, values in every.items()}
    for choice in itertools.product(*(every[key] for key in roots)):
        base = first | dict(zip(roots, choice, strict=True))
        yield base
        yield from (base | {key: value} for key in every if key not in roots for value in every[key][1:])


def _ends(values: Range | list[Any]) -> list[Any]:
    if isinstance(values, list):
        return values
    inside = [] if values.whole or values.step else [float(f"{values.low + _INSIDE * (values.high - values.low):.6g}")]
    stepped = [values.low + values.step] if values.step else []
    return [values.low, values.high, *inside, *stepped]


def _is_within(key: str, root: str) -> bool:
    return key.startswith(f"{root.removesuffix('.name')}.")


def _depth(key: str) -> int:
    return key.removesuffix(".name").count(".")


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).partition("\n")[0]
