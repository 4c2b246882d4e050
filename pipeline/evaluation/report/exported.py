"""The sections of a report that an export fills."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.report.reading import Picture, read_csv, read_json
from pipeline.evaluation.report.tables import Table, title, to_table
from pipeline.runs import Run

_CHANGES = 20  # classes
_SCORED = ("score", "low", "high", "difference", "difference_low", "difference_high")
_COST = ("bytes", "zipped", "times_smaller", "latency_ms_p50", "times_faster")
_COMPARED = ("variant", *_COST, *_SCORED, "p_value", "verdict")
_MARKS = {"pass": "✓", "not shown": "not shown", "fail": "✗ failed"}
_SEARCHED = ("variant", "bytes", "latency_ms_p50", *_SCORED, "within", "on_front", "chosen")


def export_sections(run: Run) -> dict[str, Any]:
    """Return the variables of the template that come from `export/` and `search/`; what is not there is None."""
    folder, compress = run.export_dir, run.experiment.compress
    return {
        "export": _files(folder / "results.csv"),
        "parity": _parity(run),
        "lint": _files(folder / "lint.csv"),
        "sensitivity": _files(folder / "sensitivity.csv"),
        "certificate": _certificate(run),
        "changes": _changes(run),
        "reliability": _reliability(run),
        "base": compress.base if compress else None,
        "compression": _files(folder / "compression.csv", _COMPARED),
        "search": _search(run),
    }


def _files(path: Path, columns: Sequence[str] = ()) -> tuple[Table, Picture | None] | None:
    """Return the table of exported files, or these columns of it, and its picture."""
    results = read_csv(path)
    if results is None or results.empty:
        return None
    picture = None
    if {"variant", "score", "low", "high", "bytes", "latency_ms_p50"} <= set(results.columns):
        words = "Score, file size and latency of each exported file, as in the table."
        picture = Picture.of(lambda theme: figures.variants(results, theme), words)
    return to_table(results[list(columns)] if columns else results), picture


def _parity(run: Run) -> Picture | None:
    layers = read_csv(run.export_dir / "parity.csv")
    if layers is None:
        return None
    words = "Signal to noise inside each file, layer by layer; the numbers are in export/parity.csv."
    return Picture.of(lambda theme: figures.parity(layers, theme), words)


def _certificate(run: Run) -> tuple[str, Table, Table] | None:
    """Return the verdict, one row per file with each gate's verdict, and every gate with its figure and bound."""
    path = run.export_dir / "certificate.json"
    if not path.is_file():
        return None
    values = read_json(path)
    rows, gates = [], []
    for name, variant in values["variants"].items():
        marks = {gate["name"]: _MARKS[gate["verdict"]] for gate in variant["gates"]}
        rows.append({"variant": name, **marks, "certificate": variant["verdict"]})
        gates += [{"variant": name, "gate": gate.pop("name"), **gate} for gate in variant["gates"]]
    return values["verdict"], to_table(pd.DataFrame(rows)), to_table(pd.DataFrame(gates))


def _changes(run: Run) -> tuple[Table, Table | None, dict[str, Any] | None] | None:
    """Return every measure of every file, what changed per class, and the images whose answer flipped."""
    measures, change = read_csv(run.export_dir / "measures.csv"), read_csv(run.export_dir / "per_class_change.csv")
    if measures is None:
        return None
    flips = run.export_dir / "flips.json"
    per_class = to_table(change[change["change"] != 0].head(_CHANGES)) if change is not None else None
    measures["measure"] = measures["measure"].map(title)
    return to_table(measures), per_class, read_json(flips) if flips.is_file() else None


def _search(run: Run) -> tuple[str, Picture, Table] | None:
    points = read_csv(run.search_dir / "points.csv")
    if points is None:
        return None
    for flag in ("within", "on_front", "chosen"):
        points[flag] = points[flag] == "True"
    words = "Score against size and latency of every file that the search measured, as in the table."
    reason = (run.search_dir / "reason.txt").read_text(encoding="utf-8")
    return reason, Picture.of(lambda theme: figures.front(points, theme), words), to_table(points[list(_SEARCHED)])


def _reliability(run: Run) -> tuple[Picture, Table] | None:
    bins, errors = (read_csv(run.export_dir / name) for name in ("calibration.csv", "calibration_error.csv"))
    if bins is None or errors is None:
        return None
    words = "Reliability of the Keras model and of each exported file; the errors are in the table below."
    return Picture.of(lambda theme: figures.reliability(bins, errors, theme), words), to_table(errors)
