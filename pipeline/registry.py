"""Tables of named builders whose names and options can be read without importing them.

An entry is a function under `@MODELS.register`; its keyword-only arguments are the options a person may
set in an experiment. Both are read from the source text, so that `pipeline --help`, `pipeline list` and a
wrong experiment never import TensorFlow.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    create_model,
)

from pipeline.errors import UserError

Fraction = Annotated[float, Field(ge=0, le=1)]

# The whole vocabulary of option types: an annotation outside it is refused when the entry is read.
_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Fraction": Fraction,
    "NonNegativeFloat": NonNegativeFloat,
    "NonNegativeInt": NonNegativeInt,
    "PositiveFloat": PositiveFloat,
    "PositiveInt": PositiveInt,
}
_GENERICS: dict[str, Any] = {"list": list, "tuple": tuple, "dict": dict, "Literal": Literal}


class Registry:
    """Map names to builders found in one package, imported only when something is built."""

    def __init__(self, table: str, kind: str, package: str) -> None:
        """`table` is the variable the decorators use, `kind` the word in messages, `package` the folder."""
        self.table, self.kind, self.package = table, kind, package
        self._builders: dict[str, Callable[..., Any]] = {}
        self._bound: dict[str, dict[str, Any]] = {}

    def register(self, function: Callable[..., Any] | None = None, /, **variants: dict[str, Any]) -> Callable[..., Any]:
        """Register a builder under its own name, or under each variant's name with that row's arguments bound.

        Bound arguments are no longer options. A name that is already taken raises ValueError.
        """
        if function is None:
            return functools.partial(self._add, variants)
        return self._add({function.__name__: {}}, function)

    def _add(self, variants: dict[str, dict[str, Any]], function: Callable[..., Any]) -> Callable[..., Any]:
        for name, bound in variants.items():
            known = self._builders.get(name)
            # A notebook cell that is run again replaces its own function; another module's is never replaced.
            if known is not None and known.__module__ != function.__module__:
                raise ValueError(f"the {self.kind} {name!r} is already registered by {known.__module__}")
            self._builders[name], self._bound[name] = function, bound
        Registry.options.cache_clear()
        return function

    def names(self) -> list[str]:
        """List every name, resnet8 before resnet14, without importing the package."""
        return sorted({*self._entries, *self._builders}, key=_by_number)

    def representatives(self) -> list[str]:
        """List one name of every builder of the package: its row that ends in `_tiny`, else its first."""
        rows: dict[str, list[str]] = {}
        for name, entry in self._entries.items():
            rows.setdefault(entry.builder, []).append(name)
        chosen = (next((name for name in names if name.endswith("_tiny")), names[0]) for names in rows.values())
        return sorted(chosen, key=_by_number)

    def describe(self, name: str) -> str:
        """Return the first line of the builder's docstring."""
        self._require(name)
        if name in self._entries:
            docstring = self._entries[name].docstring
        else:
            docstring = inspect.getdoc(self._builders[name]) or ""
        return docstring.partition("\n")[0]

    @functools.cache  # noqa: B019  registries live as long as the process
    def options(self, name: str) -> type[BaseModel]:
        """Return the pydantic model of an entry's options, with their types and defaults."""
        self._require(name)
        if name in self._entries:
            entry = self._entries[name]
        else:
            entry = _read_function(_function_node(inspect.getsource(self._builders[name])), self._bound[name])
        config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
        return create_model(name, __config__=config, **entry.fields)

    def build(self, name: str, /, *args: Any, **options: Any) -> Any:
        """Call the builder: positional arguments are the registry's contract, keywords the entry's options."""
        self.load()
        self._require(name)
        return self._builders[name](*args, **self._bound[name], **options)

    def load(self) -> None:
        """Import every module of the package, which fills the table."""
        for module in _modules(self.package):
            importlib.import_module(module)

    def nearest(self, name: str) -> str:
        """Say which name was probably meant, as a clause for a message, or list them all."""
        return suggest(name, self.names())

    def _require(self, name: str) -> None:
        if name not in self._entries and name not in self._builders:
            raise UserError(f"there is no {self.kind} {name!r}; {self.nearest(name)}", usage=True)

    @functools.cached_property
    def _entries(self) -> dict[str, "_Entry"]:
        entries: dict[str, _Entry] = {}
        for path in _files(self.package):
            text = path.read_text(encoding="utf-8")
            if f"@{self.table}.register" in text:
                entries.update(_read_entries(text, self.table))
        return entries


