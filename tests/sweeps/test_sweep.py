"""A sweep without a server: trials are neither lost nor repeated, whoever is killed."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml
from conftest import TIMEOUT, run_python, start_python
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from naturalist.data.sources.sample import make_sample
from naturalist.errors import MAKE_SMALLER, OUT_OF_MEMORY, UserError
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.sweeps import table as table_module
from naturalist.sweeps.space import read_sweep
from naturalist.sweeps.store import Store
from naturalist.sweeps.table import TrialTable
from naturalist.sweeps.trials import Trials, is_cut_off
from naturalist.sweeps.workers import Worker, folder_in_log, require_recorded

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, os, time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from naturalist.settings.run_settings import RunSettings

@dataclass(frozen=True)
class Model:
    quality: float = 0.5
    level: int = 1
    ends: Literal["well", "raises", "dies", "runs out of memory", "finishes when it is stopped"] = "well"
    pause: float = 0.0

    def validate(self):
        pass

@dataclass(frozen=True)
class Settings(RunSettings):
    model: Model = field(default_factory=Model)

def train(settings: Settings, should_stop=None) -> dict:
    model = settings.model
    folder = Path(settings.record.runs_dir) / f"{model.quality:g}-{model.level}-{time.time_ns()}"
    folder.mkdir(parents=True)
    print("Run:", folder, flush=True)
    (folder / "config.yaml").write_text(f"quality: {model.quality}\\nlevel: {model.level}\\n")
    (folder / "pid").write_text(str(os.getpid()))
    status = "finished"
    try:
        for epoch in range(1, settings.training.epochs + 1):
            time.sleep(model.pause)
            if model.ends == "raises":
                raise ValueError("this learning rate is no good")
            if model.ends == "runs out of memory":
                raise MemoryError
            if model.ends == "dies":
                os.kill(os.getpid(), 9)
            metrics = {"epoch": epoch, "val_accuracy": model.quality * epoch / (epoch + 1)}
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(metrics) + "\\n")
            if should_stop and should_stop(metrics):
                status = "pruned"
                break
    except KeyboardInterrupt:
        status = "finished" if model.ends == "finishes when it is stopped" else "stopped"
    (folder / "summary.json").write_text(json.dumps({"status": status}))
    return {"status": status, "folder": str(folder)}
"""

SWEEP = {
    "program": "program.py",
    "method": "grid",
    "metric": {"name": "val_accuracy", "goal": "maximize"},
    "parameters": {"quality": {"values": [0.1, 0.2, 0.3]}, "level": {"values": [1, 2]}, "epochs": {"value": 2}},
}


