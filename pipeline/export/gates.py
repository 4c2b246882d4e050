"""What a file must live up to: gates, each with a figure, a bound and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.golden import FLOAT_ANSWER, HYBRID_ANSWER, INTEGER_ANSWER
from pipeline.export.interpreter import INPUT, OUTPUT, LiteModel
from pipeline.export.latency import Latency
from pipeline.export.metadata import Facts
from pipeline.export.parity import BOUNDS, first_divergence

PASS, NOT_SHOWN, FAIL = "pass", "not shown", "fail"
_ORDER = (PASS, NOT_SHOWN, FAIL)
# Integer files: the rounding noise of no layer may be louder than the layer's signal.
NOISE_BOUND = 0.0
_FLOAT = ("float32", "float16", "weight_int4")  # whatever their weights are stored as
_SCORE = {"ok": PASS, "not shown": NOT_SHOWN, "worse": FAIL}


@dataclass(frozen=True)
class Gate:
    """One claim about a file: what was found, what was demanded, and whether it holds (pass, not shown, fail)."""

    name: str
    figure: str
    bound: str
    verdict: str


def worst(verdicts: Sequence[str]) -> str:
    """Return the verdict of a whole: that of its worst part."""
    return max(verdicts, key=_ORDER.index, default=PASS)


def repeatable_gates(
    variant: str,
    content: bytes,
    facts: Facts,
    *,
    layers: pd.DataFrame,
    row: Mapping[str, Any],
    margin: float,
    difference: float,
) -> list[Gate]:
    """Return the gates that rest on nothing but a bundle's own files, so that anyone can demand them again."""
    return [
        operators_gate(content),
        signature_gate(content, facts),
        metadata_gate(content, facts),
        parity_gate(layers, variant),
        score_gate(row, margin),
        golden_gate(variant, difference),
    ]


def operators_gate(content: bytes) -> Gate:
    """Demand builtin operators alone: no Flex, no custom code."""
    found = list(flatbuffer.operators(content))
    foreign = sorted({one.name for one in found if one.custom})
    figure = f"{len(found)} operators" + (f", foreign: {', '.join(foreign)}" if foreign else ", all builtin")
    return Gate("operators", figure, "builtin only", FAIL if foreign else PASS)


def signature_gate(content: bytes, facts: Facts) -> Gate:
    """Demand the one signature, and the shapes that the metadata promises."""
    height, width = facts.image_size
    spatial = (height, width) if facts.masks else ()
    wanted = ((1, height, width, facts.channels), (1, *spatial, len(facts.labels)))
    bound = f"{INPUT} {wanted[0]}, {OUTPUT} {wanted[1]}"
    try:
        model = LiteModel(content)
    except UserError as error:
        return Gate("signature", str(error), bound, FAIL)
    found = (model.input.shape, model.output.shape)
    figure = f"{INPUT} {found[0]} {model.input.dtype}, {OUTPUT} {found[1]} {model.output.dtype}"
    return Gate("signature", figure, bound, PASS if found == wanted else FAIL)


def metadata_gate(content: bytes, facts: Facts) -> Gate:
    """Demand that labels, size, colours and normalisation read back from the file are those of the bundle."""
    bound = "labels.txt and preprocess.json"
    try:
        found = Facts.read(content)
    except UserError as error:
        return Gate("metadata", str(error), bound, FAIL)
    differ = [name for name, value in vars(facts).items() if getattr(found, name) != value]
    figure = f"{', '.join(differ)} differ" if differ else f"{len(found.labels)} labels, raw pixels"
    return Gate("metadata", figure, bound, FAIL if differ else PASS)


def parity_gate(layers: pd.DataFrame, variant: str) -> Gate:
    """Demand that every layer computes as in Keras: a tight bound for float files, a stated one for integer files."""
    rows = layers[(layers["variant"] == variant) & layers["sqnr_db"].notna()]
    bound = BOUNDS.get(variant, NOISE_BOUND)
    noisiest = rows.loc[rows["sqnr_db"].idxmin()]
    figure = f"{noisiest['sqnr_db']:.1f} dB at {noisiest['layer']}, the noisiest of {len(rows)} layers"
    diverging = first_divergence(rows, bound)
    if diverging:
        figure += f"; diverges from {diverging} on"
    # How much noise a task bears is for its score to tell, so a noisy integer file has only not shown its parity.
    verdict = PASS if not diverging else FAIL if variant in BOUNDS else NOT_SHOWN
    return Gate("parity", figure, f"≥ {bound:g} dB", verdict)


def score_gate(row: Mapping[str, Any], margin: float) -> Gate:
    """Demand that a loss of more than the margin (points) against the Keras model is excluded; one row of results."""
    figure = (
        f"{row['measure']} {row['score']:.4f} [{row['low']:.4f}, {row['high']:.4f}], {row['difference']:+.2f} points "
        f"[{row['difference_low']:+.2f}, {row['difference_high']:+.2f}], n = {row['n']:,}"
    )
    if row["verdict"] == "not shown":
        needed = row["images_needed"]
        figure += "; no number of images would do" if np.isnan(needed) else f"; {needed:,.0f} images would be needed"
    bound = f"loss ≤ {margin:g} points, one-sided 95 %, paired"
    return Gate("score", figure, bound, _SCORE[row["verdict"]])


def golden_bound(variant: str) -> float:
    """Return what any client's answers to the golden images may differ by from the recorded ones."""
    if variant == "dynamic":
        return HYBRID_ANSWER
    return FLOAT_ANSWER if variant in _FLOAT else INTEGER_ANSWER


def golden_gate(variant: str, difference: float) -> Gate:
    """Demand that a clean process gives the recorded answers; `difference` is the largest, nan if it did not run."""
    bound = golden_bound(variant)
    figure = "did not run" if np.isnan(difference) else f"largest difference {difference:.2g}"
    return Gate("golden", figure, f"≤ {bound:.2g}, in a process of its own", PASS if difference <= bound else FAIL)


def latency_gate(size: int, timings: Sequence[Latency]) -> Gate:
    """State size and latency as measured; there is no bound, as a slow file is no fault."""
    figures = [
        f"{one.p50:.3g} ms [{one.p10:.3g}, {one.p90:.3g}] and {one.memory_mb:.0f} MiB on {one.threads} thread"
        + ("s" if one.threads > 1 else "")
        for one in timings
    ]
    return Gate("latency", f"{size:,} bytes, {', '.join(figures)}", "measured", PASS if timings else FAIL)


def deterministic_gate(first: str, second: str) -> Gate:
    """Demand that the file is made again byte for byte, by SHA-256."""
    figure = f"SHA-256 {first[:12]}" + ("" if first == second else f", then {second[:12]}")
    return Gate("deterministic", figure, "two builds are equal", PASS if first == second else FAIL)
