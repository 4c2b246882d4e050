"""The sections of an experiment: every key, its type, its default, and what is allowed."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.budget import Budget
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS, OPTIMIZERS, RECIPES, SCHEDULES, SOURCES, Fraction, Registry


class Section(BaseModel):
    """A table of keys: typed, closed and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Component(Section):
    """A registered name and its options, all of them, defaults included."""

    name: str
    options: dict[str, Any]

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


def component(registry: Registry) -> Any:
    """Make the field type that reads `resnet20` or `{name: resnet20, width: 32}` through a registry."""

    def read(value: Any) -> Component:
        if isinstance(value, Component):
            return value
        options = {"name": value} if isinstance(value, str) else value
        if not isinstance(options, dict) or not isinstance(options.get("name"), str):
            raise ValueError(f"give the name of a {registry.kind}, or a mapping with name: and its options")
        name, options = options["name"], {key: v for key, v in options.items() if key != "name"}
        if name not in registry.names():
            raise ValueError(f"there is no {registry.kind} {name!r}; {registry.nearest(name)}")
        model = registry.options(name)
        try:
            return Component(name=name, options=model(**options).model_dump(mode="json"))
        except ValidationError as error:
            raise OptionsError(error, model) from None

    return Annotated[Component, BeforeValidator(read)]


class Folds(Section):
    """One of several parts of train, held out as the test split: `pipeline crossval` sets it."""

    of: Annotated[int, Field(ge=2)] = 5
    index: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"index is counted from 0 to {self.of - 1}")
        return self


class Data(Section):
    """Which images, and how they become batches."""

    source: component(SOURCES)
    image_size: tuple[PositiveInt, PositiveInt] = (32, 32)  # height, width
    channels: Literal[1, 3] = 3
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    batch_size: PositiveInt = 64
    augment: list[component(AUGMENTATIONS)] = []
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1  # cut from train where the source has no validation split
    folds: Folds | None = None  # leaves the source's own test split alone
    cache_mb: NonNegativeInt = 1024  # decoded images are kept in memory up to this size
    max_corrupt: Fraction = 0.01  # more corrupt images than this share are an error


class Lookahead(Section):
    """Every few steps the weights go back a part of the way they came (arXiv 1907.08610)."""

    every: PositiveInt = 5  # optimizer steps
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the way that is kept


class Plateau(Section):
    """Lower the learning rate when validation no longer gets better."""

    epochs: PositiveInt = 5  # without a better validation score
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Train(Section):
    """How the weights are found."""

    epochs: PositiveInt = 30
    optimizer: component(OPTIMIZERS) = Field("adam", validate_default=True)
    schedule: component(SCHEDULES) = Field("cosine", validate_default=True)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    xla: Literal["auto"] | bool = "auto"
    strategy: Literal["auto", "single", "mirrored", "multi_worker", "tpu"] = "auto"
    steps_per_call: Literal["auto"] | PositiveInt = "auto"
    seed: NonNegativeInt = 0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay per step of the averaged weights
    lookahead: Lookahead | None = None
    sharpness: PositiveFloat | None = None  # radius of sharpness-aware minimisation, 0.05 in arXiv 2010.01412
    plateau: Plateau | None = None
    accumulate: PositiveInt = 1  # batches per optimizer step
    clip_norm: PositiveFloat | None = None
    patience: PositiveInt | None = None  # epochs without a better validation score before stopping
    keep: Literal["best", "last"] = "best"
    checkpoint_minutes: PositiveFloat = 10.0  # also at the end of every epoch
    tensorboard: bool = False
    int8_every: PositiveInt | None = None  # epochs from one validation with int8 kernels to the next; changes nothing


class Export(Section):
    """Which files are made, and what they must live up to."""

    variants: list[str] = ["float32", "float16", "dynamic", "int8", "uint8", "int16x8"]
    margin: NonNegativeFloat = 0.5  # percentage points that a file may lose against the Keras model
    calibration_images: PositiveInt = 256

    @field_validator("variants")
    @classmethod
    def _known(cls, variants: list[str]) -> list[str]:
        for name in variants:
            if name not in RECIPES.names():
                raise ValueError(f"there is no variant {name!r}; {RECIPES.nearest(name)}")
        if len(set(variants)) != len(variants) or not variants:
            raise ValueError("name each variant once, and at least one")
        return variants


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

    target: Annotated[float, Field(gt=0, lt=1)] = 0.8
    pattern: str = "unstructured"


class Clusters(Tuned):
    """Let weights share values: zips smaller."""

    count: Annotated[PositiveInt, Field(le=256)] = 16  # of each kernel


class Qat(Tuned):
    """Train with the rounding of the integer file."""

    bits: Literal[4, 8] = 8
    wide_ends: bool = False  # 8 bits for the first and the last kernel


class Distill(Section):
    """Learn from the answers of the run that is compressed, in every stage that trains."""

    temperature: PositiveFloat = 4.0
    weight: Fraction = 0.9  # of the teacher's part of the loss


class Compress(Section):
    """How a run was made from another one, `base`; the stages come in this order."""

    base: str | None = None
    equalise: bool = False
    channels: Channels | None = None
    sparsity: Sparsity | None = None
    clusters: Clusters | None = None
    qat: Qat | None = None
    distill: Distill | None = None

    @model_validator(mode="after")
    def _some_stage(self) -> Self:
        if not (self.equalise or self.channels or self.sparsity or self.clusters or self.qat):
            raise ValueError("set at least one of equalise, channels, sparsity, clusters, qat")
        if self.sparsity and self.clusters:
            raise ValueError("sparsity and clusters cannot both hold the same kernels; choose one")
        return self


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
    objective: str | None = None  # a measure of the task on validation; none: the one that also picks the best epoch
    under: str | None = None  # limits of size and latency, "size<60kB, latency<1ms"
    seed: NonNegativeInt = 0

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


class OptionsError(ValueError):
    """Carry what is wrong with a component's options out of the field that reads it."""

    def __init__(self, error: ValidationError, options: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error, self.options = error, options
