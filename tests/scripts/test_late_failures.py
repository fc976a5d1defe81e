"""What goes wrong once training is done costs a line, not the result; and output that fails costs nothing."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TIMEOUT, environment, run_python, start_python
from fake_wandb import FakeWandb

from naturalist.entry import STOP_SIGNALS
from naturalist.runs.checkpoint import LAST, load_checkpoint
from naturalist.settings.part_a import CnnSettings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures")]

SCRIPT = REPOSITORY / "partA" / "train.py"
TINY = {
    "image_size": 32,
    "num_filters": 4,
    "filter_organization": "same",
    "dense_units": 8,
    "batch_size": 16,
    "device": "cpu",
    "wandb": "disabled",
    "epochs": 1,
    "name": "run",
    "validation_pictures": False,
}
WITH_PICTURES = {"validation_pictures": True}
ENDLESS = 100_000
"""Epochs of a run that only a stop can end."""

PATCHED = f"""
import runpy, sys
sys.argv[0] = {str(SCRIPT)!r}
%s
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The script with something changed under it."""


def flags(data: Path, **changes: object) -> list[str]:
    return [f"--{name}={value}" for name, value in {**TINY, "data": data, **changes}.items()]


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "runs" / "run" / "summary.json").read_text())


def assert_finished(folder: Path) -> None:
    """With the numbers of its epochs, and nothing half-written."""
    summary, run = summary_of(folder), folder / "runs" / "run"
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (summary["status"], summary["exit_code"], summary["epochs"]) == ("finished", 0, len(epochs))
    assert summary["best_val_accuracy"] == max(epoch["val_accuracy"] for epoch in epochs)
    assert not [path.name for path in run.iterdir() if path.suffix in (".unfinished", ".tmp", ".lock")]


@contextmanager
def started(*arguments: object, cwd: Path, **more: object) -> Iterator[subprocess.Popen]:
    """A program that is over, one way or the other, when the test is."""
    process = start_python(*arguments, cwd=cwd, **{"stderr": None, **more})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def read_until(process: subprocess.Popen, beginning: str) -> None:
    assert any(line.startswith(beginning) for line in process.stdout)


# Late failures


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), "out of memory"),
        (np.exceptions.AxisError("odd"), "AxisError: odd"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
        (KeyboardInterrupt(), "it was stopped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_look_that_fails_costs_a_line_with_the_command_that_repeats_it(
    error, words, photographs, tmp_path, monkeypatch, capsys
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr("naturalist.evaluation.evaluate.write_results", fail)
    from train import train

    assert train(CnnSettings.of(**{**TINY, **WITH_PICTURES}, data=str(photographs)))["status"] == "finished"
    assert_finished(tmp_path)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("The look at")]
    assert words in line and line.endswith("python -m naturalist evaluate runs/run --split val")


@pytest.mark.parametrize(
    "failing", ["naturalist.training.telling.plot_curves", "naturalist.evaluation.evaluate.load_classifier"]
)
def test_pictures_that_need_more_memory_than_there_is_leave_exit_code_0(failing, photographs, tmp_path):
    module, _, name = failing.rpartition(".")
    patch = f"import {module} as module\ndef fail(*_, **__): raise MemoryError\nmodule.{name} = fail"
    done = run_python("-c", PATCHED % patch, *flags(photographs, **WITH_PICTURES), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert_finished(tmp_path)
    assert "out of memory" in done.stdout and "Traceback" not in done.stdout


def test_the_look_uses_the_batch_size_and_the_network_of_the_run(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    built = []
    monkeypatch.setattr("naturalist.runs.checkpoint.build_model", built.append)
    seen = []
    from naturalist.evaluation import evaluate

    loader = evaluate.BatchLoader
    monkeypatch.setattr(evaluate, "BatchLoader", lambda *rest, **more: seen.append(rest[2]) or loader(*rest, **more))
    from train import train

    train(CnnSettings.of(**{**TINY, **WITH_PICTURES, "batch_size": 7}, data=str(photographs)))
    assert (seen, built) == ([7], [])
    metrics = json.loads((tmp_path / "runs" / "run" / "evaluation" / "val" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(summary_of(tmp_path)["best_val_accuracy"], abs=0.15)


def test_a_summary_that_a_full_disk_refuses_is_one_sentence_that_says_how_to_write_it(photographs, tmp_path):
    patch = (
        "import errno, naturalist.runs.tracking as tracking\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "tracking.write_summary = full"
    )
    done = run_python("-c", PATCHED % patch, *flags(photographs), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the run is finished, but its summary cannot be written: No space left")
    assert done.stderr.count("\n") == 1 and "--resume runs/run" in done.stderr
    assert run_python(SCRIPT, "--resume", "runs/run", cwd=tmp_path).returncode == 0
    assert_finished(tmp_path)


# Stops


def repeat(number: int, process: subprocess.Popen) -> tuple[str, str]:
    """Send a signal every two milliseconds until the program is over; returns what it wrote."""
    end = time.monotonic() + TIMEOUT
    while process.poll() is None:
        assert time.monotonic() < end, "it does not stop"
        process.send_signal(number)
        time.sleep(0.002)
    return process.communicate()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_that_are_repeated_while_the_record_is_closed_change_nothing(number, photographs, tmp_path):
    with started(SCRIPT, *flags(photographs), cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for((tmp_path / "runs" / "run" / "summary.json").is_file)
        output, errors = repeat(number, process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert_finished(tmp_path)
    assert "Finished after 1 epoch " in output


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signals_that_are_repeated_while_training_leave_a_run_that_can_go_on(number, photographs, tmp_path):
    with started(SCRIPT, *flags(photographs, epochs=ENDLESS), cwd=tmp_path, stderr=subprocess.PIPE) as process:
        read_until(process, "epoch 2/")
        output, errors = repeat(number, process)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    summary = summary_of(tmp_path)
    kept = load_checkpoint(tmp_path / "runs" / "run", LAST)["epoch"]
    assert summary["status"] == "stopped" and summary["epochs"] == kept >= 1
    assert "Go on with:        python partA/train.py --resume runs/run" in output


def test_under_nohup_a_closed_terminal_stops_nothing(photographs, tmp_path):
    ignored = PATCHED % "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with started("-c", ignored, *flags(photographs, epochs=4), cwd=tmp_path) as process:
        read_until(process, "epoch 1/")
        process.send_signal(signal.SIGHUP)
        process.stdout.read()
        assert process.wait(TIMEOUT) == 0
    assert summary_of(tmp_path)["epochs"] == 4
    assert_finished(tmp_path)


# W&B


class SlowServer(FakeWandb):
    """A server that has something done as soon as a run is about to end, and answers only then."""

    def __init__(self, at_the_end: Callable[[], object]):
        super().__init__()
        self.at_the_end = at_the_end

    def receive_stream(self, name: str, request: dict) -> dict:
        if request.get("complete"):
            self.at_the_end()
        return super().receive_stream(name, request)


def helper_of(process: subprocess.Popen) -> int:
    """The process that W&B started for a training."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in listed.splitlines() if "wandb-core" in line and f"--pid {process.pid}" in line]
    return int(line.split()[0])


