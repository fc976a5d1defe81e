"""A soup is a run like any other, no worse on validation than its best ingredient; the test set is not touched."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from quick_runs import make_run

from naturalist.compare.compare import read_run
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.evaluation.variants import prior_of_run
from naturalist.ingredients import read_ingredient
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.settings.resume import settings_of_run
from naturalist.soup import _Kitchen, make_soup


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_sample(tmp_path_factory.mktemp("data") / "pictures", train_images=50, test_images=20)


@pytest.fixture
def runs(tmp_path, pictures) -> list[Path]:
    """Three runs that began alike; the last is the first, with an output layer that says nothing."""
    folders = [make_run(tmp_path / "runs" / name, pictures, dropout=rate) for name, rate in (("a", 0.1), ("b", 0.3))]
    change(folders[1], lambda state: {name: move(value) for name, value in state.items()})
    folders.append(tmp_path / "runs" / "c")
    shutil.copytree(folders[0], folders[2])
    change(folders[2], lambda state: state | {"output.weight": torch.zeros_like(state["output.weight"])})
    for folder in folders:
        (folder / "summary.json").write_text('{"status": "finished"}')
        row = {"epoch": 1, "train_accuracy": 0.5, "val_accuracy": 0.5, "val_loss": 1.0, "epoch_seconds": 3.0}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return folders


def move(value: torch.Tensor) -> torch.Tensor:
    """As a training would: by a little."""
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    return value * (1 + 0.05 * noise) if value.is_floating_point() else value


def change(folder: Path, how) -> None:
    content = load_checkpoint(folder)
    torch.save({**content, "state_dict": how(content["state_dict"])}, folder / "best.pt")


def edit_config(folder: Path, **changes) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))


def tasted(printed: str) -> dict[str, tuple[float, float]]:
    """What the table says of each mixture: validation accuracy in per cent, and loss."""
    rows = [[cell.strip(" │*") for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    return {name: (float(accuracy.removesuffix("%")), float(loss)) for name, accuracy, _, loss in rows}


def test_a_soup_is_a_run_that_the_verbs_take(runs, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("naturalist.evaluation.evaluate._write", lambda *given: None)  # draws for seconds
    monkeypatch.setattr("naturalist.evaluation.evaluate._send", lambda *given: None)
    shutil.move(pictures / "test", tmp_path / "test")
    soup = make_soup(runs, device="cpu")
    shutil.move(tmp_path / "test", pictures / "test")
    assert soup == tmp_path / "runs" / "soup"
    summary = json.loads((soup / "summary.json").read_text())
    assert summary["status"] == "finished" and sum(part["share"] for part in summary["soup"]) == pytest.approx(1)
    printed = capsys.readouterr().out
    mixtures = tasted(printed)
    assert {"a", "b", "c"} < mixtures.keys() and f"Run: {soup}" in printed
    assert 100 * summary["best_val_accuracy"] == pytest.approx(max(accuracy for accuracy, _ in mixtures.values()))
    evaluated = evaluate_run(soup, "val", device="cpu", quiet=True)
    assert evaluated["accuracy"] == pytest.approx(summary["best_val_accuracy"]) and summary["seconds"] == 9.0
    assert evaluated["loss"] == pytest.approx(summary["best_val_loss"], rel=1e-4)
    assert read_run(soup).label.startswith("CNN from scratch, soup of ")
    with pytest.raises(UserError, match="is a soup of other runs"):
        settings_of_run(soup, {})


def test_the_line_between_two_runs_has_both_of_them_on_it(runs, capsys):
    soup = make_soup([runs[2], runs[0]], interpolate=True, device="cpu", name="line")
    points = tasted(capsys.readouterr().out)
    assert len(points) == 11 and {"c", "a", "70 % c + 30 % a"} < points.keys()
    summary = json.loads((soup / "summary.json").read_text())
    assert 100 * summary["best_val_accuracy"] == pytest.approx(max(accuracy for accuracy, _ in points.values()))


@pytest.mark.parametrize(
    ("accuracy", "left"),
    [
        ({"a": 0.3, "b": 0.5, "c": 0.4, "bc": 0.5, "ab": 0.4}, ["b"]),
        ({"a": 0.3, "b": 0.5, "c": 0.4, "bc": 0.6, "abc": 0.6}, ["b", "c"]),
        ({"a": 0.3, "b": 0.5, "c": 0.4, "bc": 0.4, "ab": 0.6}, ["a", "b"]),
        ({"a": 0.3, "b": 0.5, "c": 0.4, "bc": 0.6, "abc": 0.7}, ["a", "b", "c"]),
    ],
)
def test_the_better_first_each_is_added_where_validation_gains_by_it(runs, capsys, monkeypatch, accuracy, left):
    taste = _Kitchen.taste

    def found(self: _Kitchen, shares: dict[str, float]) -> object:
        return replace(taste(self, shares), merit=(accuracy["".join(sorted(shares))], -1.0))

    monkeypatch.setattr(_Kitchen, "taste", found)
    soup = make_soup(runs, device="cpu")
    assert [part["run"] for part in json.loads((soup / "summary.json").read_text())["soup"]] == left
    is_said = f"Only one ingredient is left, {left[0]}: no average was better on validation." in capsys.readouterr().out
    assert is_said == (len(left) == 1)
    first, kept = (load_checkpoint(folder)["state_dict"] for folder in (runs["abc".index(left[0])], soup))
    assert (len(left) == 1) == all(torch.equal(value, kept[name]) for name, value in first.items())


def test_a_soup_of_runs_that_weighted_classes_differently_has_no_prior(runs, pictures, tmp_path, monkeypatch):
    other = make_run(tmp_path / "runs" / "d", pictures, settings={"class_weights": "sqrt"})
    for name in ("summary.json", "metrics.jsonl"):
        shutil.copy(runs[0] / name, other / name)
    taste = _Kitchen.taste
    monkeypatch.setattr(_Kitchen, "taste", lambda self, shares: replace(taste(self, shares), merit=(len(shares), -1.0)))
    soup = make_soup([runs[0], other], device="cpu")
    with pytest.raises(UserError, match="with class_weights none and sqrt and sampling"):
        prior_of_run(soup, load_checkpoint(soup))
    alone = make_soup([runs[0], runs[2]], device="cpu", name="alike")
    assert prior_of_run(alone, load_checkpoint(alone)).sum() == pytest.approx(1)


def kitchen_of(runs: list[Path]) -> _Kitchen:
    return _Kitchen([read_ingredient(run) for run in runs], None, None, 20, "cpu")


@pytest.mark.parametrize("better", ["averaged", "renewed"])
def test_statistics_are_averaged_or_taken_anew_as_validation_likes_it(runs, capsys, monkeypatch, better):
    """As with a head that learnt on the frozen network's statistics, and one where everything learnt."""
    prepare, merits = _Kitchen.prepare, {"averaged": 0.5, "renewed": 0.5, better: 0.9}

    def found(self: _Kitchen, shares: dict[str, float], *, renewed: bool) -> object:
        way = prepare(self, shares, renewed=renewed)
        mixed = len(way.shares) > 1
        return replace(
            way, merit=(merits["renewed" if renewed else "averaged"] if mixed else 0.1, -way.metrics["val_loss"])
        )

    monkeypatch.setattr(_Kitchen, "prepare", found)
    soup = make_soup(runs[:2], device="cpu")
    assert ("statistics measured anew" in capsys.readouterr().out) == (better == "renewed")
    kept, states = load_checkpoint(soup)["state_dict"], [load_checkpoint(run)["state_dict"] for run in runs[:2]]
    for name in (name for name in kept if "running_" in name):
        mean = sum(state[name] for state in states) / 2
        assert torch.allclose(kept[name], mean, atol=1e-6) == (better == "averaged"), name
    summary = json.loads((soup / "summary.json").read_text())
    assert evaluate_run(soup, "val", device="cpu", quiet=True)["loss"] == pytest.approx(
        summary["best_val_loss"], rel=1e-4
    )


