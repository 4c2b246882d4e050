"""Install pinned Node packages once into a cache, by the lock file that is shipped with this package."""

import hashlib
import json
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
    wanted = " and ".join(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["dependencies"])
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm is not installed, and is needed once, to fetch {wanted}; install Node.js")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"npm did not fetch {wanted} in {_SECONDS} seconds; is its registry reachable?") from None
    if done.returncode != 0:
        codes = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("npm error code ")]
        reason = codes[0] if codes else f"exit code {done.returncode}"
        raise UserError(f"npm could not fetch {wanted} ({reason}); is its registry reachable?")
