"""Pictures of a run: training curves, and the exported files beside each other."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.evaluation.figures.canvas import LIGHT, Theme, drawing, figure, grid, shorten, to_png


def curves(history: pd.DataFrame, theme: Theme = LIGHT) -> dict[str, bytes]:
    """Draw every quantity that has a validation column against the epoch, and the learning rate: name to picture."""
    quantities = [name for name in history.columns if f"val_{name}" in history.columns]
    quantities += [name for name in ("learning_rate",) if name in history.columns]
    return {name: _curve(history, name, theme) for name in quantities}


def _curve(history: pd.DataFrame, name: str, theme: Theme) -> bytes:
    with drawing(theme):
        drawn = figure(5.0, 3.3)
        axes = drawn.add_subplot()
        marked = "o" if len(history) <= 40 else None
        axes.plot(
            history["epoch"], history[name], color=theme.first, label="training", linestyle="--", marker=marked, ms=3.5
        )
        if f"val_{name}" in history.columns:
            axes.plot(
                history["epoch"], history[f"val_{name}"], color=theme.second, label="validation", marker=marked, ms=3.5
            )
            if f"val_int8_{name}" in history.columns:
                rounded = history.dropna(subset=[f"val_int8_{name}"])
                line = {"color": theme.ink, "linestyle": ":", "marker": "s", "ms": 3.5}
                axes.plot(rounded["epoch"], rounded[f"val_int8_{name}"], label="validation, int8 kernels", **line)
            axes.legend()
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        grid(axes)
        return to_png(drawn)


def variants(results: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw score with interval, file size and latency of each exported file: one row each, three columns.

    Rows, since files of equal score and speed would lie upon each other in a scatter.
    """
    rows = np.arange(len(results))[::-1]
    with drawing(theme):
        drawn = figure(9.0, 1.0 + 0.38 * len(results))
        score, size, latency = drawn.subplots(1, 3, sharey=True, width_ratios=(1.3, 1, 1))
        spread = np.abs(np.stack([results["score"] - results["low"], results["high"] - results["score"]]))
        score.errorbar(results["score"], rows, xerr=spread, fmt="o", color=theme.first, capsize=3)
        score.set_title("score, 95 % interval")
        score.set_yticks(rows, [shorten(name) for name in results["variant"]])
        score.set_ylim(-0.6, len(results) - 0.4)
        score.xaxis.set_major_locator(MaxNLocator(5))
        grid(score, "x")
        _bars(size, rows, results["bytes"] / 1024, "KiB", "file size", theme)
        _bars(latency, rows, results["latency_ms_p50"], "ms", "latency, median", theme)
        return to_png(drawn)


def parity(layers: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw the signal to noise inside each file, layer by layer: one line per variant, named at its end."""
    with drawing(theme):
        drawn = figure(9.0, 3.6)
        axes = drawn.add_subplot()
        styles = ("-", "--", ":", "-.")
        for index, (variant, rows) in enumerate(layers.dropna(subset=["sqnr_db"]).groupby("variant", sort=False)):
            color = (theme.first, theme.second, theme.ink)[index % 3]
            style = styles[index % len(styles)]
            axes.plot(range(len(rows)), rows["sqnr_db"], style, color=color, label=shorten(variant), linewidth=1.4)
        axes.set_title("signal to noise, dB, layer by layer")
        axes.set_xlabel("layers with a tensor of their own, from input to output")
        axes.set_ylim(0, 125)
        drawn.legend(ncols=6, loc="outside lower left", fontsize=9, handlelength=3)
        grid(axes, "y")
        return to_png(drawn)


def front(points: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw the files of a search: score against size, and against latency.

    Those that no other beats in all three are filled, the chosen one has a ring, and the original's are squares.
    """
    with drawing(theme):
        drawn = figure(9.0, 4.0)
        panels = drawn.subplots(1, 2, sharey=True)
        original = points["variant"].str.startswith("base ")
        for axes, column, label in zip(panels, ("bytes", "latency_ms_p50"), ("KiB", "ms, median"), strict=True):
            cost = points[column] / (1024 if column == "bytes" else 1)
            for kind, marker, color in ((~original, "o", theme.first), (original, "s", theme.second)):
                filled = kind & points["on_front"]
                for chosen, face in ((filled, color), (kind & ~filled, "none")):
                    axes.scatter(cost[chosen], 100 * points["score"][chosen], 42, face, marker=marker, edgecolors=color)
            best = points["chosen"]
            axes.scatter(cost[best], 100 * points["score"][best], 190, "none", edgecolors=theme.ink, linewidths=1.5)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel(label)
            grid(axes)
        panels[0].set_title("file size")
        panels[1].set_title("latency on one thread")
        panels[0].set_ylabel("score on validation images, %")
        scores = 100 * points["score"]
        panels[0].set_ylim(scores.min() - 1, min(scores.max() + 1, 100.5))
        return to_png(drawn)


def _bars(axes: Axes, rows: np.ndarray, values: pd.Series, unit: str, title: str, theme: Theme) -> None:
    bars = axes.barh(rows, values.fillna(0), height=0.55, color=theme.first)
    texts = [
        "–" if np.isnan(value) else f"{value:,.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"
        for value in values
    ]
    axes.bar_label(bars, texts, padding=3, color=theme.ink)
    axes.set_xlim(0, max(values.max(), 1e-9) * 1.45)
    axes.set_title(title)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
