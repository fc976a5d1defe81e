"""Several machines share a sweep through a real PostgreSQL, which this test starts where it is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_sweep import GRID, Place

SERVER_USER = "postgres" if os.geteuid() == 0 else None
"""PostgreSQL refuses to run as root; Debian's package brings this user."""


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl; Debian keeps it off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("pg_ctl")
    return folders[-1] if folders else Path(on_path).parent if on_path else None


@pytest.fixture
def database() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="the PostgreSQL driver psycopg is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if SERVER_USER:
        shutil.chown(folder, SERVER_USER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def control(program: str, *arguments: str) -> None:
        subprocess.run([binaries / program, *arguments], user=SERVER_USER, cwd=folder, check=True, timeout=120,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    control("initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    try:
        control("pg_ctl", "-D", data, "-w", "-t", "90", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        control("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_two_machines_share_a_sweep_in_postgresql_without_loss_or_repeats(tmp_path, database):
    machines = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        machines.append(Place(tmp_path / name))
        machines[-1].write({"pause": {"value": 0.5}})
    processes = [machine.start("--storage", database) for machine in machines]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = machines[0].trials(database.replace("postgresql:", "postgresql+psycopg:"))
    assert len(trials) == len(GRID) and all(trial.state.name == "COMPLETE" for trial in trials)
    runs = [sorted(path.name for path in machine.folder.glob("sweeps/sweep/runs/*")) for machine in machines]
    assert runs[0] and runs[1] and len(runs[0]) + len(runs[1]) == len(GRID)
    settings = sorted((float(name.split("-")[0]), int(name.split("-")[1])) for names in runs for name in names)
    assert settings == GRID
