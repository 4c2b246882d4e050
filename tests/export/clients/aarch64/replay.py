"""Do a bundle's files give the recorded answers on ARM64? Replay golden.npz on an emulated processor.

    python tests/export/clients/aarch64/replay.py FOLDER

prints a table, and ends with 1 if an answer is too far from the recorded one. `make aarch64` installs the emulator.
"""

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.export.gates import golden_bound
from pipeline.export.golden import ARRAYS, replay

ROOT = Path(__file__).parents[4]
INSTALLED = ROOT / ".aarch64"
EMULATOR = INSTALLED / "emulator" / "usr" / "bin" / "qemu-aarch64"
AGREES = "agrees"


def python() -> list[str]:
    """Return the command of an emulated Python that has LiteRT."""
    system, packages, bytecode = (INSTALLED / name for name in ("root", "packages", "bytecode"))
    # Compiling its modules takes an emulated Python twenty seconds: once, and where no other Python meets them.
    keep = ["-U", "PYTHONDONTWRITEBYTECODE"]
    environment = f"PYTHONHOME={system / 'usr'},PYTHONPATH={packages},PYTHONPYCACHEPREFIX={bytecode}"
    command = [EMULATOR, "-L", system, *keep, "-E", environment, system / "usr" / "bin" / "python3.13"]
    return [str(part) for part in command]


def verdict(variant: str, difference: float) -> str:
    """Judge a variant's largest difference from the recorded answers; nan if it did not run."""
    if np.isnan(difference):
        return "did not run"
    return AGREES if difference <= golden_bound(variant) else "differs"


def main() -> None:
    """Print the table for the folder of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="an exported bundle: RUN/export")
    folder = parser.parse_args().folder
    if not (folder / ARRAYS).is_file():
        sys.exit(f"{folder} has no {ARRAYS}; make it with: pipeline export RUN")
    with np.load(folder / ARRAYS) as golden:
        count = len(golden["images"])
    table = Table(title=f"{count} images on emulated ARM64, recorded on {platform.machine()}")
    for column in ("variant", "largest difference", "allowed", "verdict"):
        table.add_column(column)
    found = replay(folder, python())
    verdicts = {name: verdict(name, difference) for name, difference in found.items()}
    for name, difference in found.items():
        table.add_row(name, f"{difference:.2g}", f"{golden_bound(name):.2g}", verdicts[name])
    Console().print(table)
    sys.exit(set(verdicts.values()) != {AGREES})


if __name__ == "__main__":
    main()
