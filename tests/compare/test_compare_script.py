"""``partB/compare.py`` trains what it is asked to, seed after seed, and hands the runs to the comparison."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_compare import write_run

from naturalist.errors import UserError


@pytest.fixture
def script(monkeypatch):
    """The script with training replaced by folders of finished runs, and its list of what was to be trained."""
    spec = importlib.util.spec_from_file_location("compare_script", REPOSITORY / "partB" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.trained = []

    def train(command: list[str], name: str, runs_dir: Path, settings: list[str]) -> Path:
        module.trained.append((name, [*command, *settings]))
        given = dict(part.removeprefix("--").split("=", 1) for part in (*command, *settings) if "=" in part)
        config = {key: given[key] for key in ("backbone", "strategy", "weights") if key in given}
        seconds = 30 if given.get("strategy") == "head" else 60
        return write_run(runs_dir / name, test=0.5, seed=int(given.get("seed", 0)), seconds=seconds, **config)

    monkeypatch.setattr(module, "_train", train)
    monkeypatch.setattr("naturalist.evaluation.evaluate.evaluate_run", lambda folder, quiet: None)
    return module


def run(script, monkeypatch, output: Path, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", "--out", str(output), *arguments])
    script.main()


def test_every_strategy_is_trained_seed_after_seed_with_the_settings_passed_on(script, monkeypatch, tmp_path):
    arguments = ["--backbone", "resnet18", "vgg11", "--weights", "DEFAULT", "none", "--strategies", "head", "scratch"]
    run(script, monkeypatch, tmp_path / "out", *arguments, "--seeds", "2", "--epochs", "3", "--data", "plants")
    names = ["resnet18_head", "vgg11_head", "scratch"]
    assert [name for name, _ in script.trained] == [f"{name}_seed-{seed}" for seed in (0, 1) for name in names]
    _, command = script.trained[1]
    assert command[:4] == ["partB/finetune.py", "--backbone=vgg11", "--weights=none", "--strategy=head"]
    assert command[4:] == ["--data=plants", "--epochs=3", "--seed=0"]
    assert script.trained[-1][1] == ["partA/train.py", "--data=plants", "--epochs=3", "--seed=1"]
    assert "vgg11, head | 2 |" in (tmp_path / "out" / "comparison.md").read_text()


def test_equal_time_is_shared_out_by_pilots_in_which_gradual_runs_as_full(script, monkeypatch, tmp_path):
    run(script, monkeypatch, tmp_path, "--strategies", "head", "gradual", "--seeds", "1", "--minutes", "5")
    pilots, trained = script.trained[:2], script.trained[2:]
    assert "--strategy=full" in pilots[1][1] and "--strategy=gradual" in trained[1][1]
    assert [command[-2] for _, command in trained] == ["--epochs=10", "--epochs=5"]
    assert json.loads((tmp_path / "pilots" / "resnet50_head" / "summary.json").read_text())["status"] == "finished"


def test_what_cannot_be_trained_is_refused_before_anything_starts(script, monkeypatch, tmp_path):
    for arguments, message in (
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--weights", "DEFAULT", "none"], "one --weights for all backbones"),
    ):
        with pytest.raises(UserError, match=message):
            run(script, monkeypatch, tmp_path, *arguments)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="holds runs already"):
        run(script, monkeypatch, tmp_path)
    assert script.trained == []
