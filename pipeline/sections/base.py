"""What a section is, and how a name of a registry is read with its options."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_serializer,
)

from pipeline.registry import Registry


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


class OptionsError(ValueError):
    """Carry what is wrong with a component's options out of the field that reads it."""

    def __init__(self, error: ValidationError, options: type[BaseModel]) -> None:
        super().__init__(str(error))
        self.error, self.options = error, options
