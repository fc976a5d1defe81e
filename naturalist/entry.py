"""Around every command: mistakes become one sentence, and requests to stop are obeyed."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from naturalist.errors import UserError

IN_SWEEP = "WANDB_SWEEP_ID"
"""Environment variable that a W&B agent sets for the runs that it starts."""

_stop_requested = threading.Event()


def stop_requested() -> bool:
    """Whether a signal asked this process to stop.

    Python drops a KeyboardInterrupt that is raised while it collects garbage, and agents send their signal only once.
    """
    return _stop_requested.is_set()


@contextmanager
def entry_point() -> Iterator[None]:
    """Around a script's main: a :class:`UserError` is one line on standard error and exit code 2.

    SIGTERM, by which a W&B agent or a cluster stops a run, is made a KeyboardInterrupt, so that both end training the
    same way; where nothing handles that, the exit code is 130.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if IN_SWEEP in os.environ:
        # An agent that a script started in the background hands on an ignored SIGINT, by which W&B stops runs too.
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text that the terminal can show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(0 if IN_SWEEP in os.environ else 130)  # for an agent, a run that it stopped has not failed
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    _stop_requested.set()
    raise KeyboardInterrupt
