"""What surrounds every command."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, environment, run_python

from naturalist.entry import (
    SAME_REQUEST,
    _reader_is_gone,
    forget_stop,
    obey,
    run_in_progress,
    stop_requested,
    stops_held,
    stops_ignored,
    stops_let_through,
    stops_wait,
)
from naturalist.output import _forgiving


@pytest.fixture(autouse=True)
def as_in_a_script():
    before = signal.getsignal(signal.SIGTERM)
    obey(signal.SIGTERM)
    forget_stop()
    yield
    forget_stop()
    signal.signal(signal.SIGTERM, before)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_interrupts_and_is_remembered():
    with pytest.raises(KeyboardInterrupt):
        stop()
    assert stop_requested()


def test_held_the_first_signal_is_noted_with_its_repetitions_and_a_later_one_interrupts(monkeypatch):
    now = time.monotonic()
    with stops_held():
        stop()
        stop()
        assert stop_requested()
        monkeypatch.setattr(time, "monotonic", lambda: now + 2 * SAME_REQUEST)
        with pytest.raises(KeyboardInterrupt):
            stop()
    with pytest.raises(KeyboardInterrupt):
        stop()


def test_ignored_signals_are_not_remembered_but_one_may_be_let_through():
    with run_in_progress(), stops_ignored():
        stop()
        assert not stop_requested()
        with stops_let_through():
            with pytest.raises(KeyboardInterrupt):
                stop()
            stop()
        stop()


def test_a_signal_that_waits_interrupts_at_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt), stops_wait():
        stop()
        assert not stop_requested()
        done.append(True)
    assert done and stop_requested()


def test_in_a_run_nothing_interrupts_what_follows_training():
    with run_in_progress():
        with stops_held():
            stop()
        stop()
        stop()
    with pytest.raises(KeyboardInterrupt):
        stop()


def test_in_a_run_nothing_interrupts_what_follows_an_interrupt():
    with run_in_progress():
        with pytest.raises(KeyboardInterrupt):
            stop()
        stop()


@pytest.mark.parametrize("option", [[], ["-u"]])
def test_lines_arrive_as_soon_as_without_the_guard(option, tmp_path):
    flush = "" if option else ", flush=True"
    code = f"""
import os, sys
from naturalist.entry import entry_point
with entry_point(trains=True):
    print("out"{flush})
    print("err", file=sys.stderr)
    os._exit(0)
"""
    done = run_python(*option, "-c", code, cwd=tmp_path, env={"PYTHONUNBUFFERED": ""})
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_names_stay_themselves_where_python_was_told_to_know_ascii_only(tmp_path):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    done = subprocess.run(
        [sys.executable, REPOSITORY / "partA" / "train.py", "--data", "Käfer 木", "--print_config"],
        env=environment(env),
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert "data: Käfer 木\n" in done.stdout.decode()


def test_on_windows_a_reader_that_is_gone_is_no_mistake_either(monkeypatch):
    gone, refused = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "a.png")
    assert not _reader_is_gone(gone)
    monkeypatch.setattr(sys, "platform", "win32")
    assert _reader_is_gone(gone) and not _reader_is_gone(refused)


def test_a_console_of_windows_which_shows_all_letters_stays_what_it_is():
    class Console(io.RawIOBase):
        """Unlike a file, not to be replaced by its descriptor."""

        def writable(self):
            return True

        def fileno(self):
            return 1

    console = io.TextIOWrapper(io.BufferedWriter(Console()), "utf-8")
    assert _forgiving(console) is console
