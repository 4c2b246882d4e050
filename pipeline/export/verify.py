"""Check a bundle again, from what lies in it alone: the files, what they say of themselves, their answers, the test."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.evaluation.scoring import scoring_task
from pipeline.export.answers import repeat_comparison
from pipeline.export.bundle import unpack
from pipeline.export.certificate import Certificate, digests
from pipeline.export.gates import Gate, repeatable_gates
from pipeline.export.golden import replay
from pipeline.export.metadata import LABELS, Facts, split_labels
from pipeline.export.results import judge
from pipeline.runs import Run


@dataclass(frozen=True)
class Check:
    """One claim that was checked again: of what, what was found, and whether it holds."""

    of: str
    name: str
    found: str
    holds: bool


def verify(bundle: Path | str) -> list[Check]:
    """Re-check a bundle: an `export` folder, a run that has one, or the zip of one.

    Every file is there, unchanged, and nothing else, and each .tflite file has its gates; labels and preprocessing are
    those in each file's metadata; each file runs in a clean process and gives the recorded golden answers; the paired
    test on the recorded answers gives the certified figures; each gate that the certificate reports comes out the same.

    Raises UserError where there is no certificate to check, or the certificate itself was changed.
    """
    path = Path(bundle)
    if not path.is_file():
        return list(_checks(Run(path).export_dir if Run(path).is_run else path))
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder))
        # Nobody knows the folder, and it is gone when this is read: the zip is named instead.
        try:
            checks = list(_checks(Path(folder)))
        except UserError as error:
            raise UserError(str(error).replace(folder, str(path))) from None
    return [replace(one, found=one.found.replace(folder, str(path))) for one in checks]


def to_table(checks: list[Check]) -> pd.DataFrame:
    """Return one row per check."""
    rows = [
        {"of": one.of, "check": one.name, "found": one.found, "holds": "yes" if one.holds else "no"} for one in checks
    ]
    return pd.DataFrame(rows)


def _checks(folder: Path) -> Iterator[Check]:
    certificate = Certificate.read(folder)
    intact = _files(folder, certificate)
    yield intact
    if not intact.holds:  # what cannot be trusted is not run
        return
    # Whoever mended the digests may have written anything, so that its readers may raise anything.
    try:
        facts, answered = _facts(folder, certificate), replay(folder)
        layers, results = (pd.read_csv(folder / name) for name in ("parity.csv", "results.csv"))
        rows = results.set_index("variant")
    except Exception as error:
        yield Check("bundle", "contents", f"cannot be read ({_reason(error)})", False)
        return
    for variant, certified in certificate.gates.items():
        try:
            again = repeatable_gates(
                variant,
                (folder / f"{variant}.tflite").read_bytes(),
                facts,
                layers=layers,
                row=_scored(folder, certificate, facts, variant, rows.loc[variant]),
                margin=certificate.about["margin"],
                difference=answered.get(variant, float("nan")),
            )
        except Exception as error:
            yield Check(variant, "gates", f"cannot be demanded again ({_reason(error)})", False)
        else:
            yield from (_compare(variant, gate, certified) for gate in again)


def _files(folder: Path, certificate: Certificate) -> Check:
    found, listed = digests(folder), certificate.files
    models = [f"{variant}.tflite" for variant in certificate.gates]
    lost = [f"{name} is missing" for name in dict.fromkeys([*listed, *models]) if name not in found]
    added = [f"{name} is not part of it" for name in found if name not in listed]
    changed = [f"{name} was changed" for name, one in listed.items() if name in found and found[name] != one]
    bare = [f"{name} has no gates" for name in listed if name.endswith(".tflite") and name not in models]
    wrong = [*changed, *lost, *added, *bare, *([] if models else ["no .tflite file is certified"])]
    right = f"{len(found)} files, unchanged; verdict: {certificate.summary()}"
    return Check("bundle", "files", "; ".join(wrong) or right, not wrong)


def _facts(folder: Path, certificate: Certificate) -> Facts:
    preprocess = Preprocess.from_json((folder / "preprocess.json").read_text(encoding="utf-8"))
    labels = split_labels((folder / LABELS).read_text(encoding="utf-8"))
    shape = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["output_shape"]
    name = certificate.about["model"]["name"]
    return Facts(name, labels, preprocess.image_size, preprocess.channels, masks=len(shape) == 3)


def _scored(folder: Path, certificate: Certificate, facts: Facts, variant: str, row: pd.Series) -> dict:
    """Repeat the paired test; the score's own interval is taken over from results.csv."""
    about = certificate.about
    task = scoring_task(about["task"]["name"], facts.labels, about["task"]["options"])
    measure = task.measures[about["measure"]]
    score, difference = repeat_comparison(folder, measure, variant)
    repeated = {"measure": about["measure"], "score": score, "n": difference.n}
    return {**row, **repeated, **judge(difference, measure, about["margin"])}


def _compare(variant: str, again: Gate, certified: list[Gate]) -> Check:
    """Say whether a gate comes out as the certificate has it."""
    claims = [gate for gate in certified if gate.name == again.name]
    if len(claims) == 1 and _same(again, claims[0]):
        return Check(variant, again.name, again.figure, True)
    claimed = " and ".join(map(_told, claims)) or "no such gate"
    return Check(variant, again.name, f"{_told(again)}; the certificate has: {claimed}", False)


def _same(again: Gate, before: Gate) -> bool:
    if again.name == "golden":  # answers of another processor may differ in the figure
        again = replace(again, figure=before.figure)
    return again == before


def _told(gate: Gate) -> str:
    return f"{gate.verdict}, {gate.figure} ({gate.bound})"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
