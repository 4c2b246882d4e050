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
        upper.errorbar(
            *(table["confidence"], table["accuracy"], _spread(table)),
            fmt="o",
            color=theme.first,
            capsize=3,
            label="answers",
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


def reliability(bins: pd.DataFrame, errors: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw accuracy against confidence of every model in a panel of its own, the first model's as squares in all.

    Args:
        bins: the calibration tables, by `variant`; larger points stand for more answers.
        errors: one row per variant with `calibration_error`, its `_low` and `_high`; the first is compared with.
    """
    across = min(4, len(errors))
    down = -(-len(errors) // across)
    first = errors["variant"].iloc[0]
    reference = bins[bins["variant"] == first]
    with drawing(theme):
        drawn = figure(2.4 * across + 0.3, 2.6 * down + 0.2)
        panels = drawn.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(errors) :]:
            axes.set_axis_off()
        for axes in panels.flat[max(0, len(errors) - across) : len(errors)]:
            axes.tick_params(labelbottom=True)
        for axes, row in zip(panels.flat, errors.itertuples(), strict=False):
            axes.plot([0, 1], [0, 1], linestyle="--", color=theme.ink, linewidth=0.8)
            own = bins[bins["variant"] == row.variant]
            size = 8 + 60 * own["count"] / own["count"].sum()
            axes.errorbar(own["confidence"], own["accuracy"], _spread(own), fmt="none", ecolor=theme.first, linewidth=1)
            axes.scatter(own["confidence"], own["accuracy"], size, theme.first, zorder=3)
            if row.variant != first:
                axes.plot(
                    *(reference["confidence"], reference["accuracy"], "s:"),
                    **{"color": theme.second, "markerfacecolor": "none", "ms": 6, "linewidth": 1},
                )
            axes.set_title(shorten(row.variant, 20))
            low, high = 100 * row.calibration_error_low, 100 * row.calibration_error_high
            text = f"off by {100 * row.calibration_error:.1f}\n({low:.1f} to {high:.1f})"
            axes.text(0.98, 0.03, text, ha="right", va="bottom", fontsize=8.5, transform=axes.transAxes)
            grid(axes)
        panels[0, 0].set(xlim=(-0.02, 1.04), ylim=(-0.04, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        for axis in (panels[0, 0].xaxis, panels[0, 0].yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        drawn.supxlabel("confidence of the answer", fontsize=10)
        drawn.supylabel("share that is right", fontsize=10)
        return to_png(drawn)


def _spread(table: pd.DataFrame) -> np.ndarray:
    """Return by how far the intervals of the accuracy reach down and up, (2, N)."""
    return np.abs(np.stack([table["accuracy"] - table["accuracy_low"], table["accuracy_high"] - table["accuracy"]]))


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
