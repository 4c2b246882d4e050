"""Learning rates: what a range test found, and what the schedule will do."""

import pandas as pd
from matplotlib.ticker import NullFormatter

from pipeline.evaluation.figures.canvas import LIGHT, Theme, drawing, figure, grid, to_png


def rates(tested: pd.DataFrame, suggested: float | None, planned: pd.DataFrame, theme: Theme = LIGHT) -> bytes:
    """Draw the loss against the rising rate, with the suggestion and the experiment's peak, and the schedule."""
    peak = planned["learning_rate"].max()
    with drawing(theme):
        drawn = figure(9.0, 3.6)
        test, schedule = drawn.subplots(1, 2)
        test.plot(tested["learning_rate"], tested["loss"], ".", color=theme.faint, ms=4, label="one step")
        test.plot(tested["learning_rate"], tested["smoothed"], color=theme.first, label="smoothed")
        if suggested:
            test.axvline(suggested, color=theme.second, linestyle="--", label=f"falls fastest: {suggested:.2g}")
        test.axvline(peak, color=theme.ink, linestyle=":", label=f"the experiment's: {peak:.2g}")
        test.set_xscale("log")
        low, high = tested["smoothed"].min(), tested["smoothed"].iloc[0]
        test.set_ylim(low - 0.15 * (high - low), high + 0.6 * (high - low) + 1e-6)
        test.set_title("loss while the rate rises")
        test.set_xlabel("learning rate")
        test.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+00", ""))
        test.xaxis.set_minor_formatter(NullFormatter())
        test.legend(frameon=True, facecolor=theme.paper, edgecolor="none", framealpha=0.8)
        grid(test)
        schedule.plot(planned["share"], planned["learning_rate"], color=theme.first)
        schedule.set_title("the schedule")
        schedule.set_xlabel("share of the run")
        schedule.set_ylim(bottom=0)
        grid(schedule)
        return to_png(drawn)