@pytest.mark.parametrize("happening", ["W&B's process is killed", "Ctrl-C"])
def test_what_happens_during_the_upload_does_not_change_the_result(happening, photographs, tmp_path):
    def happen() -> None:
        if happening == "Ctrl-C":
            for _ in range(20):
                process.send_signal(signal.SIGINT)
                time.sleep(0.02)
        else:
            os.kill(helper_of(process), signal.SIGKILL)
            time.sleep(1)

    with SlowServer(happen) as server:
        arguments = (SCRIPT, *flags(photographs, wandb="online"))
        with started(*arguments, cwd=tmp_path, env=server.env(tmp_path), stderr=subprocess.PIPE) as process:
            output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output + errors
    assert "Traceback" not in output + errors
    assert_finished(tmp_path)
    assert "Finished after 1 epoch " in output
    assert ("wandb sync --include-online runs/run/wandb/run-" in output) == (happening != "Ctrl-C")


def test_w_and_b_that_dies_while_training_ends_no_training(photographs, tmp_path):
    with FakeWandb() as server:
        arguments = (SCRIPT, *flags(photographs, wandb="online", epochs=4))
        with started(*arguments, cwd=tmp_path, env=server.env(tmp_path), stderr=subprocess.STDOUT) as process:
            read_until(process, "epoch 1/")
            os.kill(helper_of(process), signal.SIGKILL)
            output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    assert output.count("W&B: ") == 1 and "Traceback" not in output
    assert_finished(tmp_path)


# Output


def test_training_goes_on_when_the_reader_of_its_output_has_gone(photographs, tmp_path):
    with started(
        SCRIPT, *flags(photographs, epochs=3, **WITH_PICTURES), cwd=tmp_path, stderr=subprocess.PIPE
    ) as process:
        read_until(process, "Run: ")
        process.stdout.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""
    assert_finished(tmp_path)
    assert (tmp_path / "runs" / "run" / "evaluation" / "val" / "metrics.json").is_file()


def test_training_goes_on_when_its_terminal_has_gone(photographs, tmp_path):
    """The bar's terminal, which is not the one that would send a SIGHUP."""
    leader, follower = pty.openpty()
    arguments = (SCRIPT, *flags(photographs, epochs=3))
    env = {"TERM": "xterm"}
    with started(
        *arguments, cwd=tmp_path, stdout=follower, stderr=follower, start_new_session=True, env=env
    ) as process:
        os.close(follower)
        seen = b""
        while b"epoch 1/3" not in seen:
            seen += os.read(leader, 65536)
        os.close(leader)
        assert process.wait(TIMEOUT) == 0
    assert_finished(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("streams", [["stdout"], ["stderr", "stdout"]])
def test_training_goes_on_when_the_disk_of_its_output_is_full(streams, photographs, tmp_path):
    with (
        Path("/dev/full").open("w") as full,
        started(SCRIPT, *flags(photographs), cwd=tmp_path, **dict.fromkeys(streams, full)) as process,
    ):
        assert process.wait(TIMEOUT) == 0
    assert_finished(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such descriptors")
def test_training_goes_on_with_its_output_closed_from_the_beginning(photographs, tmp_path):
    command = f'exec "{sys.executable}" "$@" >&- 2>&- <&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", str(SCRIPT), *flags(photographs)], cwd=tmp_path, env=environment(), timeout=TIMEOUT
    )
    assert done.returncode == 0
    assert_finished(tmp_path)


def test_a_verb_still_ends_when_its_reader_has_enough(tmp_path):
    with started("-m", "naturalist", "--help", cwd=tmp_path, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(TIMEOUT) == 141
