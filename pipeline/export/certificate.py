"""The certificate of an export: every file's gates, what they rest on, and the SHA-256 of all that lies beside it.

certificate.json, format 1:

    format        1
    verdict       certified | not shown | failed
    command       the command that made the export
    environment   versions, processor, its instruction sets
    model         the architecture's name, and the SHA-256 of the Keras file
    task          name and options; measure and margin (points) of the score gates
    variants      for each: file, verdict, gates [{name, figure, bound, verdict}]
    files         SHA-256 of every other file of the folder
    digest        SHA-256 of all of the above, as this file writes it

The digest finds a change by accident, not one by a forger: it is no signature.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.errors import UserError
from pipeline.export.gates import FAIL, NOT_SHOWN, PASS, Gate, worst
from pipeline.runs import write_atomically

FILE, FORMAT = "certificate.json", 1
_VERDICTS = {PASS: "certified", NOT_SHOWN: "not shown", FAIL: "failed"}


@dataclass(frozen=True)
class Certificate:
    """What was tested and what came out; `gates` by variant."""

    gates: Mapping[str, Sequence[Gate]]
    about: Mapping[str, Any]  # command, environment, model, task, measure, margin
    files: Mapping[str, str]

    @property
    def verdict(self) -> str:
        """Return certified, not shown or failed: the worst of all variants'."""
        return _VERDICTS[worst([gate.verdict for gates in self.gates.values() for gate in gates])]

    def variants(self) -> dict[str, str]:
        """Return each variant's verdict."""
        return {name: _VERDICTS[worst([gate.verdict for gate in gates])] for name, gates in self.gates.items()}

    def summary(self) -> str:
        """Return one line: the verdict, and which gates are open for which files."""
        open_gates: dict[str, list[str]] = {}
        for variant, gates in self.gates.items():
            for gate in gates:
                if gate.verdict != PASS:
                    open_gates.setdefault(f"{gate.name} {gate.verdict}", []).append(variant)
        if not open_gates:
            return f"{self.verdict}, {len(self.gates)} files pass every gate"
        return "; ".join([self.verdict, *(f"{gate} for {', '.join(names)}" for gate, names in open_gates.items())])

    def failures(self) -> list[str]:
        """Return one sentence for each gate that a file fails."""
        return [
            f"{variant} fails the gate {gate.name!r}: {gate.figure} ({gate.bound})"
            for variant, gates in self.gates.items()
            for gate in gates
            if gate.verdict == FAIL
        ]

    def to_json(self) -> str:
        """Write the certificate with its digest."""
        verdicts = self.variants()
        variants = {
            name: {"file": f"{name}.tflite", "verdict": verdicts[name], "gates": [asdict(gate) for gate in gates]}
            for name, gates in self.gates.items()
        }
        values = {"format": FORMAT, "verdict": self.verdict, **self.about, "variants": variants, "files": self.files}
        return _text(values | {"digest": sha256(_text(values).encode())})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder's certificate.

        Raises UserError where there is none, it is of a newer format, or it is not what was written.
        """
        path = folder / FILE
        if not path.is_file():
            raise UserError(f"{folder} has no {FILE}; pipeline export writes one")
        text = path.read_bytes()
        try:
            values = json.loads(text)
            made_by = values["format"]
            if made_by != FORMAT:
                raise UserError(f"{path} has the format {made_by}, and this program reads {FORMAT}; update it")
            about = {key: values[key] for key in ("command", "environment", "model", "task", "measure", "margin")}
            gates = {name: [Gate(**gate) for gate in one["gates"]] for name, one in values["variants"].items()}
            found = cls(gates, about, dict(values["files"]))
            unchanged = found.to_json().encode() == text  # verdicts and file names, too, follow from the gates
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise UserError(f"{path} is damaged: it cannot be read as a certificate") from None
        if not unchanged:
            raise UserError(f"{path} was changed: it is not what the export wrote")
        return found


def write_certificate(folder: Path, gates: Mapping[str, Sequence[Gate]], about: Mapping[str, Any]) -> Certificate:
    """Certify what lies in a folder, as it is now."""
    certificate = Certificate(gates, about, digests(folder))
    write_atomically(folder / FILE, certificate.to_json())
    return certificate


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder but the certificate, by its path in the folder."""
    compiled = folder / "clients" / "__pycache__"  # Python writes it where client.py is imported
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent != compiled)
    paths = sorted(path for path in files if path != folder / FILE)
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in paths}


def sha256(content: bytes) -> str:
    """Return the digest in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
