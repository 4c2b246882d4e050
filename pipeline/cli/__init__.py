"""The command line: parse, call one function, print a table. No logic."""

import logging
import sys

from pipeline.cli import making, shipping, studying  # noqa: F401  their commands
from pipeline.cli.app import app
from pipeline.errors import UserError
from pipeline.terminal import complain, say


def main() -> None:
    """Run the command line; a UserError is one sentence and exit code 2 (usage) or 1 (a failed job)."""
    log, handler = logging.getLogger("pipeline"), _Plain()
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        app()
    except UserError as error:
        complain(str(error))
        sys.exit(2 if error.usage else 1)
    except SystemExit as end:
        if end.code == 130:  # Typer's answer to Ctrl-C
            say("interrupted")
        raise
    finally:
        log.removeHandler(handler)


class _Plain(logging.Handler):
    """Print the rooms' messages to stderr as they are; stdout is for results."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))
