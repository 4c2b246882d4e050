"""Install pinned Node packages once into a cache, by the lock file that is shipped with this package."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from pipeline.errors import UserError
from pipeline.runs import saving_to

MANIFEST, LOCK = "package.json", "package-lock.json"
_SECONDS = 600


def install(folder: Path) -> Path:
    """Return `node_modules` as the lock file in `folder` pins it, installing it if the cache does not have it.

    No package's own scripts are run. Raises UserError when npm is missing or cannot install.
    """
    lock = folder / LOCK
    installed = cache() / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not installed.is_dir():
        with saving_to(installed):
            installed.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".node-", dir=installed.parent))
        try:
            for name in (MANIFEST, LOCK):
                shutil.copyfile(folder / name, temporary / name)
            _npm_ci(temporary)
            _move(temporary, installed)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return installed / "node_modules"


def cache() -> Path:
    """Return where installed packages are kept: $PIPELINE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("PIPELINE_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pipeline"


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # a second process may have been faster; what it installed is the same
            raise


def _npm_ci(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not installed; it is needed once, to fetch the browser's runtime: install Node.js")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"npm installed nothing within {_SECONDS} seconds; is the registry reachable?") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("npm error")]
        reason = lines[-2 if len(lines) > 1 else -1] if lines else f"exit code {done.returncode}"
        raise UserError(f"npm could not install the browser's runtime ({reason}); is the registry reachable?")
