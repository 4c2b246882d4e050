"""Models that were trained before: of a run's folder, or any Keras file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UserError
from pipeline.runs import Run


def model_file(path: Path | str, what: str) -> Path:
    """Return the Keras file of a finished run's folder, or the file itself.

    Raises UserError, which says `what` it should have been, where there is none.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Run.open(path).model_path
    if not path.is_file():
        raise UserError(f"there is no {what} at {path}; give a finished run or a .keras file")
    return path


def origin(path: Path | str, what: str) -> dict[str, str]:
    """Return what a run notes of a model that it learned from: where it was, and the SHA-256 of its file."""
    return {"path": str(path), "model_sha256": hashlib.sha256(model_file(path, what).read_bytes()).hexdigest()}


def require_unchanged(run: Run, sources: Mapping[str, dict[str, str]]) -> None:
    """Raise UserError where a run that goes on would learn from another file than it began with.

    `sources` are what the run is about to note of them, by `origin`, under the same names.
    """
    for what, source in sources.items():
        begun_with = run.facts.get(what)
        if begun_with and begun_with["model_sha256"] != source["model_sha256"]:
            named = f"the {what} {source['path']}"
            raise UserError(f"{named} is not the file that {run.path} began with; bring that back, or use --force")
