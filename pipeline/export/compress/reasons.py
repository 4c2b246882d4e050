"""Why a search ends as it does: one sentence for the file that was chosen, or for what could be reached."""

from typing import Any

import pandas as pd

from pipeline.budget import Budget
from pipeline.export.compress.comparison import BASE


def chosen(best: Any, points: pd.DataFrame, budget: Budget) -> str:
    """Say what was chosen, from how many."""
    return (
        f"chosen: {best.variant}, {best.bytes:,} bytes, {best.latency_ms_p50:.3g} ms, {best.difference:+.2f} points "
        f"[{best.difference_low:+.2f}, {best.difference_high:+.2f}] on {best.n} validation images; of "
        f"{points['within'].sum()} files within {budget} it loses least"
    )


def needless(own: Any, budget: Budget) -> str:
    """Say that the run's own file is within the budget."""
    return (
        f"nothing has to be compressed: the run's own {own.numbers} file has {own.bytes:,} bytes and takes "
        f"{own.latency_ms:.3g} ms, which is within {budget}; export it, or ask for less"
    )


def impossible(weighed: pd.DataFrame, budget: Budget) -> str:
    """Say which untrained file is the smallest, and which the fastest."""
    smallest, fastest = (weighed.loc[weighed[key].idxmin()] for key in ("bytes", "latency_ms"))
    return (
        f"nothing is within {budget}: the smallest file has {smallest['bytes']:,} bytes and takes "
        f"{smallest['latency_ms']:.3g} ms ({smallest['structure']}, {smallest['numbers']}), the fastest takes "
        f"{fastest['latency_ms']:.3g} ms with {fastest['bytes']:,} bytes ({fastest['structure']}, {fastest['numbers']})"
    )


def too_lossy(points: pd.DataFrame, budget: Budget) -> str:
    """Say which trained file of those that are small and fast enough loses least, or that there are none."""
    files = points[~points["variant"].str.startswith(BASE)]
    fitting = [budget.allows(size=row.bytes, latency=row.latency_ms_p50) for row in files.itertuples()]
    if not any(fitting):
        return _no_longer_within(files, budget)
    best = files.loc[files["difference"][fitting].idxmax()]
    return (
        f"no file within {budget}: of those that are small and fast enough, the best is {best['variant']}, which "
        f"changes the score by {best['difference']:+.2f} points [{best['difference_low']:+.2f}, "
        f"{best['difference_high']:+.2f}] on {best['n']} validation images; allow a larger drop, size or latency"
    )


def _no_longer_within(files: pd.DataFrame, budget: Budget) -> str:
    limits = {"bytes": budget.size, "latency_ms_p50": budget.latency}
    over = pd.DataFrame({key: files[key] / limit - 1 for key, limit in limits.items() if limit}).max(axis=1)
    nearest = files.loc[over.idxmin()]
    return (
        f"no file within {budget}: what was small and fast enough untrained is over a limit when trained; the nearest "
        f"is {nearest['variant']} with {nearest['bytes']:,} bytes and {nearest['latency_ms_p50']:.3g} ms, "
        f"{over.min():.1%} over; allow that much more"
    )
