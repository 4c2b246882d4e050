"""What a search may try, and within which limits."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.budget import Budget
from pipeline.errors import UserError
from pipeline.sections.base import Section

COSTS = ("size", "latency")  # of a trial's file, which are objectives as well as limits


class Range(Section):
    """Numbers that a search may try: integers where both ends are, else all between, or every `step`."""

    low: int | float
    high: int | float
    step: PositiveInt | PositiveFloat | None = None
    log: bool = False  # as many from 0.001 to 0.01 as from 0.01 to 0.1

    @model_validator(mode="after")
    def _has_an_inside(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("log needs low above 0, and no step")
        if self.step and self.step > self.high - self.low:
            raise ValueError(f"step {self.step:g} leads beyond high; make it smaller")
        return self

    @property
    def whole(self) -> bool:
        """Whether only integers are meant."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))


def _read_space(space: Any) -> dict[str, Range | list[Any]]:
    if not isinstance(space, dict) or not space:
        raise ValueError("give keys of the experiment, each with a list of values or with low: and high:")
    return {str(key): _read_values(key, values) for key, values in space.items()}


def _read_values(key: str, values: Any) -> Range | list[Any]:
    if isinstance(values, list):
        if len(values) < 2:
            raise ValueError(f"{key} has {len(values)} values; a search needs two or more")
        return values
    try:
        return Range.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([str(key), *(part for part in first["loc"][:1] if part in Range.model_fields)])
        own = first["ctx"]["error"] if first["type"] == "value_error" else None
        raise ValueError(f"{at}: {own or 'give a list of values, or numbers as low:, high:, step: and log:'}") from None


class Search(Section):
    """What `pipeline tune` tries: values for keys of the experiment."""

    space: Annotated[dict[str, Range | list[Any]], BeforeValidator(_read_space)]
    method: Literal["random", "bayesian", "hyperband"] = "random"
    trials: PositiveInt = 20
    # A measure of the task on validation, or size or latency; none: the measure that also picks the best epoch.
    objective: str | None = None
    at_least: float | None = None  # what that measure must reach where size or latency is the objective
    under: str | None = None  # limits of size and latency, "size<60kB, latency<1ms"
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _bounds_what_is_small(self) -> Self:
        if self.objective in COSTS and self.at_least is None:
            raise ValueError(
                f"the smallest {self.objective} alone is a useless model; give at_least, the score it needs"
            )
        if self.objective not in COSTS and self.at_least is not None:
            raise ValueError(f"at_least is for an objective of {' or '.join(COSTS)}")
        return self

    @field_validator("under")
    @classmethod
    def _limits(cls, under: str | None) -> str | None:
        if under is not None:
            try:
                budget = Budget.parse(under)
            except UserError as error:
                raise ValueError(str(error)) from None
            if budget.drop is not None:
                raise ValueError("only size and latency can be limited: what a file loses is known after the export")
        return under
