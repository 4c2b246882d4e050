"""Drive the demo's page in Chromium, from the tests and for the picture in the documentation.

python tests/export/web/driving.py RUN PICTURE.png
"""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.export.demo import open_server
from pipeline.export.npm import install

HERE = Path(__file__).parent
SECONDS = 240


@dataclass(frozen=True)
class Said:
    """What the page showed after loading and after each step, and what it must not do at all."""

    steps: list[dict[str, Any]]
    violations: list[str]
    foreign: list[str]
    errors: list[str]
    isolated: bool

    @property
    def last(self) -> dict[str, Any]:
        return self.steps[-1]


def drive(url: str, steps: list[list], *, faults: Sequence[list] = (), view: dict[str, Any] | None = None) -> Said:
    """Load the page with planted faults, do the steps of drive.mjs, and return what was said.

    A fault is an address, a text in the file there, and what to put in its place.
    """
    job = {
        "url": url,
        "chromium": shutil.which("chromium"),
        "modules": str(install(HERE)),
        "steps": steps,
        "faults": faults,
        "view": view or {},
    }
    command = ["node", HERE / "drive.mjs"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    return Said(answer.pop("said"), **answer)


@contextlib.contextmanager
def serve(source: Path) -> Iterator[str]:
    """Serve a run or a bundle in a thread, and give its address."""
    with open_server(source) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    run, picture = sys.argv[1:]
    with serve(Path(run)) as url:
        drive(url, [["sample", 1], ["check"], ["picture", picture, {"fullPage": True}]])
