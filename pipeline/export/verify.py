"""Check a bundle again, from what lies in it alone: the files, what they say of themselves, their answers, the test."""

import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.evaluation.scoring import scoring_task
from pipeline.export.answers import repeat_comparison
from pipeline.export.certificate import Certificate, digests
from pipeline.export.gates import (
    PASS,
    Gate,
    golden_gate,
    metadata_gate,
    operators_gate,
    parity_gate,
    score_gate,
    signature_gate,
)
from pipeline.export.golden import replay
from pipeline.export.metadata import Facts
from pipeline.export.results import judge
from pipeline.runs import Run

_MOST_BYTES = 2**32  # of an unpacked bundle


@dataclass(frozen=True)
class Check:
    """One claim that was checked again: of what, what was found, and whether it holds."""

    of: str
    name: str
    found: str
    holds: bool


def verify(bundle: Path | str) -> list[Check]:
    """Re-check a bundle: an `export` folder, a run that has one, or the zip of one.

    Every file is there, unchanged, and nothing else; labels and preprocessing are those in each file's metadata; each
    file runs in a clean process and gives the recorded golden answers; the paired test on the recorded answers gives
    the certified figures; each gate that the certificate reports comes out the same.

    Raises UserError where there is no certificate to check, or the certificate itself was changed.
    """
    path = Path(bundle)
    if path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            _unpack(path, Path(folder))
            return list(_checks(Path(folder)))
    return list(_checks(Run(path).export_dir if Run(path).is_run else path))


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
    facts = _facts(folder, certificate)
    answered = replay(folder)
    layers, results = (pd.read_csv(folder / name) for name in ("parity.csv", "results.csv"))
    rows = results.set_index("variant")
    for variant, gates in certificate.gates.items():
        content = (folder / f"{variant}.tflite").read_bytes()
        again = [
            operators_gate(content),
            signature_gate(content, facts),
            metadata_gate(content, facts),
            parity_gate(layers, variant),
            score_gate(_scored(folder, certificate, facts, variant, rows.loc[variant]), certificate.about["margin"]),
            golden_gate(variant, answered.get(variant, float("nan"))),
        ]
        yield from (_compare(variant, gate, gates) for gate in again)


def _files(folder: Path, certificate: Certificate) -> Check:
    found = digests(folder)
    lost = [f"{name} is missing" for name in certificate.files if name not in found]
    added = [f"{name} is not part of it" for name in found if name not in certificate.files]
    changed = [f"{name} was changed" for name, one in certificate.files.items() if name in found and found[name] != one]
    wrong = [*changed, *lost, *added]
    return Check("bundle", "files", "; ".join(wrong) or f"{len(found)} files, unchanged", not wrong)


def _facts(folder: Path, certificate: Certificate) -> Facts:
    preprocess = Preprocess.from_json((folder / "preprocess.json").read_text(encoding="utf-8"))
    labels = tuple((folder / "labels.txt").read_text(encoding="utf-8").splitlines())
    shape = json.loads((folder / "golden.json").read_text(encoding="utf-8"))["output_shape"]
    name = certificate.about["model"]["name"]
    return Facts(name, labels, preprocess.image_size, preprocess.channels, masks=len(shape) == 3)


def _scored(folder: Path, certificate: Certificate, facts: Facts, variant: str, row: pd.Series) -> dict:
    """Repeat the paired test; the score's own interval is taken over, as it rests on the same answers."""
    about = certificate.about
    task = scoring_task(about["task"]["name"], facts.labels, about["task"]["options"])
    measure = task.measures[about["measure"]]
    score, difference = repeat_comparison(folder, measure, variant)
    return {**row, "score": score, "n": difference.n, **judge(difference, measure, about["margin"])}


def _compare(variant: str, again: Gate, certified: list[Gate]) -> Check:
    """Say whether a gate comes out as the certificate has it; answers of another processor may differ in figures."""
    [before] = [gate for gate in certified if gate.name == again.name]
    same = again.verdict == before.verdict and (again.name == "golden" or again.figure == before.figure)
    found = again.figure if same else f"{again.figure}; the certificate has: {before.figure}"
    return Check(variant, again.name, found, same and (again.verdict == PASS or before.verdict != PASS))


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise UserError(f"{path} unpacks to more than {_MOST_BYTES / 2**30:.0f} GiB")
            for entry in archive.infolist():
                target = (folder / entry.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise UserError(f"{path} has an entry that leaves its folder: {entry.filename}")
            archive.extractall(folder)
    except zipfile.BadZipFile:
        raise UserError(f"{path} is neither an export folder nor the zip of one") from None
