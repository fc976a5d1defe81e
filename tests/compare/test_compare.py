"""Runs side by side: the numbers are those of the folders, and the words say no more than the numbers."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from naturalist.compare.compare import compare_runs
from naturalist.errors import UserError


def write_run(folder: Path, *, test: float | None, seed: int = 0, seconds: float = 10.0, **config) -> Path:
    """A finished run's folder with two epochs, of which the second is the best."""
    folder.mkdir(parents=True)
    settings = {"data": "plants", "seed": seed, "learning_rate": 0.001, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    parameters = 1000 if config.get("strategy") == "head" else 90000
    (folder / "summary.json").write_text(
        json.dumps(
            {
                "status": "finished",
                "parameters": 90000,
                "trainable_parameters": parameters,
                "peak_memory_mb": 512.0,
                "feature_seconds": 5.0,
            }
        )
    )
    rows = [
        {
            "epoch": epoch,
            "train_accuracy": 0.5 + 0.1 * epoch,
            "val_accuracy": 0.4 + 0.1 * epoch,
            "val_loss": 1.0,
            "epoch_seconds": seconds,
        }
        for epoch in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if test is not None:
        (folder / "evaluation" / "test").mkdir(parents=True)
        (folder / "evaluation" / "test" / "metrics.json").write_text(
            json.dumps({"accuracy": test, "balanced_accuracy": test - 0.05})
        )
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    adapted = {"backbone": "resnet18", "weights": "DEFAULT"}
    return (
        [
            write_run(
                tmp_path / "runs" / f"full-{seed}",
                test=0.80 + 0.01 * seed,
                seed=seed,
                seconds=60,
                strategy="full",
                **adapted,
            )
            for seed in range(3)
        ]
        + [
            write_run(
                tmp_path / "runs" / f"head-{seed}", test=0.79 + 0.01 * seed, seed=seed, strategy="head", **adapted
            )
            for seed in range(3)
        ]
        + [write_run(tmp_path / "runs" / f"scratch-{seed}", test=0.40 + 0.01 * seed, seed=seed) for seed in range(3)]
    )


def test_seeds_are_averaged_and_the_numbers_are_those_of_the_folders(runs, tmp_path):
    output = compare_runs(runs)
    assert output == tmp_path / "comparison"
    with (output / "comparison.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"resnet18, full", "resnet18, head", "CNN from scratch"}
    full = {name: float(value) for name, value in rows["resnet18, full"].items() if name != "label"}
    assert full["runs"] == 3 and full["trainable_parameters_mean"] == 90000
    assert full["test_accuracy_mean"] == pytest.approx(0.81) and full["test_accuracy_std"] == pytest.approx(0.01)
    assert full["test_balanced_accuracy_mean"] == pytest.approx(0.76)
    assert full["total_seconds_mean"] == 125 and full["epoch_seconds_mean"] == 60
    assert full["gap_mean"] == pytest.approx(0.1) and full["val_accuracy_mean"] == pytest.approx(0.6)
    with (output / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9
    assert "| resnet18, full | 3 | 90,000 | 2 | 60 | 125 | 512 |" in (output / "comparison.md").read_text()


def test_the_words_tell_a_difference_from_chance(runs):
    text = (compare_runs(runs) / "comparison.md").read_text()
    assert "Best on validation is **resnet18, full** with 60.0 ± 0.0 %, level with resnet18, head" in text
    assert "81.0 ± 1.0 % and 80.0 ± 1.0 %, the first is 1.0 points above the second, which is no sure diff" in text
    assert "(95 % interval −1.3 to 3.3 points, from the spread between seeds)" in text
    assert "Pre-training is worth 40.0 points on test here" in text
    assert "Cheapest of those that are not surely behind resnet18, full is resnet18, head, 1.0 points below it" in text
    assert "on test: 25 s instead of 125 s" in text


def test_the_pictures_are_drawn(runs):
    output = compare_runs(runs)
    for name in ("accuracy_over_time", "accuracy_over_parameters", "learning_curves"):
        assert len(set(Image.open(output / f"{name}.png").convert("L").tobytes())) > 50


def test_without_test_results_validation_decides_and_it_is_said(tmp_path, capsys):
    folders = [write_run(tmp_path / name, test=None, strategy=name, backbone="resnet18") for name in ("head", "full")]
    output = compare_runs(folders, tmp_path / "out")
    assert "Best on validation" in (output / "comparison.md").read_text()
    assert "Without test accuracy: head, full" in capsys.readouterr().out


def test_groups_of_one_name_are_told_apart_by_what_differs(tmp_path):
    folders = [write_run(tmp_path / str(rate), test=rate, learning_rate=rate) for rate in (0.1, 0.2)]
    text = (compare_runs(folders, tmp_path / "out") / "comparison.md").read_text()
    assert "CNN from scratch, learning_rate 0.1 |" in text and "CNN from scratch, learning_rate 0.2 |" in text


def test_a_name_does_not_break_the_table_or_become_markup(tmp_path, capsys):
    adapted = {"strategy": "head", "backbone": "resnet18"}
    folders = [
        write_run(tmp_path / str(i), test=0.5, weights=weights, data="_<b>_", **adapted)
        for i, weights in enumerate(["a|b*[red]*.pth", "$x$ 猫.pth"])
    ]
    text = (compare_runs(folders, tmp_path / "out") / "comparison.md").read_text(encoding="utf-8")
    assert text.startswith("# Comparison on \\_\\<b\\>\\_\n")
    assert "\n| resnet18, head, weights a\\|b\\*\\[red\\]\\*.pth | 1 |" in text
    assert "is **resnet18, head, weights a\\|b\\*\\[red\\]\\*.pth** with" in text
    assert "is resnet18, head, weights a|b*[red]*.pth with" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path, runs):
    with pytest.raises(UserError, match="at least two runs"):
        compare_runs(runs[:1])
    with pytest.raises(UserError, match="is no finished run"):
        compare_runs([runs[0], tmp_path])
    other = write_run(tmp_path / "other", test=0.5, seed=0, data="animals")
    with pytest.raises(UserError, match="different data cannot be compared: animals, plants"):
        compare_runs([runs[0], other])
