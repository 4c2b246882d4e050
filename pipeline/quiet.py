"""Keep the chatter of C++ libraries off the console, without losing it when something fails."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator

KEPT_CHARACTERS = 2000


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow all output, Python's and C++'s; an error that passes through carries the end of it as a note."""
    sys.stdout.flush()
    sys.stderr.flush()
    chatter = io.StringIO()
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(tempfile.TemporaryFile())
        for descriptor in (1, 2):
            stack.callback(_restore, descriptor, os.dup(descriptor))
            os.dup2(sink.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(chatter))
        stack.enter_context(contextlib.redirect_stderr(chatter))
        try:
            yield
        except Exception as error:
            sink.seek(0)
            text = sink.read().decode(errors="replace") + chatter.getvalue()
            error.add_note(text[-KEPT_CHARACTERS:])
            raise


def _restore(descriptor: int, saved: int) -> None:
    os.dup2(saved, descriptor)
    os.close(saved)
