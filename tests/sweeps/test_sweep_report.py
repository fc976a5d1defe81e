"""What a sweep teaches: read from run folders or W&B's files, and said only where the numbers support it."""

import csv
import json
import random
import re
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from naturalist.errors import UserError
from naturalist.runs.records import RunRecord
from naturalist.sweeps import report
from naturalist.sweeps.analysis import influences, sentences
from naturalist.sweeps.read_runs import read_runs
from naturalist.sweeps.report import report_runs


def make_run(number: int, accuracy: float | None, state: str = "finished", **settings: object) -> RunRecord:
    return RunRecord(f"run-{number}", state, settings, accuracy, 5, float(number), 1.0)


def make_runs(number: int, effect: float) -> list[RunRecord]:
    """Runs whose learning rate shifts the accuracy by ``effect``, and whose dropout by nothing."""
    generator = random.Random(0)
    runs = []
    for i in range(number):
        settings = {
            "learning_rate": 1e-3 if i % 2 else 1e-4,
            "dropout": 0.3 if i % 4 < 2 else 0.2,
            "activation": ["ReLU", "GELU", "SiLU"][i % 3],
            "name": f"run-{i}",
        }
        runs.append(make_run(i, 0.4 + effect * (i % 2) + generator.gauss(0, 0.01), **settings))
    return runs


def test_a_setting_that_matters_is_named_with_its_figures_and_one_that_does_not_too():
    found = sentences(make_runs(24, effect=0.1), "val_accuracy")
    assert re.match(
        r"learning_rate matters: average best val_accuracy is \d\d\.\d % where it is 0\.001 \(12 runs\), "
        r"\d\d\.\d % where it is 0\.0001 \(12 runs\); the first is (9|10)\.\d points above the last "
        r"\(95 % interval \d+\.\d to \d+\.\d points\), "
        r"p less than 0\.0001 after Holm's correction for 3 settings\.",
        found[0],
    )
    assert not any(sentence.startswith(("dropout matters", "activation matters")) for sentence in found)
    found = sentences(make_runs(40, effect=0.0), "val_accuracy")
    assert any(re.match(r"dropout does not matter by more than 2 points: .*20 runs", sentence) for sentence in found)


def test_few_runs_say_nothing_about_settings():
    assert sentences(make_runs(8, effect=0.3), "val_accuracy") == ["8 runs are too few to say which settings matter."]


def test_what_the_failed_runs_share_is_said():
    runs = make_runs(24, effect=0.0)
    failing = [
        make_run(100 + i, None, "failed", learning_rate=1e-2, dropout=0.2 + i % 2 / 10, activation="ReLU")
        for i in range(4)
    ]
    assert (
        "What failed runs share: learning_rate = 0.01: 4 of 4 failed runs have it, and 0 of 24 others"
        in sentences(runs + failing, "val_accuracy")[-1]
    )
    assert "too few to say what they share" in sentences(runs + failing[:2], "val_accuracy")[-1]


def test_the_most_important_row_is_the_setting_that_has_the_effect():
    table = influences(make_runs(24, effect=0.1))
    assert table.rows[0].setting == "learning_rate"
    assert table.rows[0].correlation > 0.95 and table.rows[0].importance > 0.8
    assert table.explained > 0.8
    assert abs(sum(row.importance for row in table.rows) - 1) < 1e-6
    assert {row.level for row in table.rows if row.setting == "activation"} == {"ReLU", "GELU", "SiLU"}
    assert not any(row.setting == "name" for row in table.rows)


