"""Everything in one command: each stage once, what is missing named, and the rest done."""

import json

import pytest
from conftest import REPOSITORY, run_python

from naturalist import reproduce
from naturalist.errors import UserError
from naturalist.reproduce import Plan, list_stages
from naturalist.settings.reproduce import ReproduceOptions


def test_all_of_it_is_done_once_and_what_part_b_lacks_is_named(photographs, tmp_path, monkeypatch, capsys):
    """At the smallest size; first without the weights, then with none."""
    ran = []

    def run(command: list[str]) -> int:
        ran.append(command)
        finished = run_python(*command, cwd=REPOSITORY)
        print(finished.stdout[-2000:], finished.stderr[-2000:])
        return finished.returncode

    monkeypatch.setattr(reproduce, "run_command", run)
    monkeypatch.chdir(REPOSITORY)
    small: dict[str, object] = {
        "count": 1,
        "epochs": 1,
        "finetune_epochs": 1,
        "finetune_image_size": 32,
        "strategies": ["head"],
    }
    options = {"data": str(photographs), "quick": True, "out": tmp_path, "device": "cpu", **small}
    assert reproduce.reproduce(ReproduceOptions(**options, weights=str(tmp_path / "lost.pth"))) == 1
    said = capsys.readouterr().out
    assert "lost.pth" in said and "Missing: fine-tune: head, and the other strategies with it" in said
    assert "no run of Part B" in (tmp_path / "report.html").read_text().replace("No run", "no run")
    first = len(ran)
    assert reproduce.reproduce(ReproduceOptions(**options, weights="none")) == 0
    names = [" ".join(command) for command in ran[first:]]
    assert ["--strategy=head" in names[0], " compare " in names[2], " report " in names[3]] == [True] * 3
    assert len(names) == 4
    done = json.loads((tmp_path / "stages.json").read_text())
    assert list(done)[:5] == ["audit", "sweep", "train the best", "test the best", "explain the best"]
    assert "resnet" not in (tmp_path / "report.html").read_text()
    assert "McNemar" in (tmp_path / "report.html").read_text()


def test_other_settings_of_the_best_are_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    plan = Plan.of(ReproduceOptions(out=tmp_path))
    best = tmp_path / "sweeps" / "search" / "report" / "best.yaml"
    best.parent.mkdir(parents=True)
    commands = []
    for rate in (1, 2):
        best.write_text(f"learning_rate: {rate}\n")
        commands.append([stage.shown for stage in list_stages(plan) if "the best" in stage.name])
    assert len(commands[0]) == 3 and not set(commands[0]) & set(commands[1])


def test_a_stage_that_fails_ends_it_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(reproduce, "run_command", lambda command: 2)
    with pytest.raises(UserError, match=r"the stage 'audit' ended with exit code 2; its message is above\. The same"):
        reproduce.reproduce(ReproduceOptions(out=tmp_path / "out"))
    assert "audit: about " in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="from the repository's root"):
        reproduce.reproduce(ReproduceOptions())
