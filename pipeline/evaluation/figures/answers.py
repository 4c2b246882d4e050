"""Pictures of a model's answers: confusion matrix, calibration, worst mistakes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from pipeline.evaluation.figures.canvas import LIGHT, Theme, drawing, figure, grid, shorten, to_png, wrap


def confusion(table: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw counts by truth (rows) and prediction (columns), shaded by their share of the row.

    The shade grows with the square root of the share, so that rare mistakes are seen beside a full diagonal.
    """
    counts = table.to_numpy()
    kinds = len(counts)
    names = [shorten(name) for name in table.columns]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    label = float(np.clip(260 / kinds, 5.5, 10))
    side = float(np.clip(0.42 * kinds, 2.4, 12.0))
    margin = 0.5 + max(map(len, names)) * label / 130
    with drawing(theme):
        drawn = figure(side + margin, side + margin)
        axes = drawn.add_subplot()
        shades = LinearSegmentedColormap.from_list("shares", [theme.paper, theme.first])
        axes.imshow(shares, cmap=shades, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        upright = kinds <= 12 and max(map(len, names)) <= 3
        axes.set_xticks(range(kinds), names, rotation=0 if upright else 90, fontsize=label)
        axes.set_yticks(range(kinds), names, fontsize=label)
        axes.tick_params(length=0)
        axes.set_xlabel("prediction")
        axes.set_ylabel("truth")
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(kinds + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(kinds + 1) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.6 if kinds <= 30 else 0.25)
        axes.tick_params(which="minor", length=0)
        _write_counts(axes, counts, shares, theme, side / kinds)
        return to_png(drawn)


def _write_counts(axes, counts: np.ndarray, shares: np.ndarray, theme: Theme, cell: float) -> None:
    """Write every count that is not zero, as large as its cell (in inches) allows."""
    size = min(10.0, 72 * cell / (0.68 * max(2, len(f"{counts.max()}"))))
    if size < 4.5:
        return
    for row, column in np.argwhere(counts):
        # On light paper a full cell is dark, on dark paper it is light.
        colour = theme.paper if shares[row, column] > 0.3 else theme.ink
        axes.text(
            column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=colour, clip_on=True
        )


def calibration(table: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw accuracy against confidence, bin by bin with Wilson intervals, over the count of answers in each bin."""
    with drawing(theme):
        drawn = figure(5.2, 5.0)
        upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], linestyle="--", color=theme.ink, linewidth=1, label="as sure as it is right")
        spread = np.abs(
            np.stack([table["accuracy"] - table["accuracy_low"], table["accuracy_high"] - table["accuracy"]])
        )
        upper.errorbar(
            table["confidence"], table["accuracy"], yerr=spread, fmt="o", color=theme.first, capsize=3, label="answers"
        )
        upper.set_ylabel("share that is right")
        upper.set_ylim(-0.03, 1.03)
        upper.legend(loc="lower right")
        middle = (table["from"] + table["to"]) / 2
        lower.bar(middle, table["count"], width=(table["to"] - table["from"]) * 0.9, color=theme.first)
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        lower.set_ylim(bottom=0.7)
        lower.set_ylabel("answers")
        lower.set_xlabel("confidence of the answer")
        lower.set_xlim(0, 1.01)
        for axes in (upper, lower):
            grid(axes, "y")
        upper.yaxis.set_major_formatter(PercentFormatter(1.0))
        lower.xaxis.set_major_formatter(PercentFormatter(1.0))
        return to_png(drawn)


def mistakes(
    pictures: Sequence[tuple[np.ndarray, str]], legend: Mapping[str, tuple[int, int, int]], theme: Theme = LIGHT
) -> bytes:
    """Draw RGB pictures in a grid, each with its caption below, in reading order, and what their colours mean."""
    height, width = pictures[0][0].shape[:2]
    aspect = width / height
    across = int(np.clip(round(6 / aspect), 2, 6))
    tile = 9.6 / across
    captions = [wrap(caption, int(tile * 13), 4) for _, caption in pictures]
    text_height = 0.16 * max(caption.count("\n") + 1 for caption in captions) + 0.1
    shown = min(across, len(pictures))
    down = -(-len(pictures) // across)
    with drawing(theme):
        key = 0.25 * -(-len(legend) // 5)
        drawn = figure(tile * shown, (tile / aspect + text_height) * down + key)
        all_axes = drawn.subplots(down, shown, squeeze=False).flat
        for axes in all_axes[len(pictures) :]:
            axes.set_axis_off()
        for axes, (picture, _), caption in zip(all_axes, pictures, captions, strict=False):
            axes.imshow(picture, interpolation="nearest" if height < 200 else "antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(caption, fontsize=8.5, labelpad=3)
        patches = [
            Patch(label=shorten(name), facecolor=np.divide(colour, 255), edgecolor=theme.ink)
            for name, colour in legend.items()
        ]
        if patches:
            drawn.legend(handles=patches, loc="outside lower left", ncols=min(5, 2 * shown), fontsize=8.5)
        return to_png(drawn)
