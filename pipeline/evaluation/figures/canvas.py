"""The paper that every figure is drawn on."""

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_DPI = 144


@dataclass(frozen=True)
class Theme:
    """Colours of one paper; `first` and `second` are told apart with any kind of colour vision."""

    paper: str
    ink: str
    faint: str
    first: str
    second: str


LIGHT = Theme(paper="#ffffff", ink="#1b1f24", faint="#d8dce1", first="#0072b2", second="#d55e00")
DARK = Theme(paper="#16191e", ink="#e4e7eb", faint="#3b424b", first="#56b4e9", second="#e69f00")


@contextlib.contextmanager
def drawing(theme: Theme) -> Iterator[None]:
    """Set the style for everything that is created and drawn inside."""
    style = {
        "text.parse_math": False,  # class names may hold dollar signs
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.edgecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
    }
    with rc_context(style), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the tables have it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches; no window and no pyplot state."""
    return Figure(figsize=(width, height), layout="constrained")


def to_png(drawn: Figure) -> bytes:
    """Return the figure as a PNG file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def grid(axes: Axes, axis: str = "both") -> None:
    """Draw a faint grid behind the data."""
    axes.grid(axis=axis, linewidth=0.8)
    axes.set_axisbelow(True)


def shorten(name: str, width: int = 18) -> str:
    """Cut a long name so that it fits a label; line breaks and control characters become spaces."""
    name = "".join(character if character.isprintable() else " " for character in str(name))
    return name if len(name) <= width else name[: width - 1] + "…"


def wrap(text: str, width: int, lines: int) -> str:
    """Break a caption into at most this many lines."""
    return "\n".join(shorten(line, width) for line in textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))