class Place:
    """A folder with a sweep of a program that only pretends to train."""

    command = ("-m", "naturalist", "sweep", "sweep.yaml", "--set", "device=cpu")

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "program.py").write_text(PROGRAM)
        self.write()

    def write(self, parameters: dict | None = None, **changes: object) -> None:
        sweep = {**SWEEP, **changes}
        sweep["parameters"] = {**SWEEP["parameters"], **(parameters or {})}
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))

    def start(self, *arguments: object, fresh: bool = False) -> subprocess.Popen:
        return start_python(*self.command, *arguments, cwd=self.folder, start_new_session=True, fresh=fresh)

    def run(self, *arguments: object, code: int = 0) -> str:
        process = run_python(*self.command, *arguments, cwd=self.folder)
        output = process.stdout + process.stderr
        assert process.returncode == code, output
        return output

    def trials(self, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
        journal = self.folder / "sweeps" / "sweep" / "journal.log"
        storage = RDBStorage(url) if url else JournalStorage(JournalFileBackend(str(journal)))
        trials = optuna.load_study(study_name="sweep", storage=storage).get_trials()
        if url:
            storage.engine.dispose()  # else its connections are found open in the middle of another test
        return trials

    def settings(self, *states: str) -> list[tuple]:
        """Settings of the trials in these states, sorted."""
        sweep = read_sweep(self.folder / "sweep.yaml")
        return sorted(
            (settings["quality"], settings["level"])
            for trial in self.trials()
            if trial.state.name in states
            for settings in [sweep.settings(trial.params)]
        )

    def pids(self) -> set[int]:
        return {int(path.read_text()) for path in self.folder.glob("sweeps/sweep/runs/*/pid")}


GRID = sorted((quality, level) for quality in (0.1, 0.2, 0.3) for level in (1, 2))


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_two_processes_share_a_journal_and_the_grid_is_complete_without_repeats(place):
    place.write({"pause": {"value": 0.05}})
    processes = [place.start("--workers", 1), place.start("--workers", 2)]
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert place.settings("COMPLETE") == GRID
    assert len(place.trials()) == len(GRID)
    assert len({trial.user_attrs["owner"] for trial in place.trials()}) == 2
    assert len(place.pids()) <= 3  # workers stay for all their trials
    assert len(list(place.folder.glob("sweeps/sweep/runs/*"))) == len(GRID)
    assert "6 trials finished, 0 pruned, 0 failed." in place.run()
    assert len(place.trials()) == len(GRID)


def test_count_is_the_whole_sweeps_and_bayes_never_tries_the_same_twice(place):
    place.write({"epochs": {"value": 1}}, method="bayes")
    place.run("--count", 3)
    assert len(place.trials()) == 3
    output = place.run("--count", 50)
    assert "Going on with sweep sweep: 3 trials done, 0 cut off." in output
    assert place.settings("COMPLETE") == GRID


def test_a_trial_that_raises_dies_or_runs_out_of_memory_costs_itself_only(place):
    ends = ["well", "raises", "dies", "runs out of memory"]
    place.write({"quality": {"value": 0.5}, "level": {"value": 1}, "ends": {"values": ends}})
    output = place.run("--workers", 2)
    failures = {place.trials()[i].user_attrs.get("failure", "").split("; see ")[0] for i in range(4)}
    assert failures == {
        "",
        "ValueError: this learning rate is no good",
        f"{OUT_OF_MEMORY}: {MAKE_SMALLER}",
        "its process was killed by SIGKILL, as systems do when memory runs out; fewer --workers take less",
    }
    assert "1 trial finished, 0 pruned, 3 failed." in output
    (log,) = [
        trial.user_attrs["failure"].split("; see ")[1]
        for trial in place.trials()
        if "ValueError" in trial.user_attrs.get("failure", "")
    ]
    assert "Traceback" in (place.folder / log).read_text()
    (died,) = [trial for trial in place.trials() if "SIGKILL" in trial.user_attrs.get("failure", "")]
    summary = json.loads((place.folder / died.user_attrs["folder"] / "summary.json").read_text())
    assert summary["status"] == "failed" and "SIGKILL" in summary["reason"]


def test_when_the_first_trials_all_fail_the_sweep_gives_up(place):
    place.write({"ends": {"value": "raises"}})
    output = place.run(code=2)
    assert "error: the first 3 trials all failed, the last because ValueError: this learning rate is no good" in output
    assert len(place.trials()) == 3


def test_a_killed_sweep_takes_its_workers_along_and_goes_on_where_it_was(place):
    place.write({"pause": {"value": 0.4}})
    process = place.start("--workers", 2)
    wait_until(lambda: len(list(place.folder.glob("sweeps/sweep/runs/*/metrics.jsonl"))) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(map(alive, place.pids())))
    done = place.settings("COMPLETE")
    cut_off = place.settings("RUNNING")
    assert cut_off
    place.run("--workers", 2)
    assert place.settings("COMPLETE") == GRID
    assert sum(is_cut_off(trial) for trial in place.trials()) == len(cut_off)
    assert len(place.trials()) == len(GRID) + len(cut_off)
    assert set(done) <= set(GRID)


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(place):
    place.write({"pause": {"value": 0.4}})
    process = place.start("--workers", 2)
    wait_until(lambda: len(list(place.folder.glob("sweeps/sweep/runs/*/metrics.jsonl"))) >= 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the sweep and its workers
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "The same command goes on" in output and "Traceback" not in output
    assert not any(map(alive, place.pids()))
    assert not place.settings("RUNNING")
    summaries = place.folder.glob("sweeps/sweep/runs/*/summary.json")
    statuses = [json.loads(path.read_text())["status"] for path in summaries]
    assert "cut off" in statuses and "stopped" not in statuses
    place.run("--workers", 2)
    assert place.settings("COMPLETE") == GRID


def test_hopeless_trials_are_pruned_and_the_target_ends_the_sweep(place):
    place.write(
        {"quality": {"values": [0.9, 0.4, 0.3, 0.2, 0.1, 0.99, 0.5]}, "level": {"value": 1}, "epochs": {"value": 4}},
        early_terminate={"type": "hyperband", "min_iter": 2},
        metric={"name": "val_accuracy", "goal": "maximize", "target": 0.79},
    )
    output = place.run()
    assert [trial.state.name for trial in place.trials()] == ["COMPLETE", *["PRUNED"] * 4, "COMPLETE"]
    assert [len(trial.intermediate_values) for trial in place.trials()] == [4, 2, 2, 2, 2, 4]
    assert "2 trials finished, 4 pruned, 0 failed." in output


def test_fidelity_promotes_the_best_to_the_real_settings_and_trains_them_to_the_end(place):
    place.write({"level": {"values": [1]}}, metric={"name": "val_accuracy", "goal": "maximize", "target": 0.01})
    place.run()  # ends with its first trial, which is not run again below
    assert place.settings("COMPLETE") == [(0.1, 1)]
    place.write({"epochs": {"value": 4}}, early_terminate={"type": "hyperband", "min_iter": 1})
    place.run("--name", "other", "--count", 1)
    output = place.run(
        "--name", "other", "--fidelity", "image_size=32", "--fidelity", "train_fraction=0.25", "--workers", 2
    )
    sweep = place.folder / "sweeps" / "other"
    assert len(list((sweep / "runs@image_size=32,train_fraction=0.25").iterdir())) == 6
    qualities = sorted(yaml.safe_load(path.read_text())["quality"] for path in sweep.glob("runs/*/config.yaml"))
    assert qualities == [0.1, 0.2, 0.3, 0.3]  # the first was there before
    assert all(len(path.read_text().splitlines()) == 4 for path in sweep.glob("runs/*/metrics.jsonl"))
    assert yaml.safe_load((sweep / "report" / "best.yaml").read_text())["quality"] == 0.3
    assert output.count("trials finished") == 2


def test_a_cheap_round_does_not_end_at_the_target(place):
    place.write(metric={"name": "val_accuracy", "goal": "maximize", "target": 0.01})
    place.run("--fidelity", "image_size=32")
    assert len(list(place.folder.glob("sweeps/sweep/runs@image_size=32/*"))) == 6
    assert len(place.settings("COMPLETE")) == 1  # and here it does


def test_a_trial_that_ended_by_itself_when_the_sweep_was_stopped_is_kept(place):
    place.write({"pause": {"value": 1.5}, "ends": {"value": "finishes when it is stopped"}, "epochs": {"value": 50}})
    process = place.start(fresh=True)  # a worker that is forked would take a second signal for the first
    wait_until(lambda: list(place.folder.glob("sweeps/sweep/runs/*/metrics.jsonl")))
    time.sleep(0.5)  # in the middle of an epoch, not at its end, where the sweep would be asked
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=TIMEOUT)
    assert len(place.settings("COMPLETE")) == 1


def test_where_no_signal_can_stop_a_trial_it_saves_and_ends_all_the_same(place, monkeypatch):
    """As on Windows, where what asks a process to end ends it at once. Logs are UTF-8 whatever the terminal is."""
    monkeypatch.setattr("naturalist.sweeps.workers.SENDS_SIGNALS", False)
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    worker, runs, log = Worker(place.folder / "program.py", 0, 1), place.folder / "猫", place.folder / "log"
    try:
        worker.start([f"--runs_dir={runs}", "--device=cpu", "--pause=0.05", "--epochs=1000"], [], log)
        assert worker.read()[0] == "epoch"
        worker.answer(False)
        worker.interrupt()
        while (said := worker.read())[0] == "epoch":
            worker.answer(False)
        assert said == ("done", {"status": "stopped", "folder": folder_in_log(log)})
        worker.start([f"--runs_dir={runs}", "--device=cpu", "--epochs=1"], [], log)
        assert worker.read()[0] == "epoch"
        worker.answer(False)
        assert worker.read()[1]["status"] == "finished"
    finally:
        worker.close()


def test_a_trial_that_was_cut_off_does_not_reach_the_target(place):
    place.write(metric={"name": "val_accuracy", "goal": "maximize", "target": 0.5})
    store = Store(place.folder, None)
    trials = Trials(store, "sweep", read_sweep(place.folder / "sweep.yaml"))
    trial = trials.choose(9)
    trials.report(trial, {"val_accuracy": 0.6})
    assert trials.choose(9) is None
    trials.cut_off(trial)
    assert trials.choose(9).params == trial.params
    store.close()


def test_a_machine_that_ran_nothing_says_where_the_best_trial_is(place):
    url = f"sqlite:///{place.folder}/shared.db"
    place.run("--storage", url)
    shutil.move(place.folder / "sweeps", place.folder / "other machine")
    output = place.run("--storage", url)
    assert "No report: " in output and "was run on another machine, in its folder sweeps/sweep/runs/" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--count and --workers must be at least 1"),
        (["--fidelity", "image_size"], "--fidelity must be NAME=VALUE"),
        (["--fidelity", "quality=1"], "the sweep searches that setting itself"),
        (
            ["--fidelity", "image_size=128"],
            "with image_size=128 a round would be no other than the last or an earlier one",
        ),
        (["--fidelity", "image_size=32,64", "--fidelity", "train_fraction=0.1"], "as many values as the others"),
        (["--set", "runs-dir=elsewhere"], "runs_dir cannot be set: the sweep gives every trial its own"),
        (["--set", "quality=1"], "quality is set by sweep.yaml, so it cannot be set for every trial as well"),
        (["--set", "qualty=1"], "no setting --qualty; did you mean quality"),
        (["--storage", "nonsense"], "--storage must be a database URL"),
        (["--storage", "sqlite:////proc/none/x.db"], "cannot be used"),
        (
            ["--storage", "postgresql://me:secret@127.0.0.1:9/x"],
            r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:9/x cannot be",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(place, monkeypatch, arguments, message):
    from naturalist.cli import main

    monkeypatch.chdir(place.folder)
    with pytest.raises(UserError, match=message):
        main(["sweep", "sweep.yaml", *arguments])


def test_an_endless_sweep_needs_a_count(place, monkeypatch):
    from naturalist.cli import main

    place.write(method="random")
    monkeypatch.chdir(place.folder)
    with pytest.raises(UserError, match="never ends by itself; give --count N, or run_cap"):
        main(["sweep", "sweep.yaml"])


def test_a_changed_sweep_file_does_not_go_on_with_another_sweep(place, monkeypatch):
    store = Store(place.folder, None)
    sweep = read_sweep(place.folder / "sweep.yaml")
    Trials(store, "sweep", sweep)
    place.write({"quality": {"values": [0.1, 0.7]}})
    with pytest.raises(UserError, match="started with other parameters; give the changed one another name"):
        Trials(store, "sweep", read_sweep(place.folder / "sweep.yaml"))
    store.close()


def test_a_sweep_does_not_go_on_with_other_photographs_or_settings(place):
    place.run("--set", "pause=0", "--set", "image_size=32", "--data", "here/birds", "--count", 1)
    for changed, arguments in (("--data", ["image_size=32", "--data", "birds2"]), ("--image_size", ["image_size=64"])):
        place.run("--set", "pause=0", "--data", "elsewhere/birds/", "--count", 2, "--set", *arguments, code=2)
        output = place.run("--set", "pause=0", "--data", "elsewhere/birds/", "--count", 2, "--set", *arguments, code=2)
        assert f"was started with other {changed}" in output
    place.run("--set", "pause=0", "--set", "image_size=32", "--data", "elsewhere/birds/", "--count", 2)


def test_bayes_finds_a_better_setting_than_chance_does(place):
    """Twenty trials of a quadratic, without processes: TPE comes nearer than a random search with the same seeds."""
    space = {"quality": {"min": 0.0, "max": 1.0}, "level": {"min": 1, "max": 20}}
    best = {}
    for method in ("random", "bayes"):
        place.write(space, method=method)
        best[method] = []
        for seed in range(3):
            folder = place.folder / f"{method}-{seed}"
            store = Store(folder, None)
            trials = Trials(store, "sweep", read_sweep(place.folder / "sweep.yaml"), seed=seed)
            while (trial := trials.choose(25)) is not None:
                settings = trials.settings(trial)
                value = 1 - (settings["quality"] - 0.3) ** 2 - (settings["level"] / 20 - 0.8) ** 2
                trials.report(trial, {"val_accuracy": value})
                trials.finish(trial, seconds=1)
            best[method].append(trials.value(trials.best()))
            store.close()
    assert sum(best["bayes"]) > sum(best["random"])


def test_the_real_program_is_swept_from_the_original_file(tmp_path):
    (tmp_path / "partA").symlink_to(ROOT / "partA")
    shutil.copy(ROOT / "sweep.yaml", tmp_path)
    make_sample(tmp_path / "photographs", train_images=60, test_images=20)
    command = ["-m", "naturalist", "sweep", "sweep.yaml", "--count", "1", "--data", "photographs"]
    result = run_python(*command, "--set", "image_size=32", "--set", "dense_units=4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = tmp_path / "sweeps" / "sweep" / "report"
    assert {"runs.png", "runs.csv", "findings.txt", "best.yaml"} <= {path.name for path in report.iterdir()}
    settings = parse_settings(CnnSettings, "", ["--config", str(report / "best.yaml")])
    assert settings.data.image_size == 32 and settings.data.data == "photographs"
    (run,) = (tmp_path / "sweeps" / "sweep" / "runs").iterdir()
    assert run.name.startswith("trial-0000_ep-") and (run / "best.pt").is_file() and (run / "curves.png").is_file()
    assert not (run / "evaluation").exists()  # drawn for the one that is looked at, not for every trial
    assert f"python -m naturalist evaluate {run.relative_to(tmp_path)} --split val" in result.stdout


def test_a_process_that_was_killed_while_choosing_leaves_nothing_that_runs_twice(place):
    sweep = read_sweep(place.folder / "sweep.yaml")
    first = Store(place.folder, None)
    Trials(first, "sweep", sweep).study.enqueue_trial({"quality": 0, "level": 0})
    first.close()
    second = Store(place.folder, None)
    trials = Trials(second, "sweep", sweep)
    started = []
    while (trial := trials.choose(100)) is not None:
        started.append(tuple(trials.settings(trial).values())[:2])
    assert sorted(started) == GRID
    second.close()


def test_the_trial_of_a_machine_that_vanished_is_run_again_by_another(place, monkeypatch):
    monkeypatch.setattr("naturalist.sweeps.store.BEAT_SECONDS", 1)
    monkeypatch.setattr("naturalist.sweeps.store.DEAD_SECONDS", 2)
    url = f"sqlite:///{place.folder}/shared.db"
    sweep = read_sweep(place.folder / "sweep.yaml")
    first = Store(place.folder / "first machine", url)
    lost = Trials(first, "sweep", sweep).choose(1)
    second = Store(place.folder / "second machine", url)
    trials = Trials(second, "sweep", sweep)
    assert trials.choose(1) is None  # it may still be running there
    time.sleep(4)
    again = trials.choose(1)
    assert again is not None and again.params == lost.params
    assert trials.counts().cut_off == 1
    silent = Trials(first, "sweep", sweep)  # it was asleep, and wakes up
    assert silent.report(lost, {"val_accuracy": 0.5}) and not silent.finish(lost, seconds=1)
    silent.cut_off(lost)
    assert trials.counts().running == 1
    first.close()
    second.close()


@pytest.mark.parametrize(("recorded", "status"), [(2, "finished"), (3, "failed")])
def test_a_trial_whose_folder_has_other_settings_than_the_sweep_shows_fails(tmp_path, recorded, status):
    (tmp_path / "config.yaml").write_text(f"level: {recorded}\nquality: 0.5\n")
    (tmp_path / "summary.json").write_text('{"status": "finished"}')
    result = {"status": "finished", "folder": str(tmp_path)}
    sentence = f"level is 2 in the sweep, but 3 in {tmp_path}/config.yaml."
    with nullcontext() if status == "finished" else pytest.raises(UserError, match=sentence):
        require_recorded({"level": 2, "quality": 0.5, "epochs": 1}, result)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == status


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_live_table_has_every_setting_in_80_columns_and_names_what_it_has_no_room_for(place, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "40")
    with closing(Store(place.folder, None)) as store:
        trials = Trials(store, "sweep", read_sweep(ROOT / "sweep.yaml"))
        for number in range(5):
            trial = trials.choose(9)
            trials.report(trial, {"val_accuracy": 0.6123 - number / 100})
            trials.finish(trial, seconds=3723, failure="it fell over; see logs/a.log" if number == 4 else None)
        shown, console = TrialTable(trials, 9), Console(width=width, file=io.StringIO())
        console.print(shown._draw(), crop=False)
        lines, names = console.file.getvalue().splitlines(), shown._differing()
        cells = {column.name: column.cells for column in shown._settings(trials.shown())}
    text = " ".join(" ".join(lines).split())
    assert len(names) > 6 and "…" not in text and all(len(line.rstrip()) <= width for line in lines), text
    assert "best so far: trial 0, val_accuracy 61.2 %, " in text and "61.2 % * " in text
    assert "trial 4 failed: it fell over; see logs/a.log" in text
    left_out = text.partition("no room for ")[2].partition(" trial 4 failed")[0].split(", ") if width == 40 else []
    kept = [name for name in names if name not in left_out]
    assert ("time" in left_out, "epoch" in left_out) == (width == 40, width == 40)
    for number, row in enumerate(line.split() for line in lines if re.match(r" +\d ", line)):
        assert [cells[name][number] for name in kept] == row[-len(kept) :], text
    if width < 200:
        assert all(re.search(rf"\w+={name}\b", text) or f" {name} " in text for name in kept) and len(kept) > 1
    else:
        assert " ".join(names) in text


def test_the_table_shows_what_differs_and_its_estimate_counts_what_running_trials_have_used(place, monkeypatch):
    place.write({"quality": {"values": [0.5, 0.6, 0.7]}, "learning_rate": {"values": [1e-4]}, "level": {"values": [1]}})
    with closing(Store(place.folder, None)) as store:
        trials = Trials(store, "sweep", read_sweep(place.folder / "sweep.yaml"))
        shown = TrialTable(trials, 3)
        first = trials.choose(3)
        assert shown._left(trials.counts()) is None  # nothing is known yet
        trials.report(first, {"val_accuracy": 0.5})
        trials.finish(first, seconds=100)
        second = trials.choose(3)
        begun = trials.shown()[1].datetime_start
        for passed, left in ((0, 200), (86, 114), (300, 100)):
            now = begun + timedelta(seconds=passed)
            monkeypatch.setattr(table_module, "datetime", SimpleNamespace(now=lambda now=now: now))
            assert shown._left(trials.counts()) == pytest.approx(left)
        shown.update(running=2)  # two workers share what is left
        assert shown._left(trials.counts()) == pytest.approx(50)
        quality = trials.settings(second)["quality"]
        assert shown._describe(trials.shown()[1]) == f"quality={quality:.3g}"
