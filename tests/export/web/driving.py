"""Drive the demo's page in Chromium, from the tests and for the picture in the documentation.

python tests/export/web/driving.py RUN PICTURE.png
"""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.export.demo import open_server
from pipeline.export.loopback import Page, Server
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


def drive(
    url: str,
    steps: list[list],
    *,
    faults: Sequence[list] = (),
    view: dict[str, Any] | None = None,
    early: str | None = None,
) -> Said:
    """Load the page with planted faults, do the steps of drive.mjs, and return what was said.

    A fault is an address, a text in the file there, and what to put in its place. The picture `early` is chosen before
    the files are loaded.
    """
    answer = in_browser("drive.mjs", url, steps=steps, faults=faults, view=view or {}, early=early)
    return Said(answer.pop("said"), **answer)


def in_browser(script: str, url: str, **job: Any) -> dict[str, Any]:
    """Run a script beside this file that visits `url` with watched.mjs, and return what it printed."""
    job |= {"url": url, "chromium": shutil.which("chromium"), "modules": str(install(HERE))}
    command = ["node", HERE / script]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@contextlib.contextmanager
def serve(source: Path | Mapping[str, Page]) -> Iterator[str]:
    """Serve a run, a bundle or a table of pages in a thread, and give its address."""
    with open_server(source) if isinstance(source, Path) else Server(source) as server:
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
