"""Freed memory is kept where malloc can, and what the machine has is told as it is."""

import os

import pytest
from conftest import run_python

from naturalist.memory import give_memory_back, keep_freed_memory, machine_memory

GLIBC = hasattr(os, "confstr") and "CS_GNU_LIBC_VERSION" in os.confstr_names
COUNT_FAULTS = """
import resource
import torch
from naturalist.device import choose_device
from naturalist.memory import give_memory_back

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    torch.zeros(100, 2**18).add_(1)  # 100 MiB

choose_device("cpu")
for _ in range(10):
    step()
before = faults()
for _ in range(5):
    step()
kept = faults() - before
give_memory_back()
before = faults()
step()
print(kept, faults() - before)
"""


@pytest.mark.skipif(not GLIBC, reason="only glibc can be told")
def test_computing_on_the_cpu_takes_the_same_memory_again_until_it_is_given_back(tmp_path):
    kept, given_back = map(int, run_python("-c", COUNT_FAULTS, cwd=tmp_path, fresh=True).stdout.split())
    assert kept < 1000  # of 128,000 pages in five steps
    assert given_back > 10 * max(kept, 5)  # pages, or a few huge ones


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_MAX_", "65536"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_TOP_PAD_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
        ("LD_PRELOAD", "libtcmalloc_minimal.so.4:libgomp.so"),
    ],
)
def test_whoever_tuned_the_allocator_is_left_alone(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert keep_freed_memory() is False


def test_systems_without_glibc_are_left_alone(monkeypatch):
    monkeypatch.delattr(os, "confstr", raising=False)
    assert keep_freed_memory() is False
    give_memory_back()


@pytest.mark.parametrize(("limit", "memory"), [("2000000000\n", 2_000_000_000), ("max\n", None), (None, None)])
def test_a_container_has_the_memory_that_it_may_take(monkeypatch, tmp_path, limit, memory):
    monkeypatch.setattr("naturalist.memory.CONTAINER_LIMITS", [])
    machine = machine_memory()
    if machine is None:
        pytest.skip("this system does not tell")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr("naturalist.memory.CONTAINER_LIMITS", [tmp_path / "memory.max"])
    assert machine_memory() == (machine if memory is None else min(machine, memory))
