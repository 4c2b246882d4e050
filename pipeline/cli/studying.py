"""Commands whose answer takes more than one run."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import Json, app, start_tensorflow
from pipeline.terminal import print_table, say


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated; each against the first.")],
    split: Annotated[str, typer.Option(help="On which split's images.")] = "test",
    as_json: Json = False,
) -> None:
    """Compare runs image by image: every measure with its interval and its paired test."""
    start_tensorflow()
    from pipeline.studies.compare import compare_runs

    found = compare_runs(runs, split=split)
    if len(found.settings) and not as_json:
        print_table(found.settings, as_json=False, title="what differs")
    print_table(found.scores if as_json else found.table(), as_json)
    say(found.summary())
