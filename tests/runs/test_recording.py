"""One process trains a run, and how it ended is written once."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, TIMEOUT, run_python, start_python

from naturalist.errors import UserError
from naturalist.files import write_atomically
from naturalist.runs.folder import LOCK, create_run_folder, locked_run
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
    return start_python(*arguments, cwd=cwd, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


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
        tracker.log({"epoch": 1, "val_accuracy": 0.5, "val_balanced_accuracy": 0.3, "val_loss": 1.0})
        tracker.log({"epoch": 2, "val_accuracy": 0.5, "val_balanced_accuracy": 0.2, "val_loss": 0.5})
        raise KeyboardInterrupt
    assert summary_of(tracker.folder) == {
        "status": "stopped",
        "epochs": 2,
        "best_epoch": 2,
        "best_val_accuracy": 0.5,
        "best_val_balanced_accuracy": 0.2,
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


# Folders


@pytest.mark.parametrize("kind", ["file", "dangling link", "below a file"])
def test_a_runs_folder_that_is_none_is_one_sentence(tmp_path, kind):
    place = tmp_path / "runs"
    if kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("")
    with pytest.raises(UserError, match="Choose another|choose another"):
        create_run_folder(place / "x" if kind == "below a file" else place, "run")


@pytest.mark.parametrize("name", ["ü" * 300, "x" * 300, "..", "a/../../b", "\0", "\udcff"])
def test_whatever_a_run_is_called_its_folder_lies_in_the_runs_folder(tmp_path, name):
    folders = [create_run_folder(tmp_path / "runs", name) for _ in range(3)]
    assert {folder.parent for folder in folders} == {tmp_path / "runs"} and len(set(folders)) == 3


def test_a_folder_that_is_removed_while_it_is_trained_in_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot write"), record_run(settings_of(tmp_path), "test") as tracker:
        shutil.rmtree(tracker.folder)
        tracker.log({"epoch": 1, "val_accuracy": 0.5, "val_loss": 1.0})
    assert not tracker.folder.exists()


def test_reasons_are_recorded_in_the_words_that_are_printed_and_without_passwords(tmp_path):
    for error, words in ((MemoryError(), "out of memory: make"), (KeyError("redis://:PASSWORD@h"), "redis://:***@h")):
        with pytest.raises(type(error)), record_run(settings_of(tmp_path), "test") as tracker:
            raise error
        assert words in summary_of(tracker.folder)["reason"]


def test_no_password_of_the_command_line_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["naturalist", "sweep", "--storage", "postgresql://u:PASSWORD@h/db"])
    with record_run(settings_of(tmp_path), "test") as tracker:
        tracker.finish({"status": "finished"})
    text = (tracker.folder / "environment.json").read_text()
    assert "PASSWORD" not in text and "postgresql://u:***@h/db" in text
