"""The experiment: one YAML file, typed, closed and frozen, checked before TensorFlow is imported."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pipeline.errors import UserError
from pipeline.registry import MODELS, TASKS, suggest
from pipeline.sections import Compress, Data, Export, OptionsError, Search, Section, Train, Transfer, component

# What a trained run may set anew; everything else belongs to its model.
FREE = ("data.source", "data.batch_size", "data.cache_mb", "data.max_corrupt")


class Experiment(Section):
    """One experiment. Two equal experiments on one machine give the same run."""

    task: component(TASKS) = Field("classification", validate_default=True)
    data: Data
    model: component(MODELS)
    train: Train = Field(default_factory=Train)
    transfer: Transfer | None = None  # where the weights start, if not fresh
    export: Export = Field(default_factory=Export)
    compress: Compress | None = None  # of a run that was made from another one
    search: Search | None = None  # what `pipeline tune` tries; training does not look at it

    @field_validator("transfer")
    @classmethod
    def _has_weights_and_time(cls, transfer: Transfer | None, info: ValidationInfo) -> Transfer | None:
        if transfer is None or not {"model", "train"} <= info.data.keys():  # which were refused themselves
            return transfer
        weights, epochs = info.data["model"].options.get("weights"), info.data["train"].epochs
        if bool(transfer.base) == bool(weights):
            which = "both have weights; set one of them" if weights else "one of them has to name weights to start from"
            both = "transfer.base is a run or a .keras file, model.weights is for applications and hub models"
            raise ValueError(f"{both}: {which}")
        if transfer.every is not None and transfer.head_epochs >= epochs:
            raise ValueError(
                f"after {transfer.head_epochs} head_epochs none of {epochs} train.epochs is left for the stages; lower "
                "head_epochs, or set every to null and keep them frozen"
            )
        return transfer

    @model_validator(mode="after")
    def _teacher_fits(self) -> Self:
        for key, teacher in {"train.distill": self.train.distill, "data.pseudo": self.data.pseudo}.items():
            if teacher and self.data.folds:
                raise ValueError(f"a teacher may have seen the images that data.folds holds out; leave {key} out")
        if self.train.distill and self.train.curriculum and self.train.curriculum.sizes:
            raise ValueError("a teacher answers images of one size; leave out train.distill or train.curriculum.sizes")
        if self.data.pseudo and self.train.curriculum and self.train.curriculum.easy_first:
            raise ValueError(
                "no run has scored the pseudo-labelled images; leave out data.pseudo or train.curriculum.easy_first"
            )
        return self

    @classmethod
    def load(cls, config: str | Path = "digits", overrides: Sequence[str] = ()) -> Self:
        """Read a preset's name or a YAML file, apply `key=value` overrides, and check all of it.

        Raises UserError that names the key, the value and what is allowed.
        """
        path = find_config(config)
        return cls.parse(_apply(_read_yaml(path, cls), overrides), str(path.name))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Check a nested mapping; `where` names its file in messages."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{where}: {_explain(error, cls)}", usage=True) from None

    def replace(self, overrides: Sequence[str], *, only: Sequence[str] = ()) -> Self:
        """Return the experiment with `key=value` overrides applied; `only` names the keys that may differ then."""
        if not overrides:
            return self
        changed = self.parse(_apply(self.model_dump(mode="json"), overrides), "the experiment")
        if only and changed._without(only) != self._without(only):
            raise UserError(
                f"here only {', '.join(only)} can be set; the rest is part of the trained model", usage=True
            )
        if only and changed.data.source != self.data.source:  # folds are parts of the run's own images
            changed = changed.model_copy(update={"data": changed.data.model_copy(update={"folds": None})})
        return changed

    def _without(self, keys: Sequence[str]) -> dict[str, Any]:
        values = self.model_dump(mode="json")
        for key in keys:
            *sections, last = key.split(".")
            inner = values
            for section in sections:
                inner = inner[section]
            inner.pop(last)
        return values

    def compressed(self, base: str | Path, recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """Return the experiment of a run that is to be made from `base`, the run of this one.

        Args:
            recipe: the name of a shipped recipe or a YAML file with the keys of `compress`.
            overrides: `key=value`, such as compress.channels.ratio=0.5; what the model was trained with stays.
        """
        stages = _read_recipe(recipe) if recipe else {}
        values = self.model_dump(mode="json") | {"compress": {**stages, "base": str(base)}}
        changed = self.parse(_apply(values, overrides), f"compressing {base}")
        if (changed.task, changed.model, changed.data.channels) != (self.task, self.model, self.data.channels):
            raise UserError("task, model and data.channels are those of the run that is compressed", usage=True)
        four_bit, variants = changed.compress.qat and changed.compress.qat.bits == 4, changed.export.variants
        if four_bit and "w4a8" not in variants:  # the file that such a training is for
            export = changed.export.model_copy(update={"variants": [*variants, "w4a8"]})
            changed = changed.model_copy(update={"export": export})
        return changed

    def to_yaml(self) -> str:
        """Write every key, so that the text alone gives the same experiment again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)


