"""The picture of a search: every trial a line through its values to its score."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.figures.canvas import LIGHT, Theme, drawing, figure, shorten, to_png

_BESIDE = ("id", "score", "low", "high", "size", "latency", "status", "reason")


def parallel_coordinates(
    table: pd.DataFrame,
    objective: str,
    logarithmic: Sequence[str] = (),
    theme: Theme = LIGHT,
    *,
    column: str = "score",
) -> bytes:
    """Draw trials, best first, as lines through one axis per key and one for the objective, a column of the table.

    The best is thick and has markers, the better half is solid, the rest dashed, and what has no score ends dotted
    before the last axis.
    """
    keys = [key for key in table.columns if key not in _BESIDE]
    places = {key: _places(table[key], key in logarithmic) for key in [*keys, column]}
    scored = int(table[column].notna().sum())
    with drawing(theme):
        drawn = figure(max(5.0, 1.7 * (len(keys) + 1)), 4.2)
        axes = drawn.add_subplot()
        for rank in reversed(range(len(table))):
            columns = [*keys, column] if rank < scored else keys
            line = [places[key][0][rank] for key in columns]
            style = {"linestyle": "--", "linewidth": 0.9, "color": theme.ink, "alpha": 0.55}
            if rank == 0:
                style = {"linestyle": "-", "linewidth": 3.0, "color": theme.second, "marker": "o", "zorder": 3}
            elif rank < scored / 2:
                style = {"linestyle": "-", "linewidth": 1.6, "color": theme.first}
            elif rank >= scored:
                style = {"linestyle": ":", "linewidth": 1.2, "color": theme.ink, "marker": "x", "markevery": [-1]}
            axes.plot(range(len(line)), line, **style)
        for position, key in enumerate([*keys, column]):
            axes.axvline(position, color=theme.faint, zorder=0)
            for place, label in places[key][1]:
                axes.text(position + 0.02, place + (0.015 if place else -0.045), shorten(label, 14), fontsize=8)
        names = [key.replace(".", ".\n") for key in keys]
        axes.set_xticks(range(len(keys) + 1), [*names, objective], fontsize=8)
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlim(-0.1, len(keys) + 0.45)
        axes.set_ylim(-0.06, 1.1)
        axes.set_title("trials: best thick, better half solid, rest dashed, no score dotted")
        return to_png(drawn)


def _places(values: pd.Series, logarithmic: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where each value lies from 0 to 1, and the places that have a label."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        texts = [str(value) for value in values]
        known = sorted(set(texts))
        at = {text: index / max(len(known) - 1, 1) for index, text in enumerate(known)}
        return [at[text] for text in texts], [(place, text) for text, place in at.items()]
    numbers = np.log(values) if logarithmic else values
    low, high = float(numbers.min()), float(numbers.max())
    ends = dict.fromkeys(
        ((0.0, float(values.min())), (1.0, float(values.max()))) if high > low else ((0.5, float(values.min())),)
    )
    places = (numbers - low) / (high - low) if high > low else numbers * 0 + 0.5
    return places.tolist(), [(place, f"{value:.4g}") for place, value in ends]
