"""Around every command: mistakes become one sentence, and requests to stop are obeyed."""

import atexit
import errno
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import Enum
from types import FrameType

from naturalist.errors import UserError, describe_error, explain_error
from naturalist.output import output_may_fail
from naturalist.printable import printable, without_secrets
from naturalist.ranks import is_first_to_speak, this_rank

IN_SWEEP = "WANDB_SWEEP_ID"
"""Environment variable that a W&B agent sets for the runs that it starts."""

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]  # Windows has no SIGHUP, and it alone SIGBREAK
"""Ctrl-C; how agents and clusters stop a run; what a terminal sends when it is closed."""

SAME_REQUEST = 1.0
"""Seconds in which all signals are one request: agents, clusters and impatient fingers repeat theirs."""


class _Answer(Enum):
    """What a signal does that asks this process to stop."""

    INTERRUPT = "raises KeyboardInterrupt"
    NOTE = "is noted for who asks stop_requested(); one that is no mere repetition raises KeyboardInterrupt"
    WAIT = "is obeyed at the end of the block"
    IGNORE = "does nothing"


_answer = _Answer.INTERRUPT
_stop_requested = False  # no Event: its lock, held by a handler that another signal interrupts, is never released
_first_requested = -SAME_REQUEST
"""When, by the monotonic clock."""
_in_run = False
"""Whether a run is being recorded: what follows its stop saves, so that no signal may come in between."""
_run_is_all = False
"""Whether the process has nothing to do after its run."""
_told_to_wait = False
_waiting: list[int] = []
"""Signals that came within :func:`stops_wait`."""
_shows_tracebacks = False
_began = time.monotonic()
"""When this process did: this file is the first that a command imports."""


def show_tracebacks(wanted: bool = True) -> None:
    """Have :func:`entry_point` print where an error came from, too: what ``--debug`` asks for."""
    global _shows_tracebacks
    _shows_tracebacks = wanted


def shows_tracebacks() -> bool:
    """Whether ``--debug`` was given."""
    return _shows_tracebacks


def stop_requested() -> bool:
    """Whether a signal asked this process to stop.

    Python drops a KeyboardInterrupt that is raised while it collects garbage, and agents send their signal only once.
    """
    return _stop_requested


def seconds_of_process() -> float | None:
    """What all that this process did took, imports and all; None where it does more than one run."""
    return time.monotonic() - _began if _run_is_all else None


def forget_stop() -> None:
    """Begin anew after a stop, in a process that trains one run after the other."""
    global _stop_requested
    _stop_requested = False
    _waiting.clear()


def obey(*signals: int) -> None:
    """Have these signals stop what this process does; in a thread that may not say so, nothing changes."""
    if _is_main_thread():
        for number in signals:
            signal.signal(number, _on_signal)


@contextmanager
def entry_point(*, trains: bool = False) -> Iterator[None]:
    """Around a script's main: an error is one line on standard error, and the exit code.

    The code is 2 for a :class:`naturalist.errors.UserError` and for what the machine refuses (files, room on the disk,
    memory), and 1 for an error that nobody foresaw; only ``--debug`` shows a traceback.

    SIGTERM, by which a W&B agent or a cluster stops a run, and SIGHUP, which a closed terminal sends, are made a
    KeyboardInterrupt, so that all end training the same way; where nothing handles that, the exit code is 130.

    Args:
        trains: the script makes one run and nothing after it. Its output may fail, see
            :func:`naturalist.output.output_may_fail`, and once the run is recorded no signal changes the exit code.
    """
    global _run_is_all
    _use_utf8()
    _run_is_all = trains
    _obey_what_stops()
    if trains and _is_main_thread():
        atexit.register(_ignore_what_stops)  # the last to be called: after it Python would let signals kill
    with suppress(UserError):  # which the first who asks for it again tells
        if not this_rank().is_first:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text that the terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = 1  # of an error that nobody handles
    try:
        with output_may_fail() if trains else nullcontext():
            code = yield from _exit_code()
    finally:
        if trains:
            _leave_with(code)
    if code:
        sys.exit(code)


@contextmanager
def run_in_progress() -> Iterator[None]:
    """Around a run and its record: after a stop, or after training, nothing interrupts what saves and closes."""
    global _in_run, _answer
    if not _is_main_thread():
        yield
        return
    alone = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in a notebook there is no entry point
    if alone:
        obey(signal.SIGINT)
    _in_run, before = True, _answer
    try:
        yield
    finally:
        _answer = _Answer.IGNORE if _run_is_all else before
        _in_run = False
        if alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            forget_stop()