def test_statistics_of_batch_normalisation_are_those_of_the_averaged_weights(runs):
    kitchen = kitchen_of(runs[:2])
    kitchen.prepare({"a": 0.25, "b": 0.75}, renewed=True)
    model, states = kitchen.classifier.model, kitchen.states
    mixed = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    for name, value in mixed.items():
        mean = 0.25 * states["a"][name] + 0.75 * states["b"][name]
        assert torch.allclose(value, mean) != ("running_var" in name) or "running_mean" in name, name
    inputs: list[torch.Tensor] = []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    first.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    kitchen.of_training()
    assert torch.allclose(first.running_mean, torch.cat(inputs).mean((0, 2, 3)), atol=1e-4)
    kitchen.taste({"a": 1.0})
    assert torch.equal(first.running_mean, next(v for name, v in states["a"].items() if "running_mean" in name))


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"num_filters": 4}, {}, "a and d cannot be averaged: they have different networks"),
        ({"split_seed": 1}, {}, r"different validation images \(split_seed 0 and split_seed 1\)"),
        (
            {"settings": {"val_fraction": 0.3}},
            {},
            r"different validation images \(val_fraction 0.2 and val_fraction 0.3\)",
        ),
        (
            {},
            {"initialization": "noise"},
            r"different starting weights \(initialization None and initialization noise\)",
        ),
        ({}, {"teacher": "runs/other"}, r"different teachers \(none and one\)"),
        ({"seed": 1}, {}, r"different starting weights \(seed 0 and seed 1\)"),
        ({"cache_size": 40}, {}, "different preprocessing"),
        ({}, {"weights": "other.pth"}, r"different starting weights \(seed 0 and other.pth\)"),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name(runs, pictures, tmp_path, changes, config, message):
    other = make_run(tmp_path / "runs" / "d", pictures, **changes)
    edit_config(other, **config)
    with pytest.raises(UserError, match=message):
        make_soup([runs[0], other], device="cpu")
    assert not (tmp_path / "runs" / "soup").exists()


def test_weights_files_of_one_name_are_told_apart(runs, tmp_path):
    for run, words in zip(runs[:2], ("one", "other"), strict=True):
        (tmp_path / words).mkdir()
        (tmp_path / words / "best.pt").write_text(words)
        edit_config(run, weights=str(tmp_path / words / "best.pt"))
    with pytest.raises(UserError, match=r"different starting weights \(best.pt of hash \w+ and best.pt of hash"):
        make_soup(runs[:2], device="cpu")
    shutil.copy(tmp_path / "one" / "best.pt", tmp_path / "other" / "best.pt")
    make_soup(runs[:2], device="cpu")


def test_other_images_and_classes_are_refused(runs, photographs, tmp_path):
    other = make_run(tmp_path / "runs" / "d", photographs)
    with pytest.raises(UserError, match="different networks.*num_classes 10.*num_classes 4"):
        make_soup([runs[0], other], device="cpu")


@pytest.mark.parametrize(
    ("chosen", "interpolate", "message"),
    [([0], False, "at least two"), ([0, 1, 2], True, "needs two runs"), ([0, 0], False, "a is given twice")],
)
def test_too_few_or_too_many_runs_are_refused(runs, chosen, interpolate, message):
    with pytest.raises(UserError, match=message):
        make_soup([runs[i] for i in chosen], interpolate=interpolate, device="cpu")
