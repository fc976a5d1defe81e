"""Files are whole or not there, and tables are no formulas."""

import errno
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from naturalist import files
from naturalist.files import appearing_whole, append_line, write_atomically, write_table, written_whole
from naturalist.reading import read_csv


@contextmanager
def small_disk(size: int):
    """A file may have so many bytes, as on a disk that is full then."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def by_torch(path: Path) -> None:
    with written_whole(path) as file:
        torch.save({"a": torch.zeros(10_000)}, file)


def by_path(path: Path) -> None:
    with appearing_whole(path) as unfinished:
        unfinished.write_bytes(b"new" * 10_000)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomically(path, "new" * 10_000),
        lambda path: write_table(path, [["new"]] * 10_000),
        lambda path: append_line(path, "new" * 10_000),
        by_torch,
        by_path,
    ],
    ids=["text", "table", "line", "torch", "path"],
)
def test_a_full_disk_leaves_the_earlier_file_whole_and_nothing_else(tmp_path, write):
    path = tmp_path / "a"
    path.write_text("old")
    with small_disk(1000), pytest.raises(OSError) as raised:
        write(path)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}


def test_an_error_of_the_writer_leaves_the_earlier_file_and_stays_what_it_is(tmp_path):
    write_atomically(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}


NAMES = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "'=x", "''-", "'x", "-1", "a,b", 'a"b', "a\nb", "\udcff", "＝x", ""]


def test_cells_that_a_spreadsheet_would_run_are_made_harmless_and_read_back_right(tmp_path):
    write_table(tmp_path / "a.csv", [["name", "number"], *([name, -0.5] for name in NAMES)])
    heading, rows = read_csv(tmp_path / "a.csv", "")
    assert (heading, rows) == (["name", "number"], [[name, "-0.5"] for name in NAMES])
    lines = (tmp_path / "a.csv").read_bytes().splitlines()
    assert b"'=1+1,-0.5" in lines and b"'@x,-0.5" in lines and b"-1,-0.5" in lines and b"'x,-0.5" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(("refusals", "is_written"), [(0, True), (3, True), (99, False)])
def test_a_file_that_somebody_reads_is_tried_again_on_windows(tmp_path, monkeypatch, refusals, is_written):
    path, left, pauses = tmp_path / "best.pt", [refusals], []
    path.write_text("old", encoding="utf-8")
    really = Path.replace

    def replace(self, target):
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(errno.EACCES, "used by another process", str(self))
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    if is_written:
        write_atomically(path, "new")
    else:
        with pytest.raises(PermissionError) as refused:
            write_atomically(path, "new")
        assert refused.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == ("new" if is_written else "old")
    assert list(tmp_path.iterdir()) == [path]
    assert len(pauses) == min(refusals, len(files.PAUSES)) and sum(files.PAUSES) < 2
