"""The stages that make a run smaller."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.sections.base import Section
from pipeline.sections.training import Distill


class Tuned(Section):
    """A stage of compression after which the model is trained again, which may be 0 epochs."""

    epochs: NonNegativeInt = 10
    learning_rate: PositiveFloat | None = None  # its peak; none: a tenth of the training's


class Channels(Tuned):
    """Take whole channels out: smaller and faster."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the channels of every layer, or of all
    importance: Literal["l1", "l2", "geometric_median", "batch_norm", "taylor"] = "l1"
    scope: Literal["layer", "global"] = "layer"
    multiple: PositiveInt = 8
    rounds: PositiveInt = 1  # each removes the same part of what is left, and trains


class Sparsity(Tuned):
    """Make single weights zero: zips smaller."""

    target: Annotated[float, Field(gt=0, lt=1)] | None = None  # none: the pattern's own sparsity, or 0.8
    pattern: str = "unstructured"

    @field_validator("pattern", mode="before")
    @classmethod
    def _written_with_a_colon(cls, pattern: Any) -> Any:
        # Without quotes, which a shell takes away, YAML 1.1 reads 2:4 as a number of base 60.
        return "{}:{}".format(*divmod(pattern, 60)) if isinstance(pattern, int) and pattern >= 60 else pattern


class Clusters(Tuned):
    """Let weights share values: zips smaller."""

    count: Annotated[PositiveInt, Field(le=256)] = 16  # of each kernel


class Qat(Tuned):
    """Train with the rounding of the integer file."""

    bits: Literal[4, 8] = 8
    wide_ends: bool = False  # 8 bits for the first and the last kernel


class Compress(Section):
    """How a run was made from another one, `base`; the stages come in this order."""

    base: str | None = None
    equalise: bool = False
    channels: Channels | None = None
    sparsity: Sparsity | None = None
    clusters: Clusters | None = None
    qat: Qat | None = None
    distill: Distill | None = None  # in every stage that trains

    @model_validator(mode="after")
    def _some_stage(self) -> Self:
        if not (self.equalise or self.channels or self.sparsity or self.clusters or self.qat):
            raise ValueError("set at least one of equalise, channels, sparsity, clusters, qat")
        if self.sparsity and self.clusters:
            raise ValueError("sparsity and clusters cannot both hold the same kernels; choose one")
        return self
