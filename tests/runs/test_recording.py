"""One process trains a run, and how it ended is written once."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, TIMEOUT, environment, run_python

from naturalist.errors import UserError
from naturalist.runs.folder import LOCK, locked_run, write_atomically
from naturalist.runs.recording import record_run
from naturalist.runs.tracking import Tracker
from naturalist.settings.part_a import CnnSettings

SCRIPT = REPOSITORY / "partA" / "train.py"
TINY = ["--image_size=32", "--num_filters=4", "--filter_organization=same", "--dense_units=8", "--device=cpu"]
TINY += ["--no_validation_pictures"]
HOLD = """
import sys; from pathlib import Path; from naturalist.runs.folder import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.read()
"""


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def settings_of(folder: Path, **more: object) -> CnnSettings:
    return CnnSettings.of(runs_dir=str(folder / "runs"), wandb="disabled", **{"name": "run", **more})


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


# The lock


def test_a_run_that_another_process_trains_is_refused_until_that_is_killed(tmp_path):
    holder = start("-c", HOLD, tmp_path, cwd=tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="is being trained by another process"), locked_run(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with locked_run(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_trained_once_in_a_process_too(tmp_path):
    with locked_run(tmp_path):
        with pytest.raises(UserError), locked_run(tmp_path):
            pass
        assert (tmp_path / LOCK).is_file()
    assert not (tmp_path / LOCK).exists()


def test_a_folder_can_be_moved_while_it_is_trained_in(tmp_path):
    (tmp_path / "here").mkdir()
    with locked_run(tmp_path / "here"):
        (tmp_path / "here").rename(tmp_path / "there")
    with locked_run(tmp_path / "there"):
        pass
    assert list((tmp_path / "there").iterdir()) == []


def test_who_holds_the_lock_sweeps_up_what_a_killed_process_left(tmp_path):
    (tmp_path / "wandb").mkdir()
    for name in ("last.pt.77.unfinished", "summary.json.tmp", "last.pt", "wandb/run.tmp"):
        (tmp_path / name).touch()
    with locked_run(tmp_path):
        pass
    assert {path.name for path in tmp_path.rglob("*")} == {"last.pt", "wandb", "run.tmp"}


def test_of_two_resumes_at_once_exactly_one_goes_on(photographs, tmp_path):
    first = run_python(
        SCRIPT, *TINY, f"--data={photographs}", "--wandb=disabled", "--epochs=1", "--name=run", cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    run = tmp_path / "runs" / "run"
    holder = start("-c", HOLD, run, cwd=tmp_path)
    assert holder.stdout.readline() == "held\n"
    before = contents(run)
    refused = run_python(SCRIPT, "--resume", "runs/run", "--epochs=2", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: 'runs/run' is being trained by another process")
    assert contents(run) == before
    holder.kill()
    holder.communicate()

    both = [start(SCRIPT, "--resume", "runs/run", "--epochs=100000", cwd=tmp_path) for _ in range(2)]
    codes = [process.poll() for process in both]
    while codes == [None, None]:
        codes = [process.poll() for process in both]
    winner, loser = sorted(both, key=lambda process: process.returncode is not None)
    assert loser.returncode == 2 and "is being trained by another process" in loser.stderr.read()
    assert any(line.startswith("epoch 3/") for line in winner.stdout)
    winner.send_signal(signal.SIGTERM)
    winner.communicate(timeout=TIMEOUT)
    assert winner.returncode == 0
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))


# The record


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew_where_that_is_asked_for(tmp_path):
    with record_run(settings_of(tmp_path), "test") as tracker:
        folder = tracker.folder
    (folder / "best.pt").touch()  # written before last.pt
    before = contents(folder)
    resumed = settings_of(tmp_path, resume=str(folder))
    with pytest.raises(UserError, match="there is no checkpoint"), record_run(resumed, "test"):
        pass
    assert contents(folder) == before
    with record_run(resumed, "test", may_begin=True) as tracker:
        assert tracker.folder == folder and not (folder / "best.pt").exists()
        tracker.log({"epoch": 1, "val_accuracy": 0.5})
    assert (folder / "metrics.jsonl").read_text().count("\n") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_a_failure_after_the_result_leaves_the_result(tmp_path):
    with pytest.raises(MemoryError), record_run(settings_of(tmp_path), "test") as tracker:
        tracker.conclude({"status": "finished", "best_val_accuracy": 0.5})
        raise MemoryError
    assert summary_of(tracker.folder) == {"status": "finished", "best_val_accuracy": 0.5, "exit_code": 0}


def test_a_failure_whose_record_fails_too_is_the_one_that_is_told(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("naturalist.runs.tracking.write_summary", fail)
    with pytest.raises(ZeroDivisionError), record_run(settings_of(tmp_path), "test"):
        raise ZeroDivisionError


def test_an_interrupt_that_comes_after_training_began_does_not_say_that_it_came_before(tmp_path):
    with pytest.raises(KeyboardInterrupt), record_run(settings_of(tmp_path), "test") as tracker:
        tracker.log({"epoch": 1, "val_accuracy": 0.5, "val_loss": 1.0})
        tracker.log({"epoch": 2, "val_accuracy": 0.5, "val_loss": 0.5})
        raise KeyboardInterrupt
    assert summary_of(tracker.folder) == {
        "status": "stopped",
        "epochs": 2,
        "best_epoch": 2,
        "best_val_accuracy": 0.5,
        "best_val_loss": 0.5,
        "exit_code": 0,
    }


def test_epochs_are_on_the_disk_as_soon_as_they_are_logged(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("naturalist.runs.tracking.os.fsync", synced.append)
    tracker = Tracker(tmp_path, {}, "disabled", project="p", name="n", job_type="test")
    before = len(synced)
    tracker.log({"epoch": 1})
    assert len(synced) == before + 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError("no space")

    write_atomically(tmp_path / "a", "old")
    monkeypatch.setattr("naturalist.files.os.fsync", fail)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}
