"""What a run leaves behind, in its folder and at W&B."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from conftest import TIMEOUT, run_python, start_python
from fake_wandb import API_KEY, FakeWandb
from wandb.proto.wandb_internal_pb2 import Record

from naturalist.errors import UserError
from naturalist.runs.folder import create_run_folder, read_metrics
from naturalist.runs.weights_and_biases import explain_refusal, start_wandb
from naturalist.sweeps.read_runs import _wandb_records

TRAINING = """
import json, os, socket, sys, time
from pathlib import Path

socket.gethostname = lambda: "secret-host"

import torch  # as every training does, so that its import does not count below
from PIL import Image
from naturalist.entry import entry_point
from naturalist.runs.tracking import Tracker
from naturalist.runs.folder import read_metrics

if "disabled" not in (sys.argv[1], os.environ.get("WANDB_MODE")):
    import wandb  # nor its own

folder, mode, first, last = Path("runs/demo"), sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
history = read_metrics(folder)[:first - 1] if first > 1 else None
config = {"learning_rate": 1e-4, "data": str(Path.home() / "photographs"), "batch_norm": True}
start = time.monotonic()
with entry_point():
    tracker = Tracker(folder, config, mode, project="demo", name="demo", job_type="train", history=history)
started = time.monotonic()
tracker.set_summary({"parameters": 1234})
for epoch in range(first, last + 1):
    tracker.log({"epoch": epoch, "train_loss": float("nan"), "val_accuracy": epoch / 10,
                 "best_val_accuracy": epoch / 10})
if len(sys.argv) > 4:
    time.sleep(float(sys.argv[4]))
    os._exit(1)
Image.new("RGB", (8, 8)).save(folder / "curves.png")
tracker.log_image("curves", folder / "curves.png")
tracker.finish({"status": "finished", "best_val_accuracy": last / 10})
print("wandb imported:", "wandb" in sys.modules)
print("seconds to start:", started - start)
"""


class Training:
    """Runs a pretended training in ``folder``; it sees no login and no W&B server unless told."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run_folder = folder / "runs" / "demo"
        self.home = folder / "home" / "secret-user"
        self.home.mkdir(parents=True)
        (folder / "train.py").write_text(TRAINING)
        with FakeWandb() as server:
            self.env = {
                name: value
                for name, value in server.env(self.home).items()
                if name not in ("WANDB_API_KEY", "WANDB_BASE_URL")
            }
        self.env |= {"USER": "secret-user", "LOGNAME": "secret-user"}

    def start(
        self, mode: str, first: int = 1, last: int = 3, dies_after: float | None = None, **env: str
    ) -> subprocess.Popen:
        """Train the epochs ``first`` to ``last``; ``dies_after`` so many seconds the process is gone unfinished."""
        command = [self.folder / "train.py", mode, first, last, *([] if dies_after is None else [dies_after])]
        return start_python(*command, cwd=self.folder, env={**self.env, **env})

    def run(self, *args, **kwargs) -> str:
        process = self.start(*args, **kwargs)
        output, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == ("dies_after" in kwargs), output
        return output

    def run_command(self, command: str, **env: str) -> None:
        program, *arguments = shlex.split(command)
        script = Path(sys.executable).with_name(program)
        done = run_python(script, *arguments, cwd=self.folder, env={**self.env, **env})
        assert done.returncode == 0, done.stdout + done.stderr

    def recorded_epochs(self) -> list[int]:
        return [metrics["epoch"] for metrics in read_metrics(self.run_folder)]


@pytest.fixture
def training(tmp_path) -> Training:
    return Training(tmp_path)


@pytest.fixture
def server():
    with FakeWandb() as server:
        yield server
        assert not server.unknown
        assert not server.errors


def login(server: FakeWandb) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY}


def uploaded_epochs(server: FakeWandb) -> list[int]:
    (run,) = server.runs.values()
    return [row["epoch"] for row in run["history"] if "val_accuracy" in row]


def sync_command(output: str) -> str:
    return output.splitlines()[0].split("; upload it with: ")[1]


@pytest.fixture(scope="module", autouse=True)
def without_server(tmp_path_factory) -> dict[str, subprocess.Popen]:
    """Two runs whose server refuses connections; they wait for their timeouts while other tests run."""
    env = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": API_KEY}
    return {
        "alone": Training(tmp_path_factory.mktemp("alone")).start("auto", **env),
        "in a sweep": Training(tmp_path_factory.mktemp("sweep")).start("auto", WANDB_SWEEP_ID="1", **env),
    }


