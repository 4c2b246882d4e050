"""The run folder: created, resumed, opened, and written to whole or not at all."""

import contextlib
import errno
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from pipeline.config import Experiment
from pipeline.errors import UserError

FORMAT = 1

_DECISIVE = {
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
}
_PACKAGES = ("tensorflow", "keras", "numpy", "ai-edge-litert", "ai-edge-quantizer", "scikit-learn", "pipeline")


@dataclass(frozen=True)
class Run:
    """One training run on disk. `model.keras` is written last: where it stands, training has finished."""

    path: Path

    @classmethod
    def create(cls, path: Path | str, experiment: Experiment, *, force: bool = False) -> Self:
        """Make the folder, or reopen the run of the same experiment that is there, interrupted or `finished`.

        Raises UserError when the folder holds another experiment's run, or something else;
        with `force` a run (never another kind of folder) is deleted first.
        """
        run = cls(Path(path))
        if run.is_run and force:
            shutil.rmtree(run.path)
        elif run.is_run:
            run._check_format()
            run._check_same(experiment)
            return run
        run.require_no_other()
        with saving_to(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
        run.note(**environment())
        write_atomically(run.experiment_path, experiment.to_yaml())
        return run

    def require_no_other(self) -> None:
        """Raise UserError when the folder holds something that is no run."""
        if not self.is_run and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path} exists and is not a run; name another folder")

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a finished run, or say why it is none."""
        run = cls(Path(path))
        if not run.is_run:
            what = f"is not a run (it has no {run._lacks()})" if run.path.exists() else "does not exist"
            raise UserError(f"{run.path} {what}; make one with: pipeline train CONFIG --run {run.path}")
        run._check_format()
        if not run.finished:
            raise UserError(f"{run.path} has not finished training; continue it with the same pipeline train command")
        return run

    @property
    def experiment(self) -> Experiment:
        return Experiment.load(self.experiment_path)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.facts["classes"])

    @property
    def facts(self) -> dict[str, Any]:
        """What was noted in environment.json: versions, command, classes, the runtime's choices."""
        if not self.environment_path.is_file():
            return {}
        try:
            return json.loads(self.environment_path.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{self.environment_path} is not JSON; restore it, or train again with --force") from None

    @property
    def is_run(self) -> bool:
        return self._lacks() is None

    def _lacks(self) -> str | None:
        """Name the file that a run has and this folder has not: an experiment.yaml of somebody's own makes no run."""
        needed = (self.experiment_path, self.environment_path)
        return next((path.name for path in needed if not path.is_file()), None)

    @property
    def finished(self) -> bool:
        return self.model_path.is_file()

    @property
    def experiment_path(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def environment_path(self) -> Path:
        return self.path / "environment.json"

    @property
    def model_path(self) -> Path:
        return self.path / "model.keras"

    @property
    def history_path(self) -> Path:
        return self.path / "history.csv"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def data_dir(self) -> Path:
        return self.path / "data"

    @property
    def export_dir(self) -> Path:
        return self.path / "export"

    @property
    def search_dir(self) -> Path:
        return self.path / "search"

    def evaluation_dir(self, split: str) -> Path:
        return self.path / "evaluation" / split

    def note(self, **facts: Any) -> None:
        """Merge facts into environment.json."""
        text = json.dumps({"format": FORMAT, **self.facts, **facts}, indent=2) + "\n"
        write_atomically(self.environment_path, text)

    def _check_format(self) -> None:
        found = self.facts.get("format", FORMAT)
        if found != FORMAT:
            raise UserError(
                f"{self.path} was written in run format {found}, this pipeline reads format {FORMAT}; "
                "install the version of pipeline that made it"
            )

    def _check_same(self, experiment: Experiment) -> None:
        differing = differences(self.experiment.model_dump(mode="json"), experiment.model_dump(mode="json"))
        if differing:
            each = "; ".join(f"{key}: {old!r} there, {new!r} here" for key, (old, new) in differing.items())
            raise UserError(
                f"{self.path} is the run of another experiment ({each}); "
                "use its own settings, give --force to delete it and start over, or name another --run"
            )


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, fsync, rename.

    A callable is given the temporary path, whose suffix is the file's own, and writes it itself.
    Raises UserError when the disk is full or the folder read-only; the earlier file is then still there.
    """
    with saving_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            if callable(content):
                content(temporary)
            else:
                temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.chmod(0o644)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a rename cannot outlive its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def saving_to(path: Path):
    """Turn a full disk or a folder that cannot be written into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EISDIR,
        ):
            raise
        reason = os.strerror(error.errno).lower()
        raise UserError(f"{path} cannot be written ({reason}); what was saved before is unchanged") from error


def environment() -> dict[str, Any]:
    """Return what a run notes of the program and the machine: format, command, versions, processor."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "pipeline")  # as a shell knows it
    return {
        "format": FORMAT,
        "command": shlex.join([program, *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def instructions() -> list[str]:
    """Name the instruction sets that decide how fast a file is: int8 without VNNI is no faster than float."""
    flags = re.findall(r"^(?:flags|Features)\s*: (.*)", _cpuinfo(), re.MULTILINE)
    return sorted(_DECISIVE & set(flags[0].split())) if flags else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> str:
    """Return what Linux says of the processor, nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _processor() -> str:
    lines = _cpuinfo().splitlines()
    if not lines:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Map the dotted key of each value that differs between two nested mappings to both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in [*old, *(key for key in new if key not in old)]:
            found |= differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return {} if old == new else {path: (old, new)}


def beside(run: Path, what: str) -> Path:
    """Return the path of a folder beside a run's, called after both: `.` has a name, too."""
    run = run.resolve() if run.name in ("", "..") else run
    return run.parent / f"{run.name}-{what}"


def value_at(values: Any, key: str) -> Any:
    """Return what stands at a dotted key of a nested mapping, None where there is nothing."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