class _Entry(types.SimpleNamespace):
    """What the source text says of one entry: its builder's name and docstring, and `fields` as pydantic wants them."""

    builder: str
    docstring: str
    fields: dict[str, tuple[Any, Any]]


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names was probably meant, as a clause for a message, or list them all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=5)
    # Of equally similar names the one that begins alike was meant: resnet20 rather than resnet32 for resnet21.
    best = max(close, key=lambda one: (_likeness(name, one), _common_start(name, one)), default=None)
    return f"did you mean {best!r}?" if best else f"known: {', '.join(known) or 'none'}."


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", name)]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _common_start(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _modules(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return [package, *(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations, f"{package}."))]


def _files(package: str) -> list[Path]:
    # Not find_spec on the package itself: that would import its parents, and with them TensorFlow.
    return sorted(Path(__file__).parent.joinpath(*package.split(".")[1:]).glob("*.py"))


def _read_entries(text: str, table: str) -> dict[str, _Entry]:
    entries = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Attribute(value=ast.Name(id=name), attr="register") if name == table:
                    entries[node.name] = _read_function(node, {})
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="register")) if name == table:
                    for variant, row in _rows(decorator):
                        entries[variant] = _read_function(node, {key.value: None for key in row.keys})
    return entries


def _rows(decorator: ast.Call) -> Iterator[tuple[str, ast.Dict]]:
    """Yield the variants of `register(name={...}, **{"a name with a colon": {...}})`."""
    for keyword in decorator.keywords:
        if keyword.arg is None:
            yield from ((key.value, row) for key, row in zip(keyword.value.keys, keyword.value.values, strict=True))
        else:
            yield keyword.arg, keyword.value


def _function_node(source: str) -> ast.FunctionDef:
    return next(node for node in ast.parse(textwrap.dedent(source)).body if isinstance(node, ast.FunctionDef))


def _read_function(node: ast.FunctionDef, bound: dict[str, Any]) -> _Entry:
    fields = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if argument.arg not in bound:
            value = ... if default is None else ast.literal_eval(default)
            fields[argument.arg] = (_resolve(argument.annotation), value)
    return _Entry(builder=node.name, docstring=ast.get_docstring(node) or "", fields=fields)


def _resolve(node: ast.expr | None) -> Any:
    """Turn an annotation into a type through the vocabulary above: nothing is evaluated."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in _TYPES:
            return _TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_resolve(left), _resolve(right)]  # noqa: UP007  None has no `|`
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return Literal[ast.literal_eval(values)]
        case ast.Subscript(value=ast.Name(id=name), slice=inner) if name in _GENERICS:
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _GENERICS[name][tuple(... if _is_ellipsis(part) else _resolve(part) for part in parts)]
    raise TypeError(f"an option cannot have the type {ast.unparse(node) if node else 'nothing'}")


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


SOURCES = Registry("SOURCES", "source", "pipeline.data.sources")
AUGMENTATIONS = Registry("AUGMENTATIONS", "augmentation", "pipeline.data.augment")
MODELS = Registry("MODELS", "model", "pipeline.models")
TASKS = Registry("TASKS", "task", "pipeline.tasks")
OPTIMIZERS = Registry("OPTIMIZERS", "optimizer", "pipeline.training")
SCHEDULES = Registry("SCHEDULES", "schedule", "pipeline.training")
RECIPES = Registry("RECIPES", "recipe", "pipeline.export")