def write_run(folder: Path, settings: dict, accuracies: list[float], status: str | None, started: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "environment.json").write_text(json.dumps({"started": started}))
    if accuracies:
        lines = [json.dumps({"epoch": epoch, "val_accuracy": value}) for epoch, value in enumerate(accuracies, 1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if status:
        (folder / "summary.json").write_text(json.dumps({"status": status, "reason": "why"}))


def test_a_run_that_an_agent_stopped_is_pruned_and_one_that_was_stopped_by_hand_is_left_out(tmp_path):
    for name, more in (("by hand", {}), ("by an agent", {"sweep": "abc123"})):
        write_run(tmp_path / name, {"epochs": 9}, [0.3], "stopped", "2026-01-01T00:00:00")
        (tmp_path / name / "summary.json").write_text(json.dumps({"status": "stopped", **more}))
    assert {run.name: run.state for run in read_runs([tmp_path], "val_accuracy", True)} == {
        "by hand": "cut off",
        "by an agent": "pruned",
    }


def test_pictures_tables_and_the_best_settings_are_made_from_run_folders(tmp_path):
    generator = random.Random(0)
    for i in range(14):
        settings = {
            "learning_rate": generator.choice([1e-3, 1e-4]),
            "activation": generator.choice(["ReLU", "SiLU"]),
            "weight_decay": generator.random(),
            "name": None,
            "runs_dir": "runs",
            "epochs": 5,
        }
        accuracy = 0.3 + 100 * settings["learning_rate"]
        write_run(
            tmp_path / "runs" / f"run-{i}",
            settings,
            [0.1, accuracy, accuracy - 0.05],
            "pruned" if i % 3 else "finished",
            f"2026-01-01T00:00:{59 - i:02d}+00:00",
        )
    write_run(tmp_path / "runs" / "broken", settings, [], "failed", "2026-01-01T00:01:00+00:00")
    write_run(tmp_path / "runs" / "killed", settings, [0.99], None, "2026-01-01T00:01:00+00:00")
    target = tmp_path / "report"
    report_runs([tmp_path / "runs"], target)
    for name in ("runs.png", "parallel.png", "influence.png"):
        with Image.open(target / name) as picture:
            assert picture.width > 1000
    with (target / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"run-{i}" for i in reversed(range(14))] + ["broken"]  # by creation
    assert rows[-1]["state"] == "failed" and rows[-1]["reason"] == "why" and rows[-1]["best_val_accuracy"] == ""
    best = yaml.safe_load((target / "best.yaml").read_text())
    assert best["learning_rate"] == 1e-3 and "runs_dir" not in best and "name" not in best
    with (target / "influence.csv").open() as file:
        assert next(csv.DictReader(file))["setting"] == "learning_rate"
    assert "learning_rate" in (target / "findings.txt").read_text()


def test_trials_have_one_number_and_no_column_two_meanings(tmp_path, monkeypatch):
    for number in (3, 0, 12):
        name = f"trial-{number:04d}_ep-1000_lr-0.1"
        settings = {"epochs": 1000 + number, "reason": f"because {number}"}
        write_run(
            tmp_path / "runs" / name,
            settings,
            [0.2, 0.3 if number == 3 else 0.4],
            "finished",
            f"2026-01-01T00:00:{59 - number}+00:00",
        )
    cautions = []
    monkeypatch.setattr(report, "plot_influences", lambda *arguments: cautions.append(arguments[-1]))
    report_runs([tmp_path / "runs"], tmp_path / "report")
    with (tmp_path / "report" / "runs.csv").open() as file:
        heading, *rows = csv.reader(file)
    assert heading[0] == "trial" and [row[0] for row in rows] == ["0", "3", "12"]
    assert len(set(heading)) == len(heading) and {"epochs_done", "epochs", "reason", "reason_set"} <= set(heading)
    assert [(row[heading.index("epochs_done")], row[heading.index("epochs")]) for row in rows][2] == ("2", "1012")
    (best,) = re.findall("# The best run, (.*): val_accuracy 40.0 %", (tmp_path / "report" / "best.yaml").read_text())
    assert best.startswith("trial-0000_")  # of equals the first, as in the sweep's own table
    write_run(tmp_path / "runs" / "own", {"epochs": 3}, [0.3, 0.5], "finished", "2026-01-01T00:01:00+00:00")
    report_runs([tmp_path / "runs"], tmp_path / "report")
    with (tmp_path / "report" / "runs.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]  # not all are of a sweep
    assert cautions[-1] == "4 runs are too few to say which settings matter."


def test_offline_files_of_wandb_tell_the_same_as_the_run_folder(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    settings = wandb.Settings(
        root_dir=str(tmp_path), silent=True, console="off", disable_git=True, x_disable_meta=True, x_disable_stats=True
    )
    with wandb.init(
        mode="offline",
        project="demo",
        name="demo",
        settings=settings,
        config={"activation": "SiLU", "num_filters": [1, 2], "notes": "x" * 100_000},
    ) as run:
        for epoch, accuracy in enumerate((0.1, 0.5, 0.4), start=1):
            run.log({"epoch": epoch, "val_accuracy": accuracy})
        run.log({"picture": 1})
        run.summary.update({"status": "pruned"})
    deadline = time.monotonic() + 30
    while True:  # W&B's helper process may still be writing
        (record,) = read_runs([tmp_path / "wandb"], "val_accuracy", maximize=True)
        if record.state != "cut off" or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert (record.name, record.state, record.value, record.epochs) == ("demo", "pruned", 0.5, 3)
    assert record.settings["activation"] == "SiLU" and record.settings["num_filters"] == [1, 2]
    assert len(record.settings["notes"]) == 100_000  # spans several of the file's blocks
    assert record.started > 1.7e9


def test_a_folder_without_runs_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="holds no runs"):
        report_runs([tmp_path], tmp_path / "report")
    write_run(tmp_path / "runs" / "broken", {"epochs": 1}, [], "failed", "2026-01-01T00:01:00+00:00")
    with pytest.raises(UserError, match="1 run in .* has no val_accuracy"):
        report_runs([tmp_path / "runs"], tmp_path / "report")
