"""Checkpoints: everything a run is at one step, each in one file that is written whole or not at all."""

import json
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.errors import UserError
from pipeline.runs import write_atomically

log = logging.getLogger(__name__)

_FORMAT = 1
_KEPT = 2  # of each kind: should the disk lose the newest, the one before still continues the run


@dataclass
class Progress:
    """Where a run stands; with the variables, all there is to know. The input's position is the step."""

    seed: int
    step: int = 0  # optimizer steps taken
    seconds: float = 0.0  # spent training in the unfinished epoch
    rows: list[dict[str, float]] = field(default_factory=list)  # one per finished epoch, as in history.csv


class Checkpoints:
    """The checkpoints folder: `last-<step>.npz` to continue from, `best-<epoch>.npz` to keep the best weights."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        """`writes` is False in workers other than the chief, which save nothing."""
        self.folder, self.writes = folder, writes

    def save(self, progress: Progress, variables: Sequence[keras.Variable]) -> None:
        """Write the state; an earlier checkpoint is deleted only once this one is on the disk."""
        self._write(self.folder / f"last-{progress.step:08d}.npz", asdict(progress), variables)

    def save_best(self, epoch: int, variables: Sequence[keras.Variable]) -> None:
        """Write the weights after an epoch (1 is the first)."""
        self._write(self.folder / f"best-{epoch:08d}.npz", {"epoch": epoch}, variables)

    def restore(self, variables: Sequence[keras.Variable]) -> Progress | None:
        """Assign the newest readable state, or return None where there is none. Leftovers are removed."""
        if self.writes:
            for half_written in self.folder.glob(".*.npz"):
                half_written.unlink(missing_ok=True)
        for path in self._newest("last"):
            content = _read(path, variables)
            if content is None:
                log.warning("%s is damaged and was left out", path)
                continue
            progress = Progress(**content)
            self._remove_after(progress)
            return progress
        return None

    def restore_best(self, epoch: int, variables: Sequence[keras.Variable]) -> None:
        """Assign the weights after an epoch; UserError where their file is gone."""
        path = self.folder / f"best-{epoch:08d}.npz"
        if not path.is_file() or _read(path, variables) is None:
            raise UserError(f"{path}, the weights of the best epoch, is missing or damaged; train again with --force")

    def _write(self, path: Path, content: dict[str, Any], variables: Sequence[keras.Variable]) -> None:
        # Read on every worker: the value of a variable that is summed on reading is a collective operation.
        arrays = {f"{index:05d}": variable.numpy() for index, variable in enumerate(variables)}
        if not self.writes:
            return
        text = json.dumps({"format": _FORMAT, **content})
        write_atomically(path, lambda temporary: np.savez(temporary, content=np.array(text), **arrays))
        for old in self._newest(path.name.partition("-")[0])[_KEPT:]:
            old.unlink()

    def _newest(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-????????.npz"), reverse=True)

    def _remove_after(self, progress: Progress) -> None:
        """Remove what is of a later time than this state."""
        if not self.writes:
            return
        later = [path for path in self._newest("best") if _number(path) > len(progress.rows)]
        later += [path for path in self._newest("last") if _number(path) > progress.step]
        for path in later:
            path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _read(path: Path, variables: Sequence[keras.Variable]) -> dict[str, Any] | None:
    """Assign all variables from a file, or none of them and return None when it is damaged."""
    try:
        # A zip: every array's CRC is checked as it is read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            content = json.loads(str(file["content"]))
            arrays = [file[name] for name in sorted(set(file.files) - {"content"})]
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError):
        return None
    if content.pop("format") != _FORMAT or [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
        raise UserError(f"{path} does not fit this experiment's model and optimizer; start over with --force")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return content
