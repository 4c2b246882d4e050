"""A budget in words, "size<60kB, latency<0.4ms, drop<0.5pp", and what it allows."""

import re
from dataclasses import dataclass, fields
from typing import Self

from pipeline.errors import UserError
from pipeline.registry import suggest

_UNITS = {
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 2.0**10, "mib": 2.0**20},
    "latency": {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "drop": {"pp": 1.0},
}
_SPELLED = {"size": ("B", "kB", "KiB", "MB", "MiB"), "latency": ("us", "ms", "s"), "drop": ("pp",)}
_TERM = re.compile(r"\s*(?P<key>[a-z]+)\s*<=?\s*(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>\S*)\s*", re.IGNORECASE)
_EXAMPLE = '"size<60kB, latency<0.4ms, drop<0.5pp"'


@dataclass(frozen=True)
class Budget:
    """The most that a file may have: bytes, milliseconds on one thread, and points lost; None is no limit."""

    size: float | None = None
    latency: float | None = None
    drop: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a budget; raises UserError that names the term and what is allowed."""
        limits: dict[str, float] = {}
        for term in text.split(","):
            found = _TERM.fullmatch(term)
            if not found:
                raise UserError(f"the budget has {term.strip()!r}; write it like {_EXAMPLE}", usage=True)
            key, unit = found["key"].lower(), found["unit"].lower()
            if key not in _UNITS:
                raise UserError(f"a budget has no {key!r}; {suggest(key, _UNITS)}", usage=True)
            if key in limits:
                raise UserError(f"the budget gives {key} twice", usage=True)
            if unit not in _UNITS[key]:
                allowed = ", ".join(_SPELLED[key])
                raise UserError(f"the budget's {key} has the unit {found['unit']!r}; choose from {allowed}", usage=True)
            limits[key] = float(found["number"]) * _UNITS[key][unit]
        return cls(**limits)

    def allows(self, *, size: float, latency: float, drop: float = 0.0) -> bool:
        """Say whether a file of so many bytes, milliseconds and lost points is within all limits."""
        found = {"size": size, "latency": latency, "drop": drop}
        return all(limit is None or found[key] < limit for key, limit in self._limits())

    def __str__(self) -> str:
        """Write it as it would be given."""
        written = {"size": "{:,.0f} B", "latency": "{:g} ms", "drop": "{:g} pp"}
        return ", ".join(f"{key} < {written[key].format(limit)}" for key, limit in self._limits() if limit is not None)

    def _limits(self) -> list[tuple[str, float | None]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]