def test_online_every_epoch_arrives_once_with_the_summary_and_the_picture(training, server):
    output = training.run("auto", **login(server))
    (run,) = server.runs.values()
    assert uploaded_epochs(server) == training.recorded_epochs() == [1, 2, 3]
    assert run["summary"]["best_val_accuracy"] == 0.3
    assert run["summary"]["parameters"] == 1234
    assert (run["state"], run["project"], run["displayName"]) == ("finished", "demo", "demo")
    assert run["config"]["learning_rate"]["value"] == 1e-4
    picture = server.files[f"{run['name']}/{run['summary']['curves']['path']}"]
    assert picture == (training.run_folder / "curves.png").read_bytes()
    address = f"{server.url}/local/demo/runs/{run['name']}"
    assert output.splitlines()[:2] == [f"W&B: {address}", "wandb imported: True"]


def test_without_a_login_the_printed_command_uploads_the_offline_run(training, server):
    output = training.run("auto")
    assert output.startswith("W&B: nobody is logged in, so the run is recorded offline; upload it with: ")
    training.run_command(sync_command(output), **login(server))
    assert uploaded_epochs(server) == [1, 2, 3]


def test_resuming_online_without_a_login_is_a_user_error_that_leaves_the_run_as_it_was(training):
    training.run("offline")
    before = {path: path.read_bytes() for path in training.run_folder.rglob("*") if path.is_file()}
    process = training.start("online", first=3)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert output.startswith("error: Nobody is logged in to W&B: run `wandb login`")
    assert {path: path.read_bytes() for path in training.run_folder.rglob("*") if path.is_file()} == before


def test_a_malformed_key_is_a_user_error(training):
    process = training.start("auto", WANDB_API_KEY="short")
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert output.startswith("error: W&B refuses its settings: WANDB_API_KEY invalid")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("WANDB_MODE", "nowhere", "cannot take 'nowhere' for WANDB_MODE; it may be 'online', 'offline', "),
        ("WANDB_TAGS", ",", "cannot take ',' for WANDB_TAGS; change it, or unset it."),
        ("WANDB_INIT_TIMEOUT", "soon", "cannot take 'soon' for WANDB_INIT_TIMEOUT; change it, or unset it."),
        ("WANDB_BASE_URL", "here", "cannot take 'here' for WANDB_BASE_URL; change it, or unset it."),
    ],
)
def test_a_variable_that_wandb_does_not_take_is_named_in_our_words(monkeypatch, variable, value, sentence):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError) as error:
        wandb.Settings().update_from_env_vars({variable: value})
    assert explain_refusal(error.value).startswith(f"W&B {sentence}")


def test_folders_and_projects_that_wandb_would_not_use_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="WANDB_DIR names .*file', which cannot be written to"):
        start_wandb(tmp_path, "offline", "demo", "demo", "train", None, {})
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(UserError, match="WANDB_PROJECT must have at most 128 letters"):
        start_wandb(tmp_path, "offline", "demo", "demo", "train", None, {})


VARIABLES = {
    "WANDB_NAME": "my run",
    "WANDB_NOTES": "a note",
    "WANDB_TAGS": "a,b",
    "WANDB_RUN_GROUP": "my group",
    "WANDB_JOB_TYPE": "my job",
    "WANDB_ENTITY": "me",
    "WANDB_PROJECT": "mine",
    "WANDB_MODE": "offline",
    "WANDB_DIR": "~/records",
}


def test_the_variables_of_wandb_are_honoured_and_a_shared_folder_keeps_the_runs_of_others(training):
    output = training.run("auto", **VARIABLES)
    assert output.startswith(
        "W&B: recorded offline; upload it with: wandb sync home/secret-user/records/wandb/offline-run-"
    )
    folder = training.home / "records" / "wandb"
    (path,) = folder.glob("offline-run-*/*.wandb")
    (run,) = [record.run for record in map(Record.FromString, _wandb_records(path)) if record.HasField("run")][:1]
    assert (run.display_name, run.notes, list(run.tags)) == ("my run", "a note", ["a", "b"])
    assert (run.run_group, run.job_type, run.entity, run.project) == ("my group", "my job", "me", "mine")
    assert not (training.run_folder / "wandb").exists() and not (training.folder / "~").exists()

    (folder / "offline-run-20260101_000000-another1").mkdir()
    training.run("auto", first=3, **VARIABLES)
    ids = sorted(part.name.rpartition("-")[2] for part in folder.glob("offline-run-*"))
    assert ids == sorted(["another1", json.loads((training.run_folder / "wandb.json").read_text())["id"]])


def test_nothing_personal_is_recorded_or_uploaded(training, server):
    training.run("auto", **login(server))
    records = {path.name: path.read_text() for path in training.run_folder.glob("*.json")}
    assert set(records) == {"environment.json", "summary.json", "wandb.json"}
    records["runs"] = json.dumps(server.runs)
    records |= {name: content.decode(errors="replace") for name, content in server.files.items()}
    for path in (training.run_folder / "wandb").rglob("*.wandb"):
        records[path.name] = path.read_bytes().decode(errors="replace")
    for name, text in records.items():
        for secret in ("secret-user", "secret-host", str(training.folder), "socket.gethostname"):
            assert secret not in text, f"{secret} in {name}"
    config = yaml.safe_load((training.run_folder / "config.yaml").read_text())
    assert config["data"] == str(training.home / "photographs")  # the folder's owner needs the real one
    (run,) = server.runs.values()
    assert run["config"]["data"]["value"] == "~/photographs"


