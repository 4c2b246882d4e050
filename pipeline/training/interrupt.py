"""Ctrl-C and SIGTERM as a wish to stop, granted where a checkpoint can be written."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopWish:
    """Whether someone asked the run to stop."""

    asked = False


@contextlib.contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Note the first SIGINT or SIGTERM instead of dying from it; a second one acts as usual."""
    wish, before = StopWish(), {}

    def note(number: int, frame: object) -> None:
        wish.asked = True
        for signum, handler in before.items():
            signal.signal(signum, handler)

    # Python lets only the main thread handle signals; elsewhere (a notebook's worker) they act as usual.
    if threading.current_thread() is threading.main_thread():
        before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
