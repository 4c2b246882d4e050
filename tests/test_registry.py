"""Entries read from source text are those that are registered when the package is imported."""

import inspect
import typing

import pytest
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.registry import (
    AUGMENTATIONS,
    MODELS,
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
    SOURCES,
    TASKS,
    Registry,
)

REGISTRIES = [SOURCES, AUGMENTATIONS, MODELS, TASKS, OPTIMIZERS, SCHEDULES, RECIPES]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_source_text_and_imports_agree(registry: Registry):
    read = set(registry._entries)
    registry.load()
    assert read == set(registry._builders)
    assert read == set(registry.names())
    for name in read:
        signature = inspect.signature(registry._builders[name])
        options = registry.options(name).model_fields
        expected = {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert set(options) == set(expected) - set(registry._bound[name])
        hints = typing.get_type_hints(registry._builders[name], include_extras=True)
        for option, field in options.items():
            default = expected[option].default
            assert field.is_required() == (default is inspect.Parameter.empty)
            assert field.is_required() or field.default == default
            # pydantic moves an Annotated's bounds into the field: compare what is under them.
            assert field.annotation == hints[option] or field.annotation == typing.get_args(hints[option])[0]
        assert registry.describe(name), f"{registry.kind} {name} has no docstring"


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match=r"no model 'resnet21'; did you mean 'resnet20'"):
        MODELS.options("resnet21")


def test_a_name_registered_twice_in_two_modules_is_refused():
    registry = Registry("THINGS", "thing", "pipeline.ops")

    def one() -> int:
        """Give one."""
        return 1

    registry.register(one)
    registry.register(one)  # a notebook cell run again
    twin = type(one)(one.__code__, {}, "one")
    twin.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="already registered"):
        registry.register(twin)


def test_a_notebook_cell_run_again_brings_its_new_options():
    registry = Registry("THINGS", "thing", "pipeline.ops")

    def thing(*, width: int = 1) -> int:
        """Make a thing."""
        return width

    registry.register(thing)
    assert set(registry.options("thing").model_fields) == {"width"}

    def thing(*, depth: int = 1) -> int:
        """Make a thing."""
        return depth

    registry.register(thing)
    assert set(registry.options("thing").model_fields) == {"depth"}


def test_variants_bind_their_row_and_hide_it_from_the_options():
    registry = Registry("THINGS", "thing", "pipeline.ops")

    @registry.register(small={"depth": 1}, large={"depth": 9})
    def thing(base: int, *, depth: int, width: int = 2) -> tuple[int, int, int]:
        """Make a thing."""
        return base, depth, width

    assert registry.names() == ["large", "small"]
    assert registry.build("large", 5, width=3) == (5, 9, 3)
    assert set(registry.options("small").model_fields) == {"width"}
    assert registry.describe("small") == "Make a thing."
    with pytest.raises(ValidationError):
        registry.options("small")(width="wide")
    with pytest.raises(ValidationError):
        registry.options("small")(depth=3)


def test_a_builder_is_represented_by_its_tiny_row_or_its_first():
    names = MODELS.representatives()
    assert {"lenet5", "resnet8", "resnet_tiny"} < set(names)
    assert not {"resnet14", "resnet18"} & set(names)
