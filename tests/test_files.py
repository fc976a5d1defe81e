"""Files are whole or not there, and tables are no formulas."""

import errno
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from naturalist.files import appearing_whole, append_line, read_table, write_atomically, write_table, written_whole


@contextmanager
def small_disk(size: int):
    """A file may have so many bytes, as on a disk that is full then."""
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
    heading, *rows = read_table(tmp_path / "a.csv")
    assert (heading, rows) == (["name", "number"], [[name, "-0.5"] for name in NAMES])
    lines = (tmp_path / "a.csv").read_bytes().splitlines()
    assert b"'=1+1,-0.5" in lines and b"'@x,-0.5" in lines and b"-1,-0.5" in lines and b"'x,-0.5" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