def test_disabled_records_locally_and_does_not_import_wandb(training):
    output = training.run("auto", WANDB_MODE="disabled")
    assert output.startswith("wandb imported: False\n")
    assert read_metrics(training.run_folder)[0] == {
        "epoch": 1,
        "train_loss": None,
        "val_accuracy": 0.1,
        "best_val_accuracy": 0.1,
    }
    summary = json.loads((training.run_folder / "summary.json").read_text())
    assert summary == {"parameters": 1234, "status": "finished", "best_val_accuracy": 0.3, "exit_code": 0}
    environment = json.loads((training.run_folder / "environment.json").read_text())
    assert environment["command"] == "python ./train.py auto 1 3"
    assert {"torch", "torchvision", "numpy", "python", "cpu", "gpu", "git", "started"} <= set(environment)


@pytest.mark.parametrize("dies_after", [0, 2])  # before and after its epochs have reached the server
def test_a_killed_run_goes_on_as_the_same_run_with_every_epoch_once(training, server, dies_after):
    training.run("auto", last=3, dies_after=dies_after, **login(server))
    training.run("auto", first=3, last=5, **login(server))
    assert training.recorded_epochs() == [1, 2, 3, 4, 5]
    assert uploaded_epochs(server) == [1, 2, 3, 4, 5]
    environment = json.loads((training.run_folder / "environment.json").read_text())
    assert environment["resumed_from"]["started"] <= environment["started"]


@pytest.mark.parametrize("uploads_between", [False, True])
def test_a_resumed_offline_run_uploads_every_epoch_once(training, server, uploads_between):
    command = sync_command(training.run("offline", last=2))
    if uploads_between:
        training.run_command(command, **login(server))
    command = sync_command(training.run("offline", first=3, last=4))
    training.run_command(command, **login(server))
    assert uploaded_epochs(server) == [1, 2, 3, 4]


def test_an_offline_run_resumed_online_sends_the_earlier_epochs_too(training, server):
    training.run("offline", last=2)
    training.run("online", first=3, last=4, **login(server))
    assert uploaded_epochs(server) == [1, 2, 3, 4]


def test_a_server_that_refuses_connections_means_offline_within_15_seconds(without_server):
    output, _ = without_server["alone"].communicate(timeout=TIMEOUT)
    assert re.search(r"W&B: the server does not answer .*offline; upload it with: wandb sync runs/demo/", output)
    assert float(re.search(r"seconds to start: (.*)", output)[1]) < 15
    assert without_server["alone"].returncode == 0


def test_a_sweep_whose_server_refuses_connections_ends_with_code_2(without_server):
    output, _ = without_server["in a sweep"].communicate(timeout=TIMEOUT)
    assert output.startswith("error: A sweep needs the W&B server")
    assert len(output.splitlines()) == 1
    assert without_server["in a sweep"].returncode == 2


MAKE_FOLDERS = """
from pathlib import Path
from naturalist.runs.folder import create_run_folder
for _ in range(50):
    print(create_run_folder(Path(), "same").name)
"""


def test_two_processes_never_share_a_run_folder(tmp_path):
    processes = [start_python("-c", MAKE_FOLDERS, cwd=tmp_path) for _ in range(2)]
    names = [name for process in processes for name in process.communicate(timeout=TIMEOUT)[0].split()]
    assert sorted(names) == sorted({"same", *(f"same-{number}" for number in range(2, 101))})


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("lr=1.0e-4 SiLU", "lr=1.0e-4-SiLU"),
        ("a/b\\c:d", "a-b-c-d"),
        ("../..", "run"),
        ("", "run"),
        ("é" * 300, "é" * 120),
        ("aux", "aux-"),
        ("Com1.x", "Com1-.x"),
        ("console. ", "console"),
        ("$a_1$ [red]{}%s <b>", "a_1-red-s-b"),
    ],
)
def test_names_are_made_safe_for_file_systems(tmp_path, name, folder):
    assert create_run_folder(tmp_path / "new" / "runs", name) == tmp_path / "new" / "runs" / folder


def test_names_that_differ_in_case_alone_are_two_folders_on_every_disk(tmp_path):
    names = [create_run_folder(tmp_path, name).name for name in ("Run", "run", "RUN", "straße", "STRASSE")]
    assert names == ["Run", "run-2", "RUN-3", "straße", "STRASSE-2"]


def test_a_runs_dir_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="Cannot make a run folder in .*--runs_dir"):
        create_run_folder(tmp_path / "runs", "demo")


def test_a_half_written_last_line_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert read_metrics(tmp_path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


def test_a_folder_without_metrics_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="Is .* the folder of a run"):
        read_metrics(tmp_path)