def presets() -> dict[str, Path]:
    """Map the shipped experiments' names to their files."""
    return {path.stem: path for path in sorted(_preset_folder().glob("*.yaml"))}


def recipes() -> dict[str, Path]:
    """Map the shipped compression recipes' names to their files."""
    return {path.stem: path for path in sorted((_preset_folder() / "compress").glob("*.yaml"))}


def _read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read the keys of `compress` from a shipped recipe, a YAML file, or a compressed run."""
    known, path = recipes(), Path(recipe).expanduser()
    if str(recipe) in known:
        return _read_yaml(known[str(recipe)], Compress)
    if path.is_file():
        return _read_yaml(path, Compress)
    if (path / "experiment.yaml").is_file():
        stages = Experiment.load(path).compress
        if stages:
            return stages.model_dump(mode="json")
        raise UserError(f"{path} is not a compressed run; give a recipe, or make it one", usage=True)
    raise UserError(f"there is no recipe or YAML file {str(recipe)!r}; {suggest(str(recipe), known)}", usage=True)


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
        keys = [key.value for key, _ in node.value]  # before the keys of a merge (<<) are joined to them
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it is not text in UTF-8"
        raise UserError(f"{path}{place} cannot be read as plain YAML: {reason}.", usage=True) from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold the keys {', '.join(model.model_fields)}.", usage=True)
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
        if inner is None:  # a section that is left out
            inner = values[key] = {}
        if isinstance(inner, str):  # the shorthand `model: resnet20` followed by model.width=32
            inner = values[key] = {"name": inner}
        if not isinstance(inner, dict):
            parent = ".".join(keys[: position + 1])
            raise UserError(f"{path} cannot be set: {parent} has no keys, set {parent} whole", usage=True)
        values = inner
    if keys[-1] == "name" and values.get("name") != value:
        values.clear()  # the options were those of the other name
    values[keys[-1]] = value


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
        if isinstance(cause, OptionsError):
            return _explain(cause.error, cause.options, full)
        return f"{full}: {cause}" if full else str(cause)
    # A union complains once per branch: what is allowed is any of them.
    allowed = dict.fromkeys(_allowed(p) for p in problems if _path(p["loc"], model) == path)
    return f"{full} cannot be {first['input']!r}: it should be {' or '.join(allowed)}."


def _allowed(problem: dict[str, Any]) -> str:
    message = problem["msg"].removesuffix(", unable to parse string as a number").partition(", unable")[0]
    if message.startswith("Input should be a valid dictionary"):
        return "a mapping of keys"
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
        if part.isdigit():  # a place in a list of sections
            continue
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()  # a section may also be None
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
        if not sections:
            return None
        [model] = sections
    return model
