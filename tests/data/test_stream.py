"""Streaming promises the rows that were asked for, in their order, and a thread that ends with whoever takes them."""

import errno
import gc
import os
import threading

import numpy as np
import pytest
import torch

from naturalist.data import placing, stream
from naturalist.data.placing import choose_place
from naturalist.data.stream import RowFile, streamed
from naturalist.errors import UserError, explain_error

CPU = torch.device("cpu")
ROWS, ROW_BYTES = 40, 12


@pytest.fixture
def content() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, ROW_BYTES), dtype=np.uint8)


@pytest.fixture
def path(tmp_path, content):
    path = tmp_path / "rows.bin"
    path.write_bytes(content.tobytes())
    return path


@pytest.fixture
def rows(path, content):
    with path.open("rb") as file:
        return RowFile(content, file)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream")]


@pytest.mark.parametrize("is_open", [True, False], ids=["file", "map"])
@pytest.mark.parametrize("announced", [1, 3 * ROW_BYTES, 10**9])
@pytest.mark.parametrize("sizes", [[], [1], [40], [5, 5, 5], [3, 1, 20, 2], [1] * 40])
def test_batches_are_the_rows_of_those_numbers_in_order(monkeypatch, rows, content, sizes, announced, is_open):
    monkeypatch.setattr(stream, "ANNOUNCED_BYTES", announced)
    numbers = np.random.default_rng(1).permutation(ROWS)
    batches = np.split(numbers, np.cumsum(sizes))[: len(sizes)]
    found = list(streamed(rows if is_open else RowFile(content), batches, CPU))
    assert [batch.tolist() for batch in found] == [content[batch].tolist() for batch in batches]
    assert threads() == []


@pytest.mark.parametrize("numbers", [[], [3], [0, 1, 2, 3], [5, 4, 3], [7, 8, 9, 2, 3, 0], [1, 1, 2, 2], [38, 39]])
def test_rows_that_follow_each_other_are_read_at_once(monkeypatch, rows, content, numbers):
    pieces, read = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: pieces.append(arguments) or read(*arguments))
    out = np.empty((len(numbers), ROW_BYTES), np.uint8)
    rows.read(np.array(numbers, np.int64), out)
    assert np.array_equal(out, content[numbers])
    assert len(pieces) == sum(i == 0 or numbers[i] != numbers[i - 1] + 1 for i in range(len(numbers)))


def test_a_system_that_reads_less_than_asked_is_asked_again(monkeypatch, rows, content):
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, place: read(file, [buffers[0][:5]], place))
    (batch,) = streamed(rows, [np.arange(ROWS)], CPU)
    assert np.array_equal(batch.numpy(), content)


def test_every_row_is_announced_once_and_before_it_is_read(monkeypatch, rows):
    events = []
    monkeypatch.setattr(stream, "ANNOUNCED_BYTES", 8 * ROW_BYTES)
    monkeypatch.setattr(RowFile, "announce", lambda self, which: events.append(("to come", *which)))
    monkeypatch.setattr(RowFile, "read", lambda self, which, out: events.append(("read", *which)))
    batches = np.arange(ROWS).reshape(10, 4)
    assert len(list(streamed(rows, batches, CPU))) == 10
    told, taken = ([event[1:] for event in events if event[0] == kind] for kind in ("to come", "read"))
    assert told == taken == [tuple(batch) for batch in batches]
    for number, batch in enumerate(taken):
        before = [event for event in events[: events.index(("read", *batch))] if event[0] == "to come"]
        assert len(before) == min(10, number + 3)  # itself, and 8 rows more


def test_who_has_a_file_open_reads_on_when_it_is_replaced(rows, path, content):
    path.unlink()
    path.write_bytes(bytes(ROWS * ROW_BYTES))
    (batch,) = streamed(rows, [np.arange(ROWS)], CPU)
    assert np.array_equal(batch.numpy(), content)


def fail(number: int):
    def preadv(*arguments):
        raise OSError(number, os.strerror(number))

    return preadv


def test_an_error_of_the_disk_is_raised_in_the_foreground_and_names_the_file(monkeypatch, rows, path):
    monkeypatch.setattr(os, "preadv", fail(errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error") as caught:
        list(streamed(rows, np.arange(ROWS).reshape(10, 4), CPU))
    assert explain_error(caught.value) == (
        f"cannot use {str(path)!r}: Input/output error; the disk or the network failed; try again, or use another disk."
    )
    del caught
    gc.collect()
    assert threads() == []


def test_a_file_that_has_become_shorter_is_one_sentence(rows, path):
    os.truncate(path, 10 * ROW_BYTES + 1)
    batches = streamed(rows, np.arange(ROWS).reshape(10, 4), CPU)
    assert [len(next(batches)) for _ in range(2)] == [4, 4]
    with pytest.raises(UserError, match=r"rows.bin' has become shorter since it was opened; give the same command"):
        next(batches)
    assert threads() == []


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, ValueError])
def test_no_thread_is_left_when_whoever_takes_the_batches_stops(rows, ending):
    def take() -> None:
        for batch in streamed(rows, np.arange(ROWS).reshape(10, 4), CPU):
            assert len(threads()) == 1
            if batch[0, 0] >= 0:
                break
        if ending is not None:
            raise ending

    try:
        take()
    except (KeyboardInterrupt, ValueError) as error:
        assert type(error) is ending
    assert threads() == []


@pytest.mark.parametrize(
    ("kind", "wanted", "needed", "place"),
    [
        ("cpu", "auto", 50, "map"),
        ("cpu", "auto", 51, "file"),
        ("cpu", "stream", 1, "file"),
        ("cpu", "resident", 1000, "map"),
        ("mps", "auto", 50, "map"),
        ("mps", "auto", 51, "file"),
        ("cuda", "auto", 20, "device"),
        ("cuda", "auto", 21, "file"),
        ("cuda", "stream", 1, "file"),
        ("cuda", "resident", 40, "device"),
    ],
)
def test_more_than_half_of_the_memory_is_streamed_unless_told(monkeypatch, capsys, kind, wanted, needed, place):
    monkeypatch.setattr(placing, "machine_memory", lambda: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40, 80))
    assert choose_place(wanted, needed, torch.device(kind)) == place
    said = capsys.readouterr().out
    assert ("streamed from the disk (--device_memory)" in said) == (wanted == "auto" and place == "file")


def test_where_the_system_does_not_tell_its_memory_the_map_is_used(monkeypatch):
    monkeypatch.setattr(placing, "machine_memory", lambda: None)
    assert choose_place("auto", 10**15, CPU) == "map"


def test_resident_images_without_room_on_the_gpu_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * 10**9, 80 * 10**9))
    with pytest.raises(UserError, match=r"cuda has 40.0 GB free and the images need 50.0 GB; use --device_memory s"):
        choose_place("resident", 50 * 10**9, torch.device("cuda"))
