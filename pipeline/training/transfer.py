"""Where the weights of a training come from that does not start afresh."""

import hashlib
from pathlib import Path

import keras

from pipeline.errors import UserError
from pipeline.models.transfer import Group, adopt, groups
from pipeline.runs import Run
from pipeline.sections import Transfer


def start(transfer: Transfer, model: keras.Model, run: Path) -> list[Group]:
    """Give a new model the weights to start from, all but its head, and return its layers in the order of learning.

    Raises UserError where the base is no finished run and no .keras file, is `run` itself, which is about to be
    written, or is of another architecture.
    """
    if transfer.base is None:  # they came with the model
        return groups(model)
    path = _base_file(transfer.base)
    if path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{run} is the run to start from; give another --run", usage=True)
    try:
        source = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"transfer.base: {path} cannot be loaded ({reason}); give another run or .keras file") from None
    return groups(model, adopt(model, source, f"transfer.base: {transfer.base}"))


def provenance(transfer: Transfer) -> dict[str, str]:
    """Return what a run notes of its base: where it was, and the SHA-256 of its model."""
    digest = hashlib.sha256(_base_file(transfer.base).read_bytes()).hexdigest()
    return {"path": transfer.base, "model_sha256": digest}


def _base_file(base: str) -> Path:
    """Return the model file of a run or a path."""
    path = Path(base).expanduser()
    if path.is_dir():
        return Run.open(path).model_path
    if not path.is_file():
        raise UserError(f"transfer.base: there is no run and no .keras file {base}")
    return path
