"""Which images, how they are learned, and which files come of it."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.registry import AUGMENTATIONS, OPTIMIZERS, RECIPES, SCHEDULES, SOURCES, Fraction
from pipeline.sections.base import Section, component


class Folds(Section):
    """One of several parts of train, held out as the test split: `pipeline crossval` sets it."""

    of: Annotated[int, Field(ge=2)] = 5
    index: NonNegativeInt = 0

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.index >= self.of:
            raise ValueError(f"index is counted from 0 to {self.of - 1}")
        return self


class Pseudo(Section):
    """Images that a trained run labelled, which join train: `pipeline pseudo` writes the table."""

    images: str  # the folder that the table's paths are relative to
    labels: str  # a CSV with the columns image, label and probabilities
    weight: PositiveFloat = 1.0  # of one of them in the loss, where an image that a person labelled weighs 1
    soft: bool = False  # learn the probabilities instead of the likeliest class


class Data(Section):
    """Which images, and how they become batches."""

    source: component(SOURCES)
    image_size: tuple[PositiveInt, PositiveInt] = (32, 32)  # height, width
    channels: Literal[1, 3] = 3
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    batch_size: PositiveInt = 64
    augment: list[component(AUGMENTATIONS)] = Field(default_factory=list)
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1  # cut from train where the source has no validation split
    folds: Folds | None = None  # leaves the source's own test split alone
    pseudo: Pseudo | None = None
    cache_mb: NonNegativeInt = 1024  # decoded images of each split are kept in memory up to this size
    max_corrupt: Fraction = 0.01  # more corrupt images than this share are an error


class Lookahead(Section):
    """Every few steps the weights go back a part of the way they came (arXiv 1907.08610)."""

    every: PositiveInt = 5  # optimizer steps
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the way that is kept


class Plateau(Section):
    """Lower the learning rate when validation no longer gets better."""

    epochs: PositiveInt = 5  # without a better validation score
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class SizePhase(Section):
    """A part of a run with smaller images."""

    size: tuple[PositiveInt, PositiveInt]  # height, width
    share: Annotated[float, Field(gt=0, lt=1)]  # of the epochs


class EasyFirst(Section):
    """Draw from the easiest training images only, and from more of them step by step (arXiv 1904.03626)."""

    scores: str  # scores.npz of a run on these images: its log loss is their difficulty
    start: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of the images that the first step draws from
    until: Annotated[float, Field(gt=0, le=1)] = 0.5  # share of the run's steps after which it is all of them


class Curriculum(Section):
    """What is easy first: small images, or those that another run found easy."""

    sizes: list[SizePhase] = Field(default_factory=list)  # in this order; then data.image_size
    easy_first: EasyFirst | None = None

    @field_validator("sizes")
    @classmethod
    def _leaves_time(cls, sizes: list[SizePhase]) -> list[SizePhase]:
        if sum(phase.share for phase in sizes) >= 1:
            raise ValueError("the shares must leave a part of the run for images of the whole size: give less than 1")
        return sizes


class Transfer(Section):
    """Start from learned weights: the head learns first, then stage by stage from the top (arXiv 1801.06146)."""

    base: str | None = None  # a run or a .keras file of the same network; none: the weights are those of model.weights
    head_epochs: NonNegativeInt = 5  # in which only the new layers learn
    every: NonNegativeInt | None = 2  # epochs from one stage to the next; 0: all at once, none: they stay frozen
    factor: Annotated[float, Field(gt=0, le=1)] = 0.4  # of the learning rate, from a stage to the one below it


class Distill(Section):
    """Learn from a teacher's answers as well as from the labels (arXiv 1503.02531)."""

    temperature: PositiveFloat = 4.0
    weight: Fraction = 0.9  # of the teacher's part of the loss; 1 in arXiv 2106.05237
    teacher: str | None = None  # a run's folder, or a Keras file; none: the run that is compressed
    # What the teacher's graph lacks: none takes pixels 0..255, unit 0..1, the others as keras.applications names them.
    preprocessing: Literal["none", "unit", "tf", "torch", "caffe"] = "none"


class Distillation(Distill):
    """Learn from a model that was trained before, in a training that has none to begin with."""

    teacher: str


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
    curriculum: Curriculum | None = None
    accumulate: PositiveInt = 1  # batches per optimizer step
    clip_norm: PositiveFloat | None = None
    patience: PositiveInt | None = None  # epochs without a better validation score before stopping
    keep: Literal["best", "last"] = "best"
    checkpoint_minutes: PositiveFloat = 10.0  # also at the end of every epoch
    tensorboard: bool = False
    distill: Distillation | None = None
    int8_every: PositiveInt | None = None  # epochs from one validation with int8 kernels to the next; changes nothing


class Export(Section):
    """Which files are made, and what they must live up to."""

    variants: list[str] = Field(["float32", "float16", "dynamic", "int8", "uint8", "int16x8"])
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
