"""The real ``wandb sweep`` and ``wandb agent`` run partA/train.py against a server on the loopback address."""

import json
from pathlib import Path

import pytest
import yaml
from conftest import run_python
from fake_wandb import FakeWandb
from warm import write_stand_in

from naturalist.data.sources.sample import make_sample

ROOT = Path(__file__).parents[2]
FAST_AGENT = "import wandb.wandb_agent as agent; agent.Agent.POLL_INTERVAL = 0.3; from wandb.cli.cli import cli; cli()"

SWEEP = {
    "program": "partA/train.py",
    "method": "grid",
    "project": "demo",
    "metric": {"name": "val_accuracy", "goal": "maximize"},
    "parameters": {
        "activation": {"values": ["ReLU", "SiLU", "GELU"]},
        "batch_norm": {"value": False},
        "epochs": {"value": 3},
        "learning_rate": {"value": 1.0e-3},
        "image_size": {"value": 32},
        "num_filters": {"value": 2},
        "filter_organization": {"value": "same"},
        "dense_units": {"value": 4},
        "data": {"value": "photographs"},
        "validation_pictures": {"value": False},
    },
}
ENDLESS = 1_000_000
"""Epochs of a run that only a stop can end: small ones take a few hundredths of a second."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return make_sample(tmp_path_factory.mktemp("data") / "photographs", train_images=60, test_images=20)


def test_an_agent_runs_three_and_the_stopped_one_saves_and_ends_well(tmp_path, photographs):
    runs, folders = run_sweep(tmp_path, photographs, ["ReLU", "SiLU", "GELU"], stopped=1, stop_via="agent")
    assert [run["displayName"].split("_")[:4] for run in runs] == [
        [f"ep-{epochs}", "nf-2", "fo-same", f"ac-{activation}"]
        for epochs, activation in ((1, "ReLU"), (ENDLESS, "SiLU"), (1, "GELU"))
    ]
    assert [read_status(folder) for folder in folders] == ["finished", "stopped", "finished"]
    for run, folder in zip(runs, folders, strict=True):
        history = [row for row in run["history"] if "val_accuracy" in row]
        recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in history] == [row["epoch"] for row in recorded]
        assert run["summary"]["best_val_accuracy"] == max(row["val_accuracy"] for row in history)
        assert run["config"]["batch_norm"]["value"] is False


def test_a_run_that_the_server_stops_through_its_stream_saves_and_ends_well(tmp_path, photographs):
    _, (folder,) = run_sweep(tmp_path, photographs, ["ReLU"], stopped=0, stop_via="filestream")
    assert read_status(folder) == "stopped"


def test_the_second_search_runs_under_an_agent_and_here(tmp_path, photographs):
    """partB/sweep.yaml, with a small backbone of random weights and small images."""
    sweep = yaml.safe_load((ROOT / "partB" / "sweep.yaml").read_text())
    small = {"backbone": "squeezenet1_1", "weights": "none", "image_size": 32, "data": str(photographs), "epochs": 2}
    sweep["parameters"] |= {name: {"value": value} for name, value in small.items()}
    (tmp_path / "partB").symlink_to(ROOT / "partB")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**sweep, "project": "demo"}))

    def suggest(sweep: dict, runs: list[dict]) -> dict | None:
        if runs:
            return None
        return {
            name: spec.get("value", spec.get("values", [None])[0])
            for name, spec in sweep["config"]["parameters"].items()
        }

    with FakeWandb(suggest=suggest) as server:
        run_wandb(server, tmp_path, "sweep", "sweep.yaml")
        (sweep_id,) = server.sweeps
        output = run_wandb(server, tmp_path, "agent", f"local/demo/{sweep_id}")
        (run,) = server.runs.values()
    assert (run["exitcode"], run["state"]) == (0, "finished"), output
    assert "val_accuracy" in run["summary"]

    done = run_python("-m", "naturalist", "sweep", "sweep.yaml", "--count", "1", "--name", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 trial finished, 0 pruned, 0 failed" in done.stdout


def run_sweep(
    folder: Path, photographs: Path, activations: list[str], stopped: int, stop_via: str
) -> tuple[list[dict], list[Path]]:
    """Run one epoch with each activation; the run number ``stopped`` would never end, but is stopped.

    Returns what the server knows of the runs, and their folders; all have ended with code 0 and left checkpoints.
    """

    def suggest(sweep: dict, runs: list[dict]) -> dict | None:
        if len(runs) == len(activations):
            return None
        constants = {name: spec["value"] for name, spec in SWEEP["parameters"].items() if "value" in spec}
        return {**constants, "activation": activations[len(runs)], "epochs": ENDLESS if len(runs) == stopped else 1}

    def stop(sweep: dict, runs: list[dict]) -> list[str]:
        return [
            run["name"]
            for run in runs[stopped : stopped + 1]
            if run["state"] == "running" and any("val_accuracy" in row for row in run["history"])
        ]

    (folder / "partA").symlink_to(ROOT / "partA")
    (folder / "photographs").symlink_to(photographs)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    with FakeWandb(suggest=suggest, stopper=stop, stop_via=stop_via) as server:
        run_wandb(server, folder, "sweep", "sweep.yaml")
        (sweep_id,) = server.sweeps
        output = run_wandb(server, folder, "agent", f"local/demo/{sweep_id}")
        runs = list(server.runs.values())
        assert not server.unknown and not server.errors
    assert [(run["exitcode"], run["state"]) for run in runs] == [(0, "finished")] * len(activations), output
    folders = [folder / "runs" / run["displayName"] for run in runs]
    assert all((folder / name).is_file() for folder in folders for name in ("best.pt", "last.pt"))
    return runs, folders


def read_status(folder: Path) -> str:
    return json.loads((folder / "summary.json").read_text())["status"]


def run_wandb(server: FakeWandb, folder: Path, *arguments: str) -> str:
    """Run the command ``wandb``; what it starts as ``python`` is :mod:`warm`."""
    if not (folder / "bin").exists():
        write_stand_in(folder / "bin")
    env = server.env(folder)
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    result = run_python("-c", FAST_AGENT, *arguments, cwd=folder, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
