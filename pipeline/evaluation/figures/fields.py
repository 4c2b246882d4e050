"""Pictures of what a network's units see, and of the memory that its layers take."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.patches import Rectangle

from pipeline.evaluation.figures.canvas import LIGHT, Theme, drawing, figure, grid, shorten, to_png


@dataclass(frozen=True)
class Seen:
    """What the centre unit of a layer sees: how much each pixel matters (H, W), and the square of the theory."""

    name: str
    matters: np.ndarray
    size: tuple[float, float]
    centre: tuple[float, float]
    effective: float


def receptive_fields(shown: Sequence[Seen], table: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw the measured field of each layer with its theoretical square, the field's growth, and the live memory.

    `table` is that of `inspect_model`. Shades grow with the square root, so that faint pixels are seen.
    """
    with drawing(theme):
        drawn = figure(9.0, 5.6 if shown else 2.9)
        upper, lower = drawn.subfigures(2, 1, height_ratios=(1, 1)) if shown else (None, drawn)
        if shown:
            for axes, one in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
                _field(axes, one, theme)
        growth, memory = lower.subplots(1, 2)
        _growth(growth, table, theme)
        _memory(memory, table, theme)
        return to_png(drawn)


def _field(axes: Axes, seen: Seen, theme: Theme) -> None:
    height, width = seen.matters.shape
    shades = LinearSegmentedColormap.from_list("matters", [theme.paper, theme.first])
    axes.imshow(seen.matters, cmap=shades, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    low = [c - r / 2 for c, r in zip(seen.centre, seen.size, strict=True)]
    square = Rectangle((low[1], low[0]), seen.size[1], seen.size[0], fill=False, edgecolor=theme.second, linestyle="--")
    axes.add_patch(square)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.spines[:].set_visible(True)
    axes.set_title(shorten(seen.name))
    axes.set_xlabel(f"sees {max(seen.size):g} (dashed), effectively {seen.effective:.0f}")


def _growth(axes: Axes, table: pd.DataFrame, theme: Theme) -> None:
    # A field that is not known leaves a gap.
    sizes = [max(field) if isinstance(field, list) else np.nan for field in table["field"]]
    image = max(table["output"].iloc[0][:2])
    axes.plot(range(len(sizes)), sizes, color=theme.first, drawstyle="steps-post")
    axes.axhline(image, color=theme.second, linestyle="--")
    axes.text(0, image, " the image", color=theme.second, va="bottom")
    axes.set_title("receptive field, pixels")
    axes.set_xlabel("layers, from input to output")
    axes.set_ylim(bottom=0)
    grid(axes, "y")


def _memory(axes: Axes, table: pd.DataFrame, theme: Theme) -> None:
    alive = table["alive_bytes"].to_numpy() / 1024
    axes.fill_between(range(len(alive)), alive, step="post", color=theme.first, alpha=0.25)
    axes.plot(range(len(alive)), alive, color=theme.first, drawstyle="steps-post")
    peak = int(alive.argmax())
    axes.plot(peak, alive[peak], "o", color=theme.second)
    axes.set_title(f"activations alive, KiB; at most {alive[peak]:,.0f}")
    axes.set_xlabel("layers, from input to output")
    axes.set_ylim(bottom=0)
    grid(axes, "y")
