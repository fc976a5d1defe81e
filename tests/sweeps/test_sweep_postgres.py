"""Several machines share a sweep through a real PostgreSQL, which this test starts where it is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TIMEOUT
from test_sweep import GRID, Place, wait_until

SERVER_USER = "postgres" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root; Debian's package brings this user."""


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl; Debian keeps it off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("pg_ctl")
    return folders[-1] if folders else Path(on_path).parent if on_path else None


class Server:
    """A PostgreSQL server of its own folder and port."""

    def __init__(self, binaries: Path):
        self._binaries, self.folder = binaries, Path(tempfile.mkdtemp(prefix="pg"))
        if SERVER_USER:
            shutil.chown(self.folder, SERVER_USER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"postgresql://tester@127.0.0.1:{port}/postgres"
        self._options = f"-c listen_addresses=127.0.0.1 -p {port} -k {self.folder} -c fsync=off"
        self._run("initdb", "-U", "tester", "--auth=trust", "--no-sync")

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-t", "90", "-l", str(self.folder / "log"), "-o", self._options, "start")

    def stop(self, check: bool = True) -> None:
        self._run("pg_ctl", "-m", "immediate", "stop", check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            [self._binaries / program, "-D", str(self.folder / "data"), *arguments],
            user=SERVER_USER,
            cwd=self.folder,
            check=check,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="the PostgreSQL driver psycopg is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Server(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop(check=False)
        shutil.rmtree(server.folder)


def test_two_machines_share_a_sweep_in_postgresql_without_loss_or_repeats(tmp_path, server):
    machines = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        machines.append(Place(tmp_path / name))
        machines[-1].write({"pause": {"value": 0.5}})
    processes = [machine.start("--storage", server.url) for machine in machines]
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = machines[0].trials(server.url.replace("postgresql:", "postgresql+psycopg:"))
    assert len(trials) == len(GRID) and all(trial.state.name == "COMPLETE" for trial in trials)
    runs = [sorted(path.name for path in machine.folder.glob("sweeps/sweep/runs/*")) for machine in machines]
    assert runs[0] and runs[1] and len(runs[0]) + len(runs[1]) == len(GRID)
    settings = sorted((float(name.split("-")[0]), int(name.split("-")[1])) for names in runs for name in names)
    assert settings == GRID


def test_when_the_database_goes_away_one_sentence_says_so_and_the_same_command_goes_on(tmp_path, server):
    place = Place(tmp_path)
    place.write({"pause": {"value": 0.5}})
    process = place.start("--storage", server.url)
    wait_until(lambda: list(tmp_path.glob("sweeps/sweep/runs/*/metrics.jsonl")))
    server.stop()
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2 and "Traceback" not in output
    assert "error: the database stopped answering (" in output and "the same command goes on" in output
    server.start()
    place.run("--storage", server.url)
    trials = place.trials(server.url.replace("postgresql:", "postgresql+psycopg:"))
    assert sum(trial.state.name == "COMPLETE" for trial in trials) == len(GRID)