@contextmanager
def stops_held() -> Iterator[None]:
    """A signal is noted for whoever asks :func:`stop_requested`; one more than :data:`SAME_REQUEST` later interrupts.

    Who asks ends where it can; an interrupt may come in the middle of anything, of an import as well. Within
    :func:`run_in_progress` all later ones are ignored: the record is closed next.
    """
    with _answering(_Answer.NOTE):
        yield


@contextmanager
def stops_ignored() -> Iterator[None]:
    """Signals do nothing: agents repeat theirs, and people their Ctrl-C, while the record is closed."""
    with _answering(_Answer.IGNORE):
        yield


@contextmanager
def stops_wait() -> Iterator[None]:
    """A signal that comes within takes effect at the end: around what nothing may cut in two.

    torch ends the whole process when an exception crosses its writer, and of a message of which only half was read
    nothing can be made.
    """
    try:
        with _answering(_Answer.WAIT):
            yield
    finally:
        while _waiting and _answer is not _Answer.WAIT and _is_main_thread():
            _on_signal(_waiting.pop(0), None)


@contextmanager
def stops_let_through() -> Iterator[None]:
    """Within :func:`stops_ignored`, for what may be cut short: a signal raises KeyboardInterrupt, once in a run."""
    with _answering(_Answer.INTERRUPT):
        yield


def _use_utf8() -> None:
    """Begin anew with names in UTF-8 where Python was told to know ASCII only: else a name would not stay itself.

    By itself Python takes the C locale for UTF-8; ``PYTHONUTF8=0 PYTHONCOERCECLOCALE=0`` forbids it.
    """
    if sys.getfilesystemencoding() == "ascii" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _exit_code() -> Generator[None, None, int]:
    """Take what a script raises; returns the exit code."""
    try:
        yield
    except KeyboardInterrupt:
        if is_first_to_speak():
            _say("Interrupted.")
        return 0 if IN_SWEEP in os.environ else 130  # for an agent, a run that it stopped has not failed
    except OSError as error:
        if not _reader_is_gone(error):
            return _tell(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _tell(error)
    return 0


def _reader_is_gone(error: OSError) -> bool:
    """Whether whoever read the output, such as head, has enough; Windows calls that an invalid argument."""
    is_windows_word = sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or is_windows_word


def _tell(error: Exception) -> int:
    """Say what went wrong, unless another rank has said it; returns the exit code."""
    words = explain_error(error)
    if not is_first_to_speak():
        return 1 if words is None else 2
    if _shows_tracebacks:
        with suppress(OSError):
            print(without_secrets("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    if words is not None:
        _say(f"error: {words}")
        return 2
    what = "the lines above" if _shows_tracebacks else "what the same command prints with --debug after it"
    _say(f"error: something unforeseen happened ({describe_error(error)}); please report it, with {what}.")
    return 1


def _say(words: str) -> None:
    with suppress(OSError):  # nobody is there to read it
        print("\n".join(map(printable, words.split("\n"))), file=sys.stderr, flush=True)


def _obey_what_stops() -> None:
    for number in STOP_SIGNALS:
        # Whoever ignores a signal for us means it: nohup a SIGHUP, a script that starts us in the background a SIGINT.
        # But an agent hands the latter on without meaning it, and W&B stops runs by it too.
        is_meant = number != signal.SIGTERM and not (number == signal.SIGINT and IN_SWEEP in os.environ)
        if not (is_meant and signal.getsignal(number) is signal.SIG_IGN):
            obey(number)


def _on_signal(signal_number: int, frame: FrameType | None) -> None:
    global _answer, _told_to_wait, _stop_requested, _first_requested
    if _answer is _Answer.WAIT:
        _waiting.append(signal_number)
        return
    if _answer is _Answer.IGNORE:
        if not _told_to_wait:
            _told_to_wait = True
            with suppress(OSError):  # print must not be called while it may be at work
                os.write(2, b"The record is being closed; please wait.\n")
        return
    if not _stop_requested:
        _first_requested, _stop_requested = time.monotonic(), True
    if _answer is _Answer.NOTE and time.monotonic() < _first_requested + SAME_REQUEST:
        return
    if _in_run:
        _answer = _Answer.IGNORE
    raise KeyboardInterrupt


@contextmanager
def _answering(answer: _Answer) -> Iterator[None]:
    """Answer signals so for a while; in other threads, which get no signals, nothing changes."""
    global _answer
    if not _is_main_thread():
        yield
        return
    before, _answer = _answer, answer
    try:
        yield
    finally:
        # Training is done when it no longer asks whether to stop: what follows in a run closes its record.
        _answer = _Answer.IGNORE if _in_run and answer is _Answer.NOTE else before


def _leave_with(code: int) -> None:
    """From now on a signal ends the process with this code: nothing is left to do, but libraries may wait long."""
    if not _is_main_thread():
        return

    def leave(signal_number: int, frame: FrameType | None) -> None:
        os._exit(code)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def _ignore_what_stops() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
