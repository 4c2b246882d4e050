"""The experiment: one YAML file, typed, closed and frozen, checked before TensorFlow is imported."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
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
)

from pipeline.errors import UserError
from pipeline.registry import (
    AUGMENTATIONS,
    MODELS,
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
    SOURCES,
    TASKS,
    Fraction,
    Registry,
    suggest,
)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Component(_Closed):
    """A registered name and its options, all of them, defaults included."""

    name: str
    options: dict[str, Any]

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


def _component(registry: Registry) -> Any:
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
            raise _OptionsError(error, model) from None

    return Annotated[Component, BeforeValidator(read)]


class Data(_Closed):
    """Which images, and how they become batches."""

    source: _component(SOURCES)
    image_size: tuple[PositiveInt, PositiveInt] = (32, 32)  # height, width
    channels: Literal[1, 3] = 3
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    batch_size: PositiveInt = 64
    augment: list[_component(AUGMENTATIONS)] = []
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1  # cut from train where the source has no validation split
    cache_mb: NonNegativeInt = 1024  # decoded images are kept in memory up to this size
    max_corrupt: Fraction = 0.01  # more corrupt images than this share are an error


class Train(_Closed):
    """How the weights are found."""

    epochs: PositiveInt = 30
    optimizer: _component(OPTIMIZERS) = Field("adam", validate_default=True)
    schedule: _component(SCHEDULES) = Field("cosine", validate_default=True)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    xla: Literal["auto"] | bool = "auto"
    strategy: Literal["auto", "single", "mirrored", "multi_worker", "tpu"] = "auto"
    steps_per_call: Literal["auto"] | PositiveInt = "auto"
    seed: NonNegativeInt = 0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay per step of the averaged weights
    accumulate: PositiveInt = 1  # batches per optimizer step
    clip_norm: PositiveFloat | None = None
    patience: PositiveInt | None = None  # epochs without a better validation score before stopping
    keep: Literal["best", "last"] = "best"
    checkpoint_minutes: PositiveFloat = 10.0  # also at the end of every epoch
    tensorboard: bool = False


class Export(_Closed):
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


class Experiment(_Closed):
    """One experiment. Two equal experiments on one machine give the same run."""

    task: _component(TASKS) = Field("classification", validate_default=True)
    data: Data
    model: _component(MODELS)
    train: Train = Field(default_factory=Train)
    export: Export = Field(default_factory=Export)

    @classmethod
    def load(cls, config: str | Path = "digits", overrides: Sequence[str] = ()) -> Self:
        """Read a preset's name or a YAML file, apply `key=value` overrides, and check all of it.

        Raises UserError that names the key, the value and what is allowed.
        """
        path = find_config(config)
        return cls.parse(_apply(_read_yaml(path), overrides), str(path.name))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Check a nested mapping; `where` names its file in messages."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error, cls)}", usage=True) from None

    def replace(self, overrides: Sequence[str]) -> Self:
        """Return the experiment with `key=value` overrides applied."""
        return self.parse(_apply(self.model_dump(mode="json"), overrides), "the experiment") if overrides else self

    def to_yaml(self) -> str:
        """Write every key, so that the text alone gives the same experiment again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)


def presets() -> dict[str, Path]:
    """Map the shipped experiments' names to their files."""
    return {path.stem: path for path in sorted(_preset_folder().glob("*.yaml"))}


def find_config(config: str | Path) -> Path:
    """Return the file of a preset's name or of a path."""
    known = presets()
    if str(config) in known:
        return known[str(config)]
    path = Path(config).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and (path / "experiment.yaml").is_file():
        return path / "experiment.yaml"
    raise UserError(f"there is no preset or YAML file {str(config)!r}; {suggest(str(config), known)}", usage=True)


def _preset_folder() -> Path:
    return Path(str(resources.files("pipeline"))) / "presets"


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys silently; here the second one is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return mapping


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it is not text in UTF-8"
        raise UserError(f"{path}{place} cannot be read as plain YAML: {reason}.", usage=True) from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold the keys {', '.join(Experiment.model_fields)}.", usage=True)
    return values


def _apply(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; write it as key=value, as in train.epochs=3", usage=True)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"the value of {key} is not YAML: {text!r}", usage=True) from None
        _set(values, key.split("."), value, key)
    return values


def _set(values: dict[str, Any], keys: list[str], value: Any, path: str) -> None:
    for position, key in enumerate(keys[:-1]):
        inner = values.setdefault(key, {})
        if isinstance(inner, str):  # the shorthand `model: resnet20` followed by model.width=32
            inner = values[key] = {"name": inner}
        if not isinstance(inner, dict):
            parent = ".".join(keys[: position + 1])
            raise UserError(f"{path} cannot be set: {parent} has no keys, set {parent} whole", usage=True)
        values = inner
    if keys[-1] == "name" and values.get("name") != value:
        values.clear()  # the options were those of the other name
    values[keys[-1]] = value


class _OptionsError(ValueError):
    """Carry what is wrong with a component's options out of the field that reads it."""

    def __init__(self, error: ValidationError, options: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error, self.options = error, options


def _explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Turn pydantic's first complaint into a sentence: the path, the value, what is allowed, the nearest name."""
    problems = error.errors(include_url=False)
    first, path = problems[0], _path(problems[0]["loc"], model)
    full = ".".join([*([prefix] if prefix else []), *path])
    if first["type"] == "extra_forbidden":
        return f"{full} is not a key; {suggest(path[-1], _section(path[:-1], model).model_fields)}"
    if first["type"] == "missing":
        return f"{full} is missing and has no default; set it, here or as {full}=..."
    if first["type"] == "value_error":
        cause = first["ctx"]["error"]
        if isinstance(cause, _OptionsError):
            return _explain(cause.error, cause.options, full)
        return f"{full}: {cause}"
    # A union complains once per branch: what is allowed is any of them.
    allowed = dict.fromkeys(_allowed(p) for p in problems if _path(p["loc"], model) == path)
    return f"{full} cannot be {first['input']!r}: it should be {' or '.join(allowed)}."


def _allowed(problem: dict[str, Any]) -> str:
    message = problem["msg"].removesuffix(", unable to parse string as a number").partition(", unable")[0]
    for start in ("Input should be ", "Value should be ", "Input should have "):
        message = message.removeprefix(start)
    return message[0].lower() + message[1:]


def _path(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Keep the keys and positions of an error's location; pydantic mixes the names of union branches in."""
    path: list[str] = []
    for position, part in enumerate(location):
        section = _section(path, model)
        is_unknown_key = position == len(location) - 1 and section is not None
        if isinstance(part, int) or is_unknown_key or (section is not None and part in section.model_fields):
            path.append(str(part))
    return path


def _section(path: Sequence[str], model: type[BaseModel]) -> type[BaseModel] | None:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, _Closed)):
            return None
        model = field.annotation
    return model
